//! A server's `/proc` and `/sys` in a folder, in the kernel's own formats: 32 CPUs of two sockets, two disks, three
//! interfaces. Both sides read it as they would read a host below a container's folder, so that what is compared is
//! the same some 520 series whatever machine the bench runs on.
//!
//! Counters move once a second, each file replaced as a whole. Regular files are not the kernel's: reading them costs the
//! kernel less than making the text anew, and costs our agent more, which reads in place only what can't wait, and anything
//! else on another thread.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

const CPUS: u64 = 32;
const DISKS: [&str; 2] = ["nvme0n1", "nvme1n1"];
const INTERFACES: [&str; 3] = ["lo", "eno1", "ibs3"];
const MOUNTS: [(&str, &str); 3] =
    [("/", "/dev/nvme0n1p2"), ("/boot/efi", "/dev/nvme0n1p1"), ("/data", "/dev/nvme1n1")];

/// The tree, kept moving until it is dropped.
pub struct Machine {
    pub root: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    pub fn start(folder: &Path) -> Result<Self> {
        let root = folder.to_owned();
        still(&root)?;
        moving(&root, 0)?;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (root, stop) = (root.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut second = 0;
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_secs(1));
                    second += 1;
                    // The folder goes when the row ends.
                    let _ = moving(&root, second);
                }
            })
        };
        Ok(Self { root, stop, thread: Some(thread) })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let file = root.join(path.trim_start_matches('/'));
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    Ok(fs::rename(new, file)?)
}

/// What does not change while a machine runs.
fn still(root: &Path) -> Result<()> {
    let mut mounts = String::new();
    for (number, (point, device)) in MOUNTS.iter().enumerate() {
        fs::create_dir_all(root.join(point.trim_start_matches('/')))?;
        let _ = writeln!(
            mounts,
            "{} 1 259:{number} / {point} rw,relatime shared:1 - ext4 {device} rw",
            30 + number
        );
    }
    // What is left out on both sides, as on any server.
    for (number, (point, kind)) in [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/sys/fs/cgroup", "cgroup2"),
        ("/dev", "devtmpfs"),
        ("/dev/shm", "tmpfs"),
    ]
    .iter()
    .enumerate()
    {
        let _ =
            writeln!(mounts, "{} 30 0:{number} / {point} rw,nosuid shared:9 - {kind} {kind} rw", 60 + number);
    }
    for process in ["1", "self"] {
        write(root, &format!("/proc/{process}/mountinfo"), &mounts)?;
    }
    for cpu in 0..CPUS {
        let folder = format!("/sys/devices/system/cpu/cpu{cpu}");
        // Two threads a core: the second half of the numbers are the second threads.
        let core = cpu % (CPUS / 2);
        for (file, value) in [
            ("topology/physical_package_id", core / 8),
            ("topology/core_id", core),
            ("thermal_throttle/core_throttle_count", core),
            ("thermal_throttle/package_throttle_count", 3),
        ] {
            write(root, &format!("{folder}/{file}"), &format!("{value}\n"))?;
        }
    }
    write(root, "/sys/devices/system/cpu/isolated", "\n")?;
    let source = "/sys/devices/system/clocksource/clocksource0";
    write(root, &format!("{source}/available_clocksource"), "tsc hpet acpi_pm \n")?;
    write(root, &format!("{source}/current_clocksource"), "tsc\n")?;
    for (number, disk) in DISKS.iter().enumerate() {
        for (file, text) in QUEUE {
            write(root, &format!("/sys/block/{disk}/queue/{file}"), &format!("{text}\n"))?;
        }
        write(
            root,
            &format!("/run/udev/data/b259:{}", number * 3),
            &format!(
                "S:disk/by-id/nvme-{disk}\nI:1500000\nE:ID_SERIAL_SHORT=S64{number}NX0R1\nE:ID_WWN=eui.0025385{number}\n\
                 E:ID_MODEL=SAMSUNG MZQL23T8\nE:ID_REVISION=GDC5{number}02Q\nE:ID_PATH=pci-0000:0{number}:00.0-nvme-1\nG:systemd\n"
            ),
        )?;
    }
    for interface in INTERFACES {
        let folder = format!("/sys/class/net/{interface}/statistics");
        for file in ["rx_nohandler", "rx_bytes", "tx_bytes"] {
            write(root, &format!("{folder}/{file}"), "0\n")?;
        }
    }
    Ok(())
}

