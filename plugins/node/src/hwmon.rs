//! `node_hwmon_*`: temperatures, fans, voltages, power of /sys/class/hwmon, with node_exporter's names. A name is made of
//! the file's: `temp1_crit_alarm` is sensor `temp1` of `node_hwmon_temp_crit_alarm_celsius`.
//!
//! Which files a chip has, and its labels, are read anew once a minute, and when a chip comes or goes. What a driver does
//! not answer is left out without a word: many sensors are there for nothing that is soldered in.

mod names;

use std::collections::BTreeMap;
use std::time::Duration;

use picket_sdk::files::FilesError;
use picket_sdk::{
    Collect, Describe, DynamicFamily, Failure, FamilyDefinition, GaugeFamily, MetricType, Part, clock,
};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{decimal, utf8};
use names::{Family, Kind};

const CLASS: &str = "/sys/class/hwmon";
/// How long the lists of files are good for.
const KEEP: Duration = Duration::from_secs(60);

pub struct HardwareMonitors {
    chip_names: GaugeFamily<2>,
    labels: GaugeFamily<3>,
    chip_filter: Filter,
    sensor_filter: Filter,
    chips: Vec<Chip>,
    names: Vec<String>,
    read_at: Option<Duration>,
}

struct Chip {
    name: String,
    /// What its driver calls it.
    kind: String,
    sensors: Vec<Sensor>,
}

struct Sensor {
    name: String,
    label: Option<String>,
    values: Vec<Value>,
}

struct Value {
    file: String,
    family: Family,
    /// Another label for the sensor than its name.
    sensor: Option<String>,
    /// Declared with the first value.
    declared: Option<DynamicFamily>,
}

