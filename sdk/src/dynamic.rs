//! Families that are known only when a page is read.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::Core;
use crate::{Failure, MetricType, Part};

/// A family as a page declares it.
#[derive(Debug, Clone, Copy)]
pub struct FamilyDefinition<'a> {
    /// The whole name as it is exposed, without `_bucket`, `_sum` and `_count`.
    pub name: &'a str,
    /// Its type.
    pub metric_type: MetricType,
    /// The unit in OpenMetrics' sense, or empty.
    pub unit: &'a str,
    /// The help text.
    pub help: &'a str,
}

/// A family declared while collecting. Cheap to clone; good for the life of the instance.
#[derive(Clone)]
pub struct DynamicFamily {
    core: Rc<RefCell<Core>>,
    index: u32,
}

impl DynamicFamily {
    pub(crate) fn declare(core: &Rc<RefCell<Core>>, def: &FamilyDefinition<'_>) -> Result<Self, Failure> {
        let declared = core.borrow_mut().declare(def);
        let index = match declared {
            Ok((index, true)) => index,
            Ok((_, false)) => {
                let message = format!("{} was declared with another type before", def.name);
                return Err(Failure::new("family", message));
            }
            Err(error) => {
                let message = format!("the family {} was refused: {error}", def.name);
                return Err(Failure::new("family", message));
            }
        };
        Ok(Self { core: core.clone(), index })
    }

    /// The value of a line, with its labels as name and value (`le` and `quantile` among them). Label order is
    /// part of the identity: keep the page's.
    #[inline]
    pub fn set(&self, part: Part, labels: &[(&str, &str)], value: f64) {
        let mut core = self.core.borrow_mut();
        let index = core.find(self.index, part, labels.iter().flat_map(|(name, value)| [*name, *value]));
        core.set(index, value);
    }

    /// As [`Self::set`], with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_at(&self, part: Part, labels: &[(&str, &str)], value: f64, time_ms: u64) {
        let mut core = self.core.borrow_mut();
        let index = core.find(self.index, part, labels.iter().flat_map(|(name, value)| [*name, *value]));
        core.set_at(index, value, time_ms);
    }
}
