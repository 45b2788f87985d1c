//! What the links have trained to. The plugin `node` tells state, rate and error counters; a link that came up with one lane of
//! four, or a generation slower than its cable can, is `active` there and nobody is told. Here it is compared with the best that
//! was ever seen of this port, which outlives the node's reboots, and with what its adapter's PCIe slot can carry.

mod read;

use std::collections::{BTreeMap, BTreeSet};

use picket_sdk::files::{FilesError, list_directory, read as read_file};
use picket_sdk::{Collect, Describe, Event, Failure, GaugeFamily, InfoFamily, Severity, Source, store};
use read::{Rate, rate, transfers};
use serde::Deserialize;

const CLASS: &str = "/sys/class/infiniband";
const DEGRADED: &str = "ib-link.degraded";

pub struct IbLink {
    lanes: GaugeFamily<2>,
    lane_rate: GaugeFamily<2>,
    degraded: GaugeFamily<2>,
    local: GaugeFamily<2>,
    manager: GaugeFamily<2>,
    layer: InfoFamily<3>,
    pcie_lanes: GaugeFamily<1>,
    pcie_lanes_max: GaugeFamily<1>,
    pcie_rate: GaugeFamily<1>,
    pcie_rate_max: GaugeFamily<1>,
    settings: Settings,
    /// The best rate of each port, by `DEVICE/PORT`; read from the store when it is first wanted.
    best: BTreeMap<String, u64>,
    /// Ports that an event said are degraded.
    said: BTreeSet<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    ignore: Vec<String>,
}

impl Source for IbLink {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        let port = ["device", "port"];
        Self {
            lanes: d.gauge("ib_link_lanes", "Lanes that the link runs with.").labels(&port),
            lane_rate: d.gauge("ib_link_lane_bits_per_second", "Signalling rate of one lane.").labels(&port),
            degraded: d
                .gauge(
                    "ib_link_degraded",
                    "Whether the link is slower than it was seen before (1) or not (0).",
                )
                .labels(&port),
            local: d
                .gauge("ib_link_lid", "Local identifier of the port; 0: the subnet gave it none.")
                .labels(&port),
            manager: d
                .gauge("ib_link_subnet_manager_lid", "Where the port's subnet manager is.")
                .labels(&port),
            layer: d
                .info("ib_link_layer_info", "What the port is: InfiniBand or Ethernet (RoCE).")
                .labels(&["device", "port", "layer"]),
            pcie_lanes: d
                .gauge("ib_link_pcie_lanes", "PCIe lanes that the adapter runs with.")
                .labels(&["device"]),
            pcie_lanes_max: d
                .gauge("ib_link_pcie_lanes_max", "PCIe lanes that the adapter has.")
                .labels(&["device"]),
            pcie_rate: d
                .gauge("ib_link_pcie_transfers_per_second", "Transfers a second of each PCIe lane.")
                .labels(&["device"]),
            pcie_rate_max: d
                .gauge("ib_link_pcie_transfers_per_second_max", "Those that the adapter can do.")
                .labels(&["device"]),
            settings: Settings::default(),
            best: BTreeMap::new(),
            said: BTreeSet::new(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        let devices = match list_directory(CLASS) {
            Ok(devices) => devices,
            // A node without such adapters has nothing to say.
            Err(FilesError::NotFound(_)) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let names = devices.into_iter().map(|d| d.name);
        let watched: Vec<String> = names.filter(|name| !self.settings.ignore.contains(name)).collect();
        for device in &watched {
            self.pcie(device);
            let ports = match list_directory(&format!("{CLASS}/{device}/ports")) {
                Ok(ports) => ports,
                Err(e) => {
                    collect.failed(e);
                    continue;
                }
            };
            for port in &ports {
                self.port(collect, device, &port.name);
            }
        }
        Ok(())
    }
}

impl IbLink {
    fn port(&mut self, collect: &mut Collect<'_>, device: &str, port: &str) {
        let labels = [device, port];
        let folder = format!("{CLASS}/{device}/ports/{port}");
        if let Some(layer) = text(&format!("{folder}/link_layer")) {
            self.layer.with(&[device, port, &layer]).set();
        }
        if let Some(lid) = text(&format!("{folder}/lid")).and_then(|t| read::hexadecimal(&t)) {
            self.local.with(&labels).set(lid);
        }
        if let Some(lid) = text(&format!("{folder}/sm_lid")).and_then(|t| read::hexadecimal(&t)) {
            self.manager.with(&labels).set(lid);
        }
        // A link that is down has no rate that means anything.
        let up = text(&format!("{folder}/state")).is_some_and(|state| state.starts_with("4:"));
        let Some(said) = text(&format!("{folder}/rate")).filter(|_| up) else { return };
        let Some(rate) = rate(&said) else {
            return collect.fail("parse", &format!("{folder}/rate is {said:?}"));
        };
        self.lanes.with(&labels).set(f64::from(rate.lanes));
        self.lane_rate.with(&labels).set(rate.bits_per_second as f64 / f64::from(rate.lanes));
        self.compare(collect, device, port, &rate, &said);
    }

    fn compare(&mut self, collect: &mut Collect<'_>, device: &str, port: &str, rate: &Rate, said: &str) {
        let key = format!("{device}/{port}");
        let best = match self.best.get(&key) {
            Some(best) => *best,
            None => match store::get(&key) {
                Ok(kept) => kept.and_then(|b| Some(u64::from_le_bytes(b.try_into().ok()?))).unwrap_or(0),
                Err(e) => return collect.fail("store", &e.to_string()),
            },
        };
        if rate.bits_per_second > best
            && let Err(e) = store::set(&key, &rate.bits_per_second.to_le_bytes(), None)
        {
            collect.fail("store", &e.to_string());
        }
        let best = best.max(rate.bits_per_second);
        self.best.insert(key.clone(), best);
        let degraded = rate.bits_per_second < best;
        self.degraded.with(&[device, port]).set(f64::from(u8::from(degraded)));
        if degraded && self.said.insert(key.clone()) {
            let message =
                format!("the link {key} runs at {said}; it has run at {} Gb/s", best / 1_000_000_000);
            collect.emit(Event::new(DEGRADED, Severity::Warning, message).about("link", &key).key(key));
        } else if !degraded && self.said.remove(&key) {
            let message = format!("the link {key} runs at {said} again");
            collect.emit(Event::ended(DEGRADED, &key, message).about("link", &key));
        }
    }

    /// What an adapter without PCIe (a simulated one) does not have is left out.
    fn pcie(&mut self, device: &str) {
        let folder = format!("{CLASS}/{device}/device");
        for (file, family) in
            [("current_link_width", &self.pcie_lanes), ("max_link_width", &self.pcie_lanes_max)]
        {
            if let Some(lanes) = text(&format!("{folder}/{file}")).and_then(|t| t.parse::<u32>().ok()) {
                family.with(&[device]).set(f64::from(lanes));
            }
        }
        for (file, family) in
            [("current_link_speed", &self.pcie_rate), ("max_link_speed", &self.pcie_rate_max)]
        {
            if let Some(rate) = text(&format!("{folder}/{file}")).and_then(|t| transfers(&t)) {
                family.with(&[device]).set(rate);
            }
        }
    }
}

/// A file's one line; none where it can't be read, as an adapter does not have every file.
fn text(path: &str) -> Option<String> {
    let bytes = read_file(path).ok()?;
    let line = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!line.is_empty()).then_some(line)
}

picket_sdk::export!(IbLink);
