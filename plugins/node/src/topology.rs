//! What sysfs says of each CPU: throttling, online, isolated. The layout is read when the set of CPUs in /proc/stat
//! changes (a CPU that goes offline leaves it), the throttle counters each time.

use std::collections::BTreeMap;

use picket_sdk::files::FilesError;
use picket_sdk::{Collect, CounterFamily, Describe, Failure, GaugeFamily};

use crate::root::Root;
use crate::text::unsigned;

const CPUS: &str = "/sys/devices/system/cpu";

pub struct Topology {
    core_throttles: CounterFamily<2>,
    package_throttles: CounterFamily<1>,
    isolated: GaugeFamily<1>,
    online: GaugeFamily<1>,
    /// The CPUs of /proc/stat that the layout was read for.
    known: Vec<u64>,
    layout: Option<Layout>,
}

#[derive(Default)]
struct Layout {
    cores: Vec<Throttled>,
    packages: Vec<Throttled>,
    online: Vec<(String, bool)>,
    isolated: Vec<String>,
}

/// A counter and the file that it is read from: of the first CPU that has it.
struct Throttled {
    package: String,
    core: String,
    file: String,
}

impl Topology {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            core_throttles: d
                .counter("node_cpu_core_throttles_total", "Number of times this CPU core has been throttled.")
                .labels(&["package", "core"]),
            package_throttles: d
                .counter(
                    "node_cpu_package_throttles_total",
                    "Number of times this CPU package has been throttled.",
                )
                .labels(&["package"]),
            isolated: d
                .gauge(
                    "node_cpu_isolated",
                    "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
                )
                .labels(&["cpu"]),
            online: d.gauge("node_cpu_online", "CPUs that are online and being scheduled.").labels(&["cpu"]),
            known: Vec::new(),
            layout: None,
        }
    }

    pub fn collect(&mut self, cpus: impl Iterator<Item = u64> + Clone, root: &Root, c: &mut Collect<'_>) {
        if self.layout.is_none() || !self.known.iter().copied().eq(cpus.clone()) {
            self.known = cpus.collect();
            self.layout = match read_layout(root) {
                Ok(layout) => Some(layout),
                Err(failure) => {
                    c.failed(failure);
                    None
                }
            };
        }
        let Some(layout) = &self.layout else { return };
        for t in &layout.cores {
            if let Some(count) = root.number(&t.file) {
                self.core_throttles.with(&[&t.package, &t.core]).set_total(count as f64);
            }
        }
        for t in &layout.packages {
            if let Some(count) = root.number(&t.file) {
                self.package_throttles.with(&[&t.package]).set_total(count as f64);
            }
        }
        for (cpu, online) in &layout.online {
            self.online.with(&[cpu]).set(f64::from(u8::from(*online)));
        }
        for cpu in &layout.isolated {
            self.isolated.with(&[cpu]).set(1.0);
        }
    }
}

fn read_layout(root: &Root) -> Result<Layout, Failure> {
    let mut cpus: Vec<u64> = match root.list(CPUS) {
        Ok(entries) => {
            entries.iter().filter_map(|e| unsigned(e.name.strip_prefix("cpu")?.as_bytes())).collect()
        }
        Err(FilesError::NotFound(_)) => return Ok(Layout::default()),
        Err(error) => return Err(error.into()),
    };
    cpus.sort_unstable();
    let mut layout = Layout::default();
    let mut cores = BTreeMap::new();
    let mut packages = BTreeMap::new();
    for cpu in &cpus {
        let number = |file: &str| root.number(&format!("{CPUS}/cpu{cpu}/{file}"));
        let Some(package) = number("topology/physical_package_id") else { continue };
        let Some(core) = number("topology/core_id") else { continue };
        let throttled = |file: &str| {
            let file = format!("{CPUS}/cpu{cpu}/thermal_throttle/{file}");
            root.number(&file).map(|_| Throttled {
                package: package.to_string(),
                core: core.to_string(),
                file,
            })
        };
        if !cores.contains_key(&(package, core))
            && let Some(found) = throttled("core_throttle_count")
        {
            cores.insert((package, core), found);
        }
        if !packages.contains_key(&package)
            && let Some(found) = throttled("package_throttle_count")
        {
            packages.insert(package, found);
        }
    }
    layout.cores = cores.into_values().collect();
    layout.packages = packages.into_values().collect();
    let online = |cpu: &u64| root.read(&format!("{CPUS}/cpu{cpu}/online"));
    // Where the first CPU can't be taken offline the others' state is not shown either, as in node_exporter.
    if cpus.first().is_some_and(|cpu| online(cpu).is_ok()) {
        let state = |cpu: &u64| online(cpu).is_ok_and(|text| text.trim_ascii() == b"1");
        layout.online = cpus.iter().map(|cpu| (cpu.to_string(), state(cpu))).collect();
    }
    if let Ok(text) = root.read(&format!("{CPUS}/isolated")) {
        layout.isolated = cpu_list(&text, cpus.last().copied().unwrap_or(0));
    }
    Ok(layout)
}

/// `2-3,8`, cpuset(7)'s list format; CPUs beyond the last one are left out.
fn cpu_list(text: &[u8], last: u64) -> Vec<String> {
    let mut list = Vec::new();
    for range in text.trim_ascii().split(|b| *b == b',') {
        let mut ends = range.splitn(2, |b| *b == b'-');
        let Some(first) = ends.next().and_then(unsigned) else { continue };
        let end = ends.next().map_or(Some(first), unsigned).unwrap_or(first);
        list.extend((first..=end.min(last)).map(|cpu| cpu.to_string()));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, want) in [
            ("\n", vec![]),
            ("1\n", vec!["1"]),
            ("2-3,5\n", vec!["2", "3", "5"]),
            ("0-18446744073709551615", vec!["0", "1", "2", "3", "4", "5", "6", "7"]),
            ("x,1-y,-", vec!["1"]),
        ] {
            assert_eq!(cpu_list(text.as_bytes(), 7), want, "{text:?}");
        }
    }
}
