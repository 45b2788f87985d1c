//! The host's own metrics: the names, labels, types and units of node_exporter 1.11, letter for letter, so that
//! dashboards and alerts for it work unchanged. A comparison with a real node_exporter is a test.
//!
//! Each collector is a module with `new` (its families) and `collect`. What one can't read is said
//! ([`picket_sdk::Collect::fail`]) and left out; the others go on.
//!
//! Differences on purpose: network counters come from `/proc/net/dev` and `rx_nohandler` of sysfs (the kernel folds
//! them exactly as node_exporter does from netlink); facts of disks are read anew once a minute, not each time; the
//! topology of CPUs when the set of CPUs changes.

mod cpu;
mod disk;
mod filesystem;
mod filter;
mod hwmon;
mod infiniband;
mod loadavg;
mod meminfo;
mod network;
mod pressure;
mod root;
mod settings;
mod stat;
mod text;
mod time;
mod topology;
mod uname;
mod vmstat;

use picket_sdk::{Collect, Describe, Failure, Source};

use root::Root;
pub use settings::Settings;

/// The plugin.
pub struct Node {
    settings: Settings,
    root: Root,
    cpu: cpu::Cpu,
    disk: disk::Disks,
    filesystem: filesystem::FileSystems,
    hwmon: hwmon::HardwareMonitors,
    infiniband: infiniband::InfiniBand,
    loadavg: loadavg::LoadAverage,
    meminfo: meminfo::Memory,
    network: network::Network,
    pressure: pressure::Pressure,
    stat: stat::Stat,
    time: time::Time,
    uname: uname::Uname,
    vmstat: vmstat::VmStat,
}

impl Source for Node {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            settings: Settings::default(),
            root: Root::default(),
            cpu: cpu::Cpu::new(d),
            disk: disk::Disks::new(d),
            filesystem: filesystem::FileSystems::new(d),
            hwmon: hwmon::HardwareMonitors::new(d),
            infiniband: infiniband::InfiniBand::new(d),
            loadavg: loadavg::LoadAverage::new(d),
            meminfo: meminfo::Memory::new(d),
            network: network::Network::new(d),
            pressure: pressure::Pressure::new(d),
            stat: stat::Stat::new(d),
            time: time::Time::new(d),
            uname: uname::Uname::new(d),
            vmstat: vmstat::VmStat::new(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        self.root = Root::new(&settings.root)?;
        self.disk.configure(&settings.diskstats)?;
        self.filesystem.configure(&settings.filesystem)?;
        self.hwmon.configure(&settings.hwmon)?;
        self.infiniband.configure(&settings.infiniband)?;
        self.network.configure(&settings.netdev)?;
        self.vmstat.configure(&settings.vmstat)?;
        self.cpu.configure(&settings.cpu);
        self.stat.configure(&settings.stat);
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let (on, root) = (&self.settings, &self.root);
        root.begin();
        if on.cpu.enabled || on.stat.enabled {
            match root.read("/proc/stat") {
                Ok(text) => {
                    if on.cpu.enabled {
                        self.cpu.collect(&text, root, c);
                    }
                    if on.stat.enabled {
                        self.stat.collect(&text, c);
                    }
                }
                Err(error) => c.failed(error),
            }
        }
        let mut part = |enabled: bool, collector: &mut dyn FnMut(&mut Collect<'_>) -> Result<(), Failure>| {
            if enabled && let Err(failure) = collector(c) {
                c.failed(failure);
            }
        };
        part(on.diskstats.enabled, &mut |c| self.disk.collect(root, c));
        part(on.filesystem.enabled, &mut |c| self.filesystem.collect(root, c));
        part(on.hwmon.enabled, &mut |c| self.hwmon.collect(root, c));
        part(on.infiniband.enabled, &mut |c| self.infiniband.collect(root, c));
        part(on.loadavg.enabled, &mut |_| self.loadavg.collect(root));
        part(on.meminfo.enabled, &mut |c| self.meminfo.collect(root, c));
        part(on.netdev.enabled, &mut |c| self.network.collect(root, c));
        part(on.pressure.enabled, &mut |c| self.pressure.collect(root, c));
        part(on.time.enabled, &mut |c| self.time.collect(root, c));
        part(on.uname.enabled, &mut |_| self.uname.collect());
        part(on.vmstat.enabled, &mut |c| self.vmstat.collect(root, c));
        Ok(())
    }
}

picket_sdk::export!(Node);