impl HardwareMonitors {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            chip_names: d
                .gauge("node_hwmon_chip_names", "Annotation metric for human-readable chip names")
                .labels(&["chip", "chip_name"]),
            labels: d
                .gauge("node_hwmon_sensor_label", "Label for given chip and sensor")
                .labels(&["chip", "sensor", "label"]),
            chip_filter: Filter::default(),
            sensor_filter: Filter::default(),
            chips: Vec::new(),
            names: Vec::new(),
            read_at: None,
        }
    }

    pub fn configure(&mut self, s: &settings::HwMon) -> Result<(), Failure> {
        self.chip_filter = Filter::new("hwmon", &s.chip_exclude, &s.chip_include)?;
        self.sensor_filter = Filter::new("hwmon", &s.sensor_exclude, &s.sensor_include)?;
        self.read_at = None;
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let mut names: Vec<String> = match root.list(CLASS) {
            Ok(entries) => entries.into_iter().map(|e| e.name).collect(),
            Err(FilesError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        names.sort_unstable();
        let now = clock::monotonic();
        if self.names != names || self.read_at.is_none_or(|at| now.saturating_sub(at) >= KEEP) {
            self.read_at = Some(now);
            self.layout(&names, root, c);
            self.names = names;
        }
        for chip in &mut self.chips {
            if !chip.kind.is_empty() {
                self.chip_names.with(&[&chip.name, &chip.kind]).set(1.0);
            }
            for sensor in &mut chip.sensors {
                if let Some(label) = &sensor.label {
                    self.labels.with(&[&chip.name, &sensor.name, label]).set(1.0);
                }
                for value in &mut sensor.values {
                    value.set(root, &chip.name, &sensor.name, c);
                }
            }
        }
        Ok(())
    }

    fn layout(&mut self, names: &[String], root: &Root, c: &mut Collect<'_>) {
        let mut old = std::mem::take(&mut self.chips);
        for name in names {
            match self.chip(name, root) {
                Ok(Some(mut chip)) => {
                    // Families are good for as long as the instance lives.
                    if let Some(before) = old.iter_mut().find(|before| before.name == chip.name) {
                        chip.keep(before);
                    }
                    self.chips.push(chip);
                }
                Ok(None) => {}
                Err(error) => c.failed(error),
            }
        }
    }

    fn chip(&mut self, entry: &str, root: &Root) -> Result<Option<Chip>, Failure> {
        let folder = format!("{CLASS}/{entry}");
        let kind = root.read(&format!("{folder}/name")).unwrap_or_default();
        let kind = names::clean(&String::from_utf8_lossy(&kind));
        let name = chip_name(entry, &folder, &kind, root);
        if self.chip_filter.ignores(&name) {
            return Ok(None);
        }
        // By sensor: its type, and what there is of it. What stands in both folders is the device's.
        let mut found: BTreeMap<String, (Kind, BTreeMap<String, String>)> = BTreeMap::new();
        for folder in [folder.clone(), format!("{folder}/device")] {
            let entries = match root.list(&folder) {
                Ok(entries) => entries,
                Err(FilesError::NotFound(_) | FilesError::WrongKind(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            for entry in entries {
                let Some((kind, number, property)) = names::split(&entry.name) else { continue };
                let sensor = format!("{}{number}", kind.word());
                let file = format!("{folder}/{}", entry.name);
                found.entry(sensor).or_insert((kind, BTreeMap::new())).1.insert(property.to_owned(), file);
            }
        }
        let mut sensors = Vec::new();
        for (sensor, (kind, files)) in found {
            if !self.sensor_filter.ignores(&format!("{name};{sensor}")) {
                sensors.push(Sensor::new(sensor, kind, &files, root));
            }
        }
        Ok(Some(Chip { name, kind, sensors }))
    }
}

/// A stable one: of the device (its bus and its own name), else the driver's word, else the number.
fn chip_name(entry: &str, folder: &str, kind: &str, root: &Root) -> String {
    let place = |folder: &str| match root.link(folder) {
        Ok(target) => {
            let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
            names::join(parent, &target)
        }
        Err(_) => folder.to_owned(),
    };
    let own = place(folder);
    let device = format!("{folder}/device");
    let device = match root.link(&device) {
        Ok(target) => Some(names::join(&own, &target)),
        // A folder of its own, which no driver has.
        Err(FilesError::WrongKind(_)) => Some(format!("{own}/device")),
        Err(_) => None,
    };
    if let Some(device) = device {
        let mut parts = device.rsplit('/').map(names::clean);
        let (name, bus) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match (bus.is_empty(), name.is_empty()) {
            (false, false) => return format!("{bus}_{name}"),
            (true, false) => return name,
            _ => {}
        }
    }
    match kind {
        "" => names::clean(own.rsplit('/').next().unwrap_or(entry)),
        kind => kind.to_owned(),
    }
}

impl Chip {
    /// Takes over the families that `before` has declared.
    fn keep(&mut self, before: &mut Self) {
        let mut known = BTreeMap::new();
        for value in before.sensors.iter_mut().flat_map(|sensor| &mut sensor.values) {
            if let Some(declared) = value.declared.take() {
                known.insert(value.file.as_str(), (&value.family, declared));
            }
        }
        for value in self.sensors.iter_mut().flat_map(|sensor| &mut sensor.values) {
            if let Some((family, declared)) = known.remove(value.file.as_str())
                && *family == value.family
            {
                value.declared = Some(declared);
            }
        }
    }
}

impl Sensor {
    fn new(name: String, kind: Kind, files: &BTreeMap<String, String>, root: &Root) -> Self {
        let label = files.get("label").and_then(|file| root.read(file).ok());
        let label = label.map(|text| String::from_utf8_lossy(trim(&text)).into_owned());
        let bare = files.contains_key("");
        let mut values = Vec::new();
        for (property, file) in files {
            let Some(family) = names::family(kind, property, bare) else { continue };
            // The frequency of a part of a GPU goes by the part's name, and one without a name is left out.
            let sensor = match (family.by_label, &label) {
                (false, _) => None,
                (true, Some(label)) => Some(names::clean(label)),
                (true, None) => continue,
            };
            values.push(Value { file: file.clone(), family, sensor, declared: None });
        }
        Self { name, label, values }
    }
}

impl Value {
    fn set(&mut self, root: &Root, chip: &str, sensor: &str, c: &mut Collect<'_>) {
        let Ok(text) = root.read(&self.file) else { return };
        let text = trim(&text);
        let Some(value) = self.family.value(text) else { return };
        if self.declared.is_none() {
            let family = c.family(&FamilyDefinition {
                name: &self.family.name,
                metric_type: if self.family.counts { MetricType::Counter } else { MetricType::Gauge },
                unit: "",
                help: &self.family.help,
            });
            match family {
                Ok(family) => self.declared = Some(family),
                Err(failure) => return c.failed(failure),
            }
        }
        let sensor = self.sensor.as_deref().unwrap_or(sensor);
        if let Some(family) = &self.declared {
            family.set(Part::Value, &[("chip", chip), ("sensor", sensor)], value);
        }
    }
}

/// node_exporter cuts the newlines, and a blank makes it no number.
fn trim(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|b| *b != b'\n').unwrap_or(text.len());
    let end = text.iter().rposition(|b| *b != b'\n').map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

impl Family {
    fn value(&self, text: &[u8]) -> Option<f64> {
        if self.is_flag {
            return Some(f64::from(u8::from(text == b"1")));
        }
        utf8(text)?;
        let value = decimal(text)?;
        Some(match self.scale {
            names::Scale::One => value,
            names::Scale::Thousandth => value * 0.001,
            names::Scale::Millionth => value / 1_000_000.0,
        })
    }
}