/// What moves, as it is after so many seconds.
fn moving(root: &Path, second: u64) -> Result<()> {
    let mut stat = String::from("cpu  0 0 0 0 0 0 0 0 0 0\n");
    for cpu in 0..CPUS {
        let (user, system) = (9_000_000 + cpu * 7919 + second * 31, 1_200_000 + cpu * 104_729 + second * 9);
        let idle = 80_000_000 + cpu * 1_299_709 + second * 58;
        let _ = writeln!(
            stat,
            "cpu{cpu} {user} {} {system} {idle} {} 0 {} 0 0 0",
            cpu * 11,
            5000 + second,
            900 + second
        );
    }
    let interrupts: Vec<String> =
        (0..400).map(|n| if n % 13 == 0 { (n * second).to_string() } else { "0".to_owned() }).collect();
    let _ = write!(
        stat,
        "intr {} {}\nctxt {}\nbtime 1763600000\nprocesses {}\nprocs_running 3\nprocs_blocked 0\nsoftirq 900 1 2 3 4 5 6 7 8 9 10\n",
        8_000_000_000 + second * 40_000,
        interrupts.join(" "),
        12_000_000_000 + second * 90_000,
        4_000_000 + second * 7,
    );
    write(root, "/proc/stat", &stat)?;
    let load = 4.0 + (second % 7) as f64 / 10.0;
    write(root, "/proc/loadavg", &format!("{load:.2} 4.31 4.02 5/1290 {}\n", 4_000_000 + second))?;

    let mut memory = String::new();
    for (place, name) in MEMORY.iter().enumerate() {
        let value = 1000 + (place as u64) * 7_654_321 + if place % 3 == 0 { second * 128 } else { 0 };
        let _ = writeln!(memory, "{:<15} {value:>8} kB", format!("{name}:"));
    }
    for (name, value) in
        [("HugePages_Total", 0), ("HugePages_Free", 0), ("HugePages_Rsvd", 0), ("HugePages_Surp", 0)]
    {
        let _ = writeln!(memory, "{:<16}{value:>8}", format!("{name}:"));
    }
    write(root, "/proc/meminfo", &memory)?;

    let mut vmstat = String::new();
    for place in 0..150u64 {
        let _ = writeln!(vmstat, "nr_kind_{place} {}", place * 4099 + second);
    }
    for (place, name) in
        ["pgpgin", "pgpgout", "pswpin", "pswpout", "pgfault", "pgmajfault", "oom_kill"].iter().enumerate()
    {
        let _ = writeln!(vmstat, "{name} {}", (place as u64 + 1) * 1_000_003 + second * 97);
    }
    write(root, "/proc/vmstat", &vmstat)?;

    let mut disks = String::new();
    for (number, disk) in DISKS.iter().enumerate() {
        let number = number as u64;
        for (minor, name) in [(0, (*disk).to_owned()), (1, format!("{disk}p1")), (2, format!("{disk}p2"))] {
            let n = number * 5_000_000 + second * 17;
            let _ = writeln!(
                disks,
                " 259 {:>7} {name} {} 10 {} 900 {} 20 {} 4000 0 {} 4900 7 0 700 8 9 10",
                number * 3 + minor,
                100_000 + n,
                8_000_000 + n * 8,
                300_000 + n,
                9_000_000 + n * 16,
                60_000 + second
            );
        }
    }
    for n in 0..8 {
        let _ = writeln!(disks, "   7 {n:>7} loop{n} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0");
    }
    write(root, "/proc/diskstats", &disks)?;

    let mut net = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for (number, interface) in INTERFACES.iter().enumerate() {
        let bytes = 90_000_000_000 * (number as u64 + 1) + second * 1_250_000;
        let _ = writeln!(
            net,
            "{interface:>6}: {bytes} {} 0 3 0 0 0 77 {} {} 0 0 0 0 0 0",
            bytes / 900,
            bytes / 2,
            bytes / 1800
        );
    }
    write(root, "/proc/net/dev", &net)?;

    for (place, resource) in ["cpu", "io", "memory", "irq"].iter().enumerate() {
        let total = 1_000_000 * (place as u64 + 1) + second * 1234;
        let line =
            |kind: &str, total: u64| format!("{kind} avg10=0.12 avg60=0.08 avg300=0.02 total={total}\n");
        let text = match *resource {
            "irq" => line("full", total),
            _ => line("some", total) + &line("full", total / 2),
        };
        write(root, &format!("/proc/pressure/{resource}"), &text)?;
    }
    Ok(())
}

