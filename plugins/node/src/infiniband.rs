//! `node_infiniband_*`: the ports of InfiniBand and RoCE adapters, from /sys/class/infiniband; and an event for a link
//! that goes down, whether it was seen down or only counted itself down between two readings.
//!
//! Which files an adapter has differs by driver and kernel: the lists are read anew once a minute, and when an adapter
//! comes or goes. A file that an adapter has and can't answer is left out without a word, as it always was.

mod links;
mod table;

use std::fmt::Write as _;
use std::time::Duration;

use picket_sdk::files::FilesError;
use picket_sdk::{Collect, CounterFamily, Describe, Failure, GaugeFamily, InfoFamily, clock};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, unsigned, utf8};
use links::{Links, Reading};

const CLASS: &str = "/sys/class/infiniband";
/// How long the lists of files are good for.
const KEEP: Duration = Duration::from_secs(60);
/// What the kernel counts in words of four bytes: one for each of a link's four lanes.
const LANES: u64 = 4;

pub struct InfiniBand {
    info: InfoFamily<4>,
    state: GaugeFamily<2>,
    physical_state: GaugeFamily<2>,
    rate: GaugeFamily<2>,
    lifespan: GaugeFamily<2>,
    tables: Vec<Table>,
    filter: Filter,
    links: Links,
    devices: Vec<Device>,
    names: Vec<String>,
    read_at: Option<Duration>,
    path: String,
}

/// The files of one directory.
struct Table {
    directory: &'static str,
    /// The file, its family, and by how much its number is multiplied.
    rows: Vec<(&'static str, CounterFamily<2>, u64)>,
}

struct Device {
    name: String,
    board: String,
    firmware: String,
    hca: String,
    ports: Vec<Port>,
}

struct Port {
    number: String,
    /// What is there of each table: its place in the tables, and in the rows.
    files: Vec<(usize, usize)>,
    has_lifespan: bool,
}

impl InfiniBand {
    pub fn new(d: &mut Describe) -> Self {
        let port = ["device", "port"];
        let mut table = |directory: &'static str, rows: &'static [table::Row]| Table {
            directory,
            rows: rows
                .iter()
                .map(|(file, name, help)| {
                    let family = d.counter(&format!("node_infiniband_{name}"), help).labels(&port);
                    (*file, family, if file.contains("_data") { LANES } else { 1 })
                })
                .collect(),
        };
        let tables = vec![
            table("counters", &table::COUNTERS),
            table("counters_ext", &table::COUNTERS_EXT),
            table("hw_counters", &table::HW_COUNTERS),
        ];
        Self {
            info: d
                .info(
                    "node_infiniband_info",
                    "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.",
                )
                .labels(&["device", "board_id", "firmware_version", "hca_type"]),
            state: d
                .gauge(
                    "node_infiniband_state_id",
                    "State of the InfiniBand port (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer)",
                )
                .labels(&port),
            physical_state: d
                .gauge(
                    "node_infiniband_physical_state_id",
                    "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable, 4: shift, \
                     5: link up, 6: link error recover, 7: phytest)",
                )
                .labels(&port),
            rate: d
                .gauge("node_infiniband_rate_bytes_per_second", "Maximum signal transfer rate")
                .labels(&port),
            lifespan: d
                .gauge(
                    "node_infiniband_lifespan_seconds",
                    "The maximum period in ms which defines the aging of the counter reads. Two consecutive reads within \
                     this period might return the same values.",
                )
                .labels(&port),
            tables,
            filter: Filter::default(),
            links: Links::default(),
            devices: Vec::new(),
            names: Vec::new(),
            read_at: None,
            path: String::new(),
        }
    }

    pub fn configure(&mut self, s: &settings::InfiniBand) -> Result<(), Failure> {
        self.filter = Filter::new("infiniband", &s.device_exclude, &s.device_include)?;
        self.links.configure(s.events, Duration::from_secs(s.stable_seconds));
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let names = match root.list(CLASS) {
            Ok(entries) => entries.into_iter().map(|e| e.name).collect(),
            Err(FilesError::NotFound(_)) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        self.layout(names, root, c);
        let now = clock::monotonic();
        let mut malformed = Malformed::new(CLASS);
        self.links.begin();
        for device in &self.devices {
            self.info.with(&[&device.name, &device.board, &device.firmware, &device.hca]).set();
            for port in &device.ports {
                let labels = [device.name.as_str(), port.number.as_str()];
                let file = |path: &mut String, name: &str| read(root, path, &device.name, &port.number, name);
                let mut state_of = |name: &str, family: &GaugeFamily<2>, malformed: &mut Malformed<'_>| {
                    let text = file(&mut self.path, name)?;
                    let state = parse_state(&text);
                    match &state {
                        Some((id, _)) => family.with(&labels).set(f64::from(*id)),
                        None => malformed.add(&text),
                    }
                    state
                };
                let state = state_of("state", &self.state, &mut malformed);
                let physical = state_of("phys_state", &self.physical_state, &mut malformed);
                if let Some(text) = read(root, &mut self.path, &device.name, &port.number, "rate") {
                    match parse_rate(&text) {
                        Some(rate) => self.rate.with(&labels).set(rate),
                        None => malformed.add(&text),
                    }
                }
                let mut downed = None;
                for (table, row) in &port.files {
                    let Some(table) = self.tables.get(*table) else { continue };
                    let Some((name, family, times)) = table.rows.get(*row) else { continue };
                    let path = &mut self.path;
                    let Some(value) = number(root, path, &labels, table.directory, name, &mut malformed)
                    else {
                        continue;
                    };
                    family.with(&labels).set_total(value.saturating_mul(*times) as f64);
                    if *name == "link_downed" {
                        downed = Some(value);
                    }
                }
                if port.has_lifespan
                    && let Some(ms) =
                        number(root, &mut self.path, &labels, "hw_counters", "lifespan", &mut malformed)
                {
                    self.lifespan.with(&labels).set((ms / 1000) as f64);
                }
                if let Some(state) = state {
                    self.links.see(c, now, &labels, &Reading { state, physical, downed });
                }
            }
        }
        self.links.finish(c, now);
        malformed.report(c);
        Ok(())
    }

