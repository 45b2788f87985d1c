//! `node_disk_*`: /proc/diskstats, and what udev and sysfs know of each device.

use std::time::Duration;

use picket_sdk::{Collect, CounterFamily, Describe, Failure, GaugeFamily, clock};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, decimal, lines, unsigned, utf8, words};

/// How long the facts of a device are good.
const FACTS: Duration = Duration::from_secs(60);
/// A sector of the block layer's statistics, whatever the device's own are.
const SECTOR: f64 = 512.0;
const MILLISECOND: f64 = 0.001;

enum Column {
    Counter(CounterFamily<1>),
    Gauge(GaugeFamily<1>),
}

pub struct Disks {
    /// In the order of the file, after major, minor and name; older kernels have fewer.
    columns: Vec<(Column, f64)>,
    info: GaugeFamily<9>,
    filesystem_info: GaugeFamily<5>,
    device_mapper_info: GaugeFamily<6>,
    ata: [(&'static str, GaugeFamily<1>); 3],
    filter: Filter,
    known: Vec<Facts>,
}

/// What is known of a device.
struct Facts {
    name: String,
    major: String,
    minor: String,
    rotational: &'static str,
    udev: Udev,
    read: Duration,
    seen: bool,
}

impl Disks {
    pub fn new(d: &mut Describe) -> Self {
        let mut counter = |name: &str, help: &str, scale: f64| {
            (Column::Counter(d.counter(&format!("node_disk_{name}"), help).labels(&["device"])), scale)
        };
        let mut columns = vec![
            counter("reads_completed_total", "The total number of reads completed successfully.", 1.0),
            counter("reads_merged_total", "The total number of reads merged.", 1.0),
            counter("read_bytes_total", "The total number of bytes read successfully.", SECTOR),
            counter(
                "read_time_seconds_total",
                "The total number of seconds spent by all reads.",
                MILLISECOND,
            ),
            counter("writes_completed_total", "The total number of writes completed successfully.", 1.0),
            counter("writes_merged_total", "The number of writes merged.", 1.0),
            counter("written_bytes_total", "The total number of bytes written successfully.", SECTOR),
            counter(
                "write_time_seconds_total",
                "This is the total number of seconds spent by all writes.",
                MILLISECOND,
            ),
            counter("io_time_seconds_total", "Total seconds spent doing I/Os.", MILLISECOND),
            counter(
                "io_time_weighted_seconds_total",
                "The weighted # of seconds spent doing I/Os.",
                MILLISECOND,
            ),
            counter("discards_completed_total", "The total number of discards completed successfully.", 1.0),
            counter("discards_merged_total", "The total number of discards merged.", 1.0),
            counter("discarded_sectors_total", "The total number of sectors discarded successfully.", 1.0),
            counter(
                "discard_time_seconds_total",
                "This is the total number of seconds spent by all discards.",
                MILLISECOND,
            ),
            counter("flush_requests_total", "The total number of flush requests completed successfully", 1.0),
            counter(
                "flush_requests_time_seconds_total",
                "This is the total number of seconds spent by all flush requests.",
                MILLISECOND,
            ),
        ];
        let now = d.gauge("node_disk_io_now", "The number of I/Os currently in progress.");
        columns.insert(8, (Column::Gauge(now.labels(&["device"])), 1.0));
        let mut ata = |name: &str, help: &str| d.gauge(name, help).labels(&["device"]);
        Self {
            columns,
            ata: [
                ("ID_ATA_WRITE_CACHE", ata("node_disk_ata_write_cache", "ATA disk has a write cache.")),
                (
                    "ID_ATA_WRITE_CACHE_ENABLED",
                    ata("node_disk_ata_write_cache_enabled", "ATA disk has its write cache enabled."),
                ),
                (
                    "ID_ATA_ROTATION_RATE_RPM",
                    ata("node_disk_ata_rotation_rate_rpm", "ATA disk rotation rate in RPMs (0 for SSDs)."),
                ),
            ],
            info: d.gauge("node_disk_info", "Info of /sys/block/<block_device>.").labels(&[
                "device",
                "major",
                "minor",
                "path",
                "wwn",
                "model",
                "serial",
                "revision",
                "rotational",
            ]),
            filesystem_info: d
                .gauge("node_disk_filesystem_info", "Info about disk filesystem.")
                .labels(&["device", "type", "usage", "uuid", "version"]),
            device_mapper_info: d
                .gauge("node_disk_device_mapper_info", "Info about disk device mapper.")
                .labels(&["device", "name", "uuid", "vg_name", "lv_name", "lv_layer"]),
            filter: Filter::default(),
            known: Vec::new(),
        }
    }

    pub fn configure(&mut self, s: &settings::DiskStats) -> Result<(), Failure> {
        self.filter = Filter::new("diskstats", &s.device_exclude, &s.device_include)?;
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let text = root.read("/proc/diskstats")?;
        let now = clock::monotonic();
        let mut malformed = Malformed::new("/proc/diskstats");
        for line in lines(&text) {
            let mut fields = words(line);
            let mut id = || fields.next().and_then(utf8).filter(|id| unsigned(id.as_bytes()).is_some());
            let (major, minor) = (id(), id());
            let (Some(major), Some(minor), Some(name)) = (major, minor, fields.next().and_then(utf8)) else {
                malformed.add(line);
                continue;
            };
            if self.filter.ignores(name) {
                continue;
            }
            for ((column, scale), field) in self.columns.iter().zip(fields) {
                let Some(value) = unsigned(field) else {
                    malformed.add(line);
                    break;
                };
                let value = value as f64 * scale;
                match column {
                    Column::Counter(family) => family.with(&[name]).set_total(value),
                    Column::Gauge(family) => family.with(&[name]).set(value),
                }
            }
            let place = self.facts(root, name, (major, minor), now);
            if let Some(facts) = self.known.get(place) {
                self.set_facts(facts);
            }
        }
        malformed.report(c);
        self.known.retain_mut(|facts| std::mem::take(&mut facts.seen));
        Ok(())
    }

    /// Where the facts of a device are, read anew where they are old.
    fn facts(&mut self, root: &Root, name: &str, number: (&str, &str), now: Duration) -> usize {
        let (major, minor) = number;
        let same = |f: &Facts| f.name == name && f.major == major && f.minor == minor;
        let place = self.known.iter().position(same).unwrap_or(self.known.len());
        match self.known.get_mut(place) {
            Some(facts) if now.saturating_sub(facts.read) < FACTS => facts.seen = true,
            Some(facts) => *facts = Facts::read(root, name, number, now),
            None => self.known.push(Facts::read(root, name, number, now)),
        }
        place
    }

    fn set_facts(&self, f: &Facts) {
        let (name, udev) = (f.name.as_str(), &f.udev);
        let serial = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"];
        let serial = serial.iter().map(|key| udev.get(key)).find(|s| !s.is_empty()).unwrap_or("");
        let labels = [
            name,
            &f.major,
            &f.minor,
            udev.get("ID_PATH"),
            udev.get("ID_WWN"),
            udev.get("ID_MODEL"),
            serial,
            udev.get("ID_REVISION"),
            f.rotational,
        ];
        self.info.with(&labels).set(1.0);
        let fs_type = udev.get("ID_FS_TYPE");
        if !fs_type.is_empty() {
            let rest = ["ID_FS_USAGE", "ID_FS_UUID", "ID_FS_VERSION"].map(|key| udev.get(key));
            let [usage, uuid, version] = rest;
            self.filesystem_info.with(&[name, fs_type, usage, uuid, version]).set(1.0);
        }
        let dm = udev.get("DM_NAME");
        if !dm.is_empty() {
            let rest = ["DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER"].map(|key| udev.get(key));
            let [uuid, vg, lv, layer] = rest;
            self.device_mapper_info.with(&[name, dm, uuid, vg, lv, layer]).set(1.0);
        }
        if !udev.get("ID_ATA").is_empty() {
            for (key, family) in &self.ata {
                if let Some(value) = decimal(udev.get(key).as_bytes()) {
                    family.with(&[name]).set(value);
                }
            }
        }
    }
}

impl Facts {
    fn read(root: &Root, name: &str, (major, minor): (&str, &str), now: Duration) -> Self {
        // sysfs writes a `!` for the `/` of a name such as `cciss/c0d0`.
        let in_sysfs = name.replace('/', "!");
        let rotational = root.number(&format!("/sys/block/{in_sysfs}/queue/rotational"));
        // Without udev (a container, a minimal system) there are no facts; that is no failure.
        let udev = root.read(&format!("/run/udev/data/b{major}:{minor}")).unwrap_or_default();
        Self {
            name: name.to_owned(),
            major: major.to_owned(),
            minor: minor.to_owned(),
            rotational: if rotational == Some(1) { "1" } else { "0" },
            udev: Udev::parse(&udev),
            read: now,
            seen: true,
        }
    }
}

/// The properties of a device in udev's database: lines `E:NAME=value`.
#[derive(Default)]
struct Udev(Vec<(String, String)>);

impl Udev {
    fn parse(text: &[u8]) -> Self {
        const KEPT: [&str; 4] = ["ID_", "DM_", "SCSI_IDENT_SERIAL", "ID_ATA"];
        let property = |line| {
            let (name, value) = utf8(line)?.strip_prefix("E:")?.split_once('=')?;
            KEPT.iter().any(|k| name.starts_with(k)).then(|| (name.to_owned(), value.to_owned()))
        };
        Self(lines(text).filter_map(property).collect())
    }

    /// Its value, or nothing. The last of several counts.
    fn get(&self, name: &str) -> &str {
        self.0.iter().rev().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}
