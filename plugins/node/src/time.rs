//! `node_time_*`: the clock, its zone, the kernel's clock sources.

use picket_sdk::files::FilesError;
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, clock, system};

use crate::root::Root;
use crate::text::{unsigned, utf8, words};

const SOURCES: &str = "/sys/devices/system/clocksource";

pub struct Time {
    now: GaugeFamily,
    zone: GaugeFamily<1>,
    available: GaugeFamily<2>,
    current: GaugeFamily<2>,
    /// The devices, each with its files; they don't change while the kernel runs.
    devices: Option<Vec<Device>>,
}

struct Device {
    index: String,
    available: String,
    current: String,
}

impl Time {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            now: d.gauge("node_time_seconds", "System time in seconds since epoch (1970)."),
            zone: d
                .gauge("node_time_zone_offset_seconds", "System time zone offset in seconds.")
                .labels(&["time_zone"]),
            available: d
                .gauge(
                    "node_time_clocksource_available_info",
                    "Available clocksources read from '/sys/devices/system/clocksource'.",
                )
                .labels(&["device", "clocksource"]),
            current: d
                .gauge(
                    "node_time_clocksource_current_info",
                    "Current clocksource read from '/sys/devices/system/clocksource'.",
                )
                .labels(&["device", "clocksource"]),
            devices: None,
        }
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        self.now.set(clock::now().as_nanos() as f64 / 1e9);
        let zone = system::local_time_zone();
        self.zone.with(&[&zone.name]).set(f64::from(zone.offset_seconds));
        let devices = match &mut self.devices {
            Some(devices) => devices,
            none => none.insert(devices(root)?),
        };
        for device in devices {
            let read = |path: &str, family: &GaugeFamily<2>| -> Result<(), Failure> {
                let text = root.read(path)?;
                for name in words(text.trim_ascii()).filter_map(utf8) {
                    family.with(&[&device.index, name]).set(1.0);
                }
                Ok(())
            };
            for done in [read(&device.available, &self.available), read(&device.current, &self.current)] {
                if let Err(failure) = done {
                    c.failed(failure);
                }
            }
        }
        Ok(())
    }
}

fn devices(root: &Root) -> Result<Vec<Device>, Failure> {
    let entries = match root.list(SOURCES) {
        Ok(entries) => entries,
        Err(FilesError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let number = |name: &str| unsigned(name.strip_prefix("clocksource")?.as_bytes());
    let mut names: Vec<String> =
        entries.into_iter().map(|e| e.name).filter(|n| number(n).is_some()).collect();
    names.sort_unstable();
    let device = |(index, name): (usize, String)| Device {
        index: index.to_string(),
        available: format!("{SOURCES}/{name}/available_clocksource"),
        current: format!("{SOURCES}/{name}/current_clocksource"),
    };
    Ok(names.into_iter().enumerate().map(device).collect())
}