    /// Reads which ports and files there are, where that may have changed.
    fn layout(&mut self, mut names: Vec<String>, root: &Root, c: &mut Collect<'_>) {
        names.sort_unstable();
        names.retain(|name| !self.filter.ignores(name));
        let now = clock::monotonic();
        let fresh = self.read_at.is_some_and(|at| now.saturating_sub(at) < KEEP);
        if fresh && names == self.names {
            return;
        }
        self.read_at = Some(now);
        self.devices.clear();
        for name in &names {
            match self.device(root, name) {
                Ok(device) => self.devices.push(device),
                Err(error) => c.failed(error),
            }
        }
        self.names = names;
    }

    fn device(&self, root: &Root, name: &str) -> Result<Device, Failure> {
        let fact = |file: &str| {
            let text = root.read(&format!("{CLASS}/{name}/{file}")).unwrap_or_default();
            utf8(text.trim_ascii()).unwrap_or_default().to_owned()
        };
        let mut ports = Vec::new();
        let mut numbers: Vec<String> =
            root.list(&format!("{CLASS}/{name}/ports"))?.into_iter().map(|e| e.name).collect();
        numbers.sort_unstable();
        for number in numbers {
            let mut port = Port { number, files: Vec::new(), has_lifespan: false };
            for (at, table) in self.tables.iter().enumerate() {
                let path = format!("{CLASS}/{name}/ports/{}/{}", port.number, table.directory);
                // Most drivers lack one of the directories.
                let Ok(entries) = root.list(&path) else { continue };
                for entry in entries {
                    port.has_lifespan |= table.directory == "hw_counters" && entry.name == "lifespan";
                    let row = table.rows.iter().position(|(file, ..)| *file == entry.name);
                    port.files.extend(row.map(|row| (at, row)));
                }
            }
            ports.push(port);
        }
        Ok(Device {
            name: name.to_owned(),
            board: fact("board_id"),
            firmware: fact("fw_ver"),
            hca: fact("hca_type"),
            ports,
        })
    }
}

fn read(root: &Root, path: &mut String, device: &str, port: &str, file: &str) -> Option<Vec<u8>> {
    path.clear();
    let _ = write!(path, "{CLASS}/{device}/ports/{port}/{file}");
    let mut text = root.read(path).ok()?;
    text.truncate(text.trim_ascii_end().len());
    Some(text)
}

fn number(
    root: &Root,
    path: &mut String,
    [device, port]: &[&str; 2],
    directory: &str,
    file: &str,
    malformed: &mut Malformed<'_>,
) -> Option<u64> {
    path.clear();
    let _ = write!(path, "{CLASS}/{device}/ports/{port}/{directory}/{file}");
    let text = root.read(path).ok()?;
    let text = text.trim_ascii();
    let value = unsigned(text);
    // What old kernels write for a counter that the adapter lacks: `N/A (no PMA)`.
    if value.is_none() && !text.starts_with(b"N/A") {
        malformed.add(text);
    }
    value
}

/// `4: ACTIVE`
fn parse_state(text: &[u8]) -> Option<(u32, String)> {
    let (id, name) = utf8(text)?.split_once(':')?;
    Some((id.trim().parse().ok()?, name.trim().to_ascii_lowercase()))
}

/// `100 Gb/sec (4X EDR)`, in bytes a second.
fn parse_rate(text: &[u8]) -> Option<f64> {
    let (number, unit) = utf8(text)?.split_once(' ')?;
    let gigabits: f32 = number.parse().ok()?;
    let known = unit.starts_with("Gb/sec") && gigabits.is_finite() && gigabits >= 0.0;
    known.then(|| (f64::from(gigabits) * 125_000_000.0).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn states_and_rates() {
        assert_eq!(parse_state(b"4: ACTIVE"), Some((4, "active".to_owned())));
        assert_eq!(parse_state(b"5: LinkUp"), Some((5, "linkup".to_owned())));
        for bad in ["", "ACTIVE", ": ACTIVE", "x: ACTIVE", "-1: DOWN", "99999999999: DOWN"] {
            assert_eq!(parse_state(bad.as_bytes()), None, "{bad:?}");
        }
        for (text, want) in [
            ("2.5 Gb/sec (1X SDR)", Some(312_500_000.0)),
            ("400 Gb/sec (4X NDR)", Some(5e10)),
            ("400", None),
            ("-1 Gb/sec", None),
            ("inf Gb/sec", None),
            ("400 Mb/sec", None),
        ] {
            assert_eq!(parse_rate(text.as_bytes()), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_of_a_driver_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse_state(&text);
            prop_assert!(parse_rate(&text).is_none_or(|rate| rate >= 0.0));
        }
    }
}
