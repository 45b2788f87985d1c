//! The operator's settings: where the host's root is, and a table a collector, each with `enabled`. The patterns are regular expressions with
//! node_exporter's defaults; an empty one is none.

use serde::Deserialize;

/// All of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub root: String,
    pub cpu: Cpu,
    pub diskstats: DiskStats,
    pub filesystem: FileSystem,
    pub hwmon: HwMon,
    pub infiniband: InfiniBand,
    pub loadavg: Plain,
    pub meminfo: Plain,
    pub netdev: NetDev,
    pub pressure: Plain,
    pub stat: Stat,
    pub time: Plain,
    pub uname: Plain,
    pub vmstat: VmStat,
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            /// Whether it collects.
            pub enabled: bool,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { enabled: true, $($field: $default.into(),)* }
            }
        }
    };
}

table!(
    /// A collector that has nothing else to set.
    Plain {}
);
table!(
    /// `node_cpu_*`
    Cpu {
        /// Time spent in guests.
        guest: bool = true,
    }
);
table!(
    /// `node_disk_*`
    DiskStats {
        /// Devices to leave out.
        device_exclude: String = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$",
        /// The only devices to take.
        device_include: String = "",
    }
);
table!(
    /// `node_filesystem_*`
    FileSystem {
        /// Mount points to leave out.
        mount_points_exclude: String =
            "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)",
        /// The only mount points to take.
        mount_points_include: String = "",
        /// Types to leave out.
        fs_types_exclude: String = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|\
            hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|\
            sysfs|tracefs)$",
        /// The only types to take.
        fs_types_include: String = "",
    }
);
table!(
    /// `node_hwmon_*`
    HwMon {
        /// Chips to leave out.
        chip_exclude: String = "",
        /// The only chips to take.
        chip_include: String = "",
        /// Sensors to leave out, as `CHIP;SENSOR`.
        sensor_exclude: String = "",
        /// The only sensors to take.
        sensor_include: String = "",
    }
);
table!(
    /// `node_infiniband_*`
    InfiniBand {
        /// Adapters to leave out.
        device_exclude: String = "",
        /// The only adapters to take.
        device_include: String = "",
        /// Whether links that go down are events.
        events: bool = true,
        /// How long a link must be active without going down before its event ends.
        stable_seconds: u64 = 60u64,
    }
);
table!(
    /// `node_network_*`
    NetDev {
        /// Devices to leave out.
        device_exclude: String = "",
        /// The only devices to take.
        device_include: String = "",
    }
);
table!(
    /// `node_boot_time_seconds`, `node_context_switches_total` and the like
    Stat {
        /// Softirq calls per vector.
        softirq: bool = false,
    }
);
table!(
    /// `node_vmstat_*`
    VmStat {
        /// The fields to take.
        fields: String = "^(oom_kill|pgpg|pswp|pg.*fault).*",
    }
);
