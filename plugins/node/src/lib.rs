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
mod infiniband;
mod loadavg;
mod meminfo;
mod network;
mod pressure;
mod settings;
mod stat;
mod text;
mod time;
mod topology;
mod uname;
mod vmstat;

use picket_sdk::{Collect, Describe, Failure, Source, files};

pub use settings::Settings;

/// The plugin.
pub struct Node {
    settings: Settings,
    cpu: cpu::Cpu,
    disk: disk::Disks,
    filesystem: filesystem::FileSystems,
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
            cpu: cpu::Cpu::new(d),
            disk: disk::Disks::new(d),
            filesystem: filesystem::FileSystems::new(d),
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
        self.disk.configure(&settings.diskstats)?;
        self.filesystem.configure(&settings.filesystem)?;
        self.infiniband.configure(&settings.infiniband)?;
        self.network.configure(&settings.netdev)?;
        self.vmstat.configure(&settings.vmstat)?;
        self.cpu.configure(&settings.cpu);
        self.stat.configure(&settings.stat);
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        let on = &self.settings;
        if on.cpu.enabled || on.stat.enabled {
            match files::read("/proc/stat") {
                Ok(text) => {
                    if on.cpu.enabled {
                        self.cpu.collect(&text, c);
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
        part(on.diskstats.enabled, &mut |c| self.disk.collect(c));
        part(on.filesystem.enabled, &mut |c| self.filesystem.collect(c));
        part(on.infiniband.enabled, &mut |c| self.infiniband.collect(c));
        part(on.loadavg.enabled, &mut |_| self.loadavg.collect());
        part(on.meminfo.enabled, &mut |c| self.meminfo.collect(c));
        part(on.netdev.enabled, &mut |c| self.network.collect(c));
        part(on.pressure.enabled, &mut |c| self.pressure.collect(c));
        part(on.time.enabled, &mut |c| self.time.collect(c));
        part(on.uname.enabled, &mut |_| self.uname.collect());
        part(on.vmstat.enabled, &mut |c| self.vmstat.collect(c));
        Ok(())
    }
}

picket_sdk::export!(Node);