/// Fields of /proc/meminfo of Linux 6.8, those in pages beside.
const MEMORY: [&str; 50] = [
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Buffers",
    "Cached",
    "SwapCached",
    "Active",
    "Inactive",
    "Active(anon)",
    "Inactive(anon)",
    "Active(file)",
    "Inactive(file)",
    "Unevictable",
    "Mlocked",
    "SwapTotal",
    "SwapFree",
    "Zswap",
    "Zswapped",
    "Dirty",
    "Writeback",
    "AnonPages",
    "Mapped",
    "Shmem",
    "KReclaimable",
    "Slab",
    "SReclaimable",
    "SUnreclaim",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "NFS_Unstable",
    "Bounce",
    "WritebackTmp",
    "CommitLimit",
    "Committed_AS",
    "VmallocTotal",
    "VmallocUsed",
    "VmallocChunk",
    "Percpu",
    "HardwareCorrupted",
    "AnonHugePages",
    "ShmemHugePages",
    "ShmemPmdMapped",
    "FileHugePages",
    "FilePmdMapped",
    "Unaccepted",
    "Hugepagesize",
    "DirectMap4k",
    "DirectMap2M",
    "DirectMap1G",
];

/// node_exporter reads all of a disk's queue to tell whether it turns.
const QUEUE: [(&str, &str); 35] = [
    ("add_random", "0"),
    ("chunk_sectors", "0"),
    ("dax", "0"),
    ("discard_granularity", "512"),
    ("discard_max_bytes", "2199023255040"),
    ("discard_max_hw_bytes", "2199023255040"),
    ("fua", "1"),
    ("hw_sector_size", "512"),
    ("io_poll", "0"),
    ("io_poll_delay", "-1"),
    ("io_timeout", "30000"),
    ("iostats", "1"),
    ("logical_block_size", "512"),
    ("max_discard_segments", "256"),
    ("max_hw_sectors_kb", "128"),
    ("max_integrity_segments", "1"),
    ("max_sectors_kb", "128"),
    ("max_segment_size", "4294967295"),
    ("max_segments", "33"),
    ("minimum_io_size", "512"),
    ("nomerges", "0"),
    ("nr_requests", "1023"),
    ("nr_zones", "0"),
    ("optimal_io_size", "0"),
    ("physical_block_size", "512"),
    ("read_ahead_kb", "128"),
    ("rotational", "0"),
    ("throttle_sample_time", "100"),
    ("wbt_lat_usec", "2000"),
    ("rq_affinity", "1"),
    ("scheduler", "[none] mq-deadline"),
    ("write_cache", "write through"),
    ("write_same_max_bytes", "0"),
    ("write_zeroes_max_bytes", "131072"),
    ("zoned", "none"),
];
