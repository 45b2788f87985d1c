//! `node_filesystem_*`: the mounts of PID 1 (where hidden: one's own), and statvfs(3) of each.

use std::collections::HashSet;

use picket_sdk::files::{self, FileSystem, FilesError};
use picket_sdk::{Collect, Describe, Failure, GaugeFamily};

use crate::filter::Filter;
use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, lines, unsigned, utf8};

const LABELS: [&str; 4] = ["device", "mountpoint", "fstype", "device_error"];

pub struct FileSystems {
    size: GaugeFamily<4>,
    free: GaugeFamily<4>,
    available: GaugeFamily<4>,
    files: GaugeFamily<4>,
    files_free: GaugeFamily<4>,
    purgeable: GaugeFamily<4>,
    read_only: GaugeFamily<4>,
    device_error: GaugeFamily<4>,
    mount_info: GaugeFamily<4>,
    mount_points: Filter,
    types: Filter,
    /// The mount table as it was last read; it seldom changes.
    text: Vec<u8>,
    mounts: Vec<Mount>,
}

struct Mount {
    device: String,
    point: String,
    fs_type: String,
    major: String,
    minor: String,
    read_only: bool,
}

impl FileSystems {
    pub fn new(d: &mut Describe) -> Self {
        let mut gauge = |name: &str, help: &str| d.gauge(name, help).labels(&LABELS);
        Self {
            size: gauge("node_filesystem_size_bytes", "Filesystem size in bytes."),
            free: gauge("node_filesystem_free_bytes", "Filesystem free space in bytes."),
            available: gauge(
                "node_filesystem_avail_bytes",
                "Filesystem space available to non-root users in bytes.",
            ),
            files: gauge("node_filesystem_files", "Filesystem total file nodes."),
            files_free: gauge("node_filesystem_files_free", "Filesystem total free file nodes."),
            purgeable: gauge(
                "node_filesystem_purgeable_bytes",
                "Filesystem space available including purgeable space (MacOS specific).",
            ),
            read_only: gauge("node_filesystem_readonly", "Filesystem read-only status."),
            device_error: gauge(
                "node_filesystem_device_error",
                "Whether an error occurred while getting statistics for the given device.",
            ),
            mount_info: d.gauge("node_filesystem_mount_info", "Filesystem mount information.").labels(&[
                "device",
                "major",
                "minor",
                "mountpoint",
            ]),
            mount_points: Filter::default(),
            types: Filter::default(),
            text: Vec::new(),
            mounts: Vec::new(),
        }
    }

    pub fn configure(&mut self, s: &settings::FileSystem) -> Result<(), Failure> {
        self.mount_points = Filter::new("filesystem", &s.mount_points_exclude, &s.mount_points_include)?;
        self.types = Filter::new("filesystem", &s.fs_types_exclude, &s.fs_types_include)?;
        self.text.clear();
        Ok(())
    }

    pub fn collect(&mut self, root: &Root, c: &mut Collect<'_>) -> Result<(), Failure> {
        let text = root.read("/proc/1/mountinfo").or_else(|_| root.read("/proc/self/mountinfo"))?;
        if text != self.text || text.is_empty() {
            self.read_mounts(&text, root, c);
            self.text = text;
        }
        let points: Vec<_> = self.mounts.iter().map(|mount| root.path(&mount.point)).collect();
        let points: Vec<&str> = points.iter().map(|point| &**point).collect();
        for (mount, stat) in self.mounts.iter().zip(files::stat_file_systems(&points)) {
            self.set(mount, stat, c);
        }
        Ok(())
    }

    fn read_mounts(&mut self, text: &[u8], root: &Root, c: &mut Collect<'_>) {
        let mut malformed = Malformed::new("/proc/1/mountinfo");
        self.mounts.clear();
        let mut seen = HashSet::new();
        for line in lines(text) {
            let Some(mut mount) = mount(line) else {
                malformed.add(line);
                continue;
            };
            mount.point = root.on_host(&mount.point).to_owned();
            if self.mount_points.ignores(&mount.point) || self.types.ignores(&mount.fs_type) {
                continue;
            }
            // The same file system mounted twice at one place is one series.
            if seen.insert((mount.device.clone(), mount.point.clone(), mount.fs_type.clone())) {
                self.mounts.push(mount);
            }
        }
        malformed.report(c);
    }

    fn set(&self, mount: &Mount, stat: Result<FileSystem, FilesError>, c: &mut Collect<'_>) {
        let error = match &stat {
            Ok(_) => "",
            Err(FilesError::TimedOut(_)) => "mountpoint timeout",
            Err(FilesError::NotFound(_)) => "no such file or directory",
            Err(FilesError::Io(text)) => &reason(text),
            Err(FilesError::Denied(_)) => "permission denied",
            Err(_) => "input/output error",
        };
        if let Err(error @ FilesError::Denied(_)) = &stat {
            c.failed(error.clone());
        }
        let labels = [mount.device.as_str(), &mount.point, &mount.fs_type, error];
        let flag = |on: bool| f64::from(u8::from(on));
        self.device_error.with(&labels).set(flag(stat.is_err()));
        self.read_only.with(&labels).set(flag(mount.read_only));
        let Ok(stat) = stat else { return };
        self.size.with(&labels).set(stat.size_bytes as f64);
        self.free.with(&labels).set(stat.free_bytes as f64);
        self.available.with(&labels).set(stat.available_bytes as f64);
        self.files.with(&labels).set(stat.files as f64);
        self.files_free.with(&labels).set(stat.files_free as f64);
        // Always 0 on Linux, and there in node_exporter.
        self.purgeable.with(&labels).set(0.0);
        self.mount_info.with(&[&mount.device, &mount.major, &mount.minor, &mount.point]).set(1.0);
    }
}

/// The system's words alone, as node_exporter has them: without the path before them and the number behind, and
/// small.
fn reason(text: &str) -> String {
    let words = text.rsplit(": ").next().unwrap_or(text);
    words.split(" (os error").next().unwrap_or(words).to_lowercase()
}

/// A line of mountinfo, proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options, optional fields, `-`,
/// type, source, super options.
fn mount(line: &[u8]) -> Option<Mount> {
    let line = utf8(line)?;
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let point = fields.nth(1)?;
    let options = fields.next()?;
    let mut fields = after.splitn(3, ' ');
    let (fs_type, device, super_options) = (fields.next()?, fields.next()?, fields.next()?);
    unsigned(major.as_bytes()).and(unsigned(minor.as_bytes()))?;
    let is_ro = |options: &str| options.split(',').any(|o| o == "ro");
    Some(Mount {
        device: device.to_owned(),
        point: point.replace("\\040", " ").replace("\\011", "\t"),
        fs_type: fs_type.to_owned(),
        major: major.to_owned(),
        minor: minor.to_owned(),
        read_only: is_ro(options) || is_ro(super_options),
    })
}
