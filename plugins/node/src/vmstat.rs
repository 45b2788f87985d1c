//! `node_vmstat_*` of /proc/vmstat: the fields that the pattern takes, as kernels have different ones.

use std::collections::HashMap;

use picket_sdk::{Collect, DynamicFamily, Failure, FamilyDefinition, MetricType, Part};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, decimal, lines, utf8, words};

#[derive(Default)]
pub struct VmStat {
    filter: Filter,
    /// None: not wanted.
    fields: HashMap<Box<str>, Option<DynamicFamily>>,
}

impl VmStat {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn configure(&mut self, s: &settings::VmStat) -> Result<(), Failure> {
        self.filter = Filter::new("vmstat", "", &s.fields)?;
        self.fields.clear();
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let text = root.read("/proc/vmstat")?;
        let mut malformed = Malformed::new("/proc/vmstat");
        for line in lines(&text) {
            let mut fields = words(line);
            let Some(name) = fields.next().and_then(utf8) else {
                malformed.add(line);
                continue;
            };
            if !self.fields.contains_key(name) {
                let family = if self.filter.ignores(name) { None } else { Some(declare(name, c)?) };
                self.fields.insert(name.into(), family);
            }
            let Some(Some(family)) = self.fields.get(name) else { continue };
            match fields.next().and_then(decimal) {
                Some(value) => family.set(Part::Value, &[], value),
                None => malformed.add(line),
            }
        }
        malformed.report(c);
        Ok(())
    }
}

fn declare(name: &str, c: &mut Collect<'_>) -> Result<DynamicFamily, Failure> {
    c.family(&FamilyDefinition {
        name: &format!("node_vmstat_{name}"),
        metric_type: MetricType::Unknown,
        unit: "",
        help: &format!("/proc/vmstat information field {name}."),
    })
}
