//! The node that the agent runs on: kernel, distribution, what it has.

use std::path::{Path, PathBuf};

use picket_artifact::Digest;

use super::bag::{Content, Missing};
use super::read::{self, section};
use crate::app::beside;
use crate::detect::drop_in::{UNIT, UNITS};

const FILES: [&str; 13] = [
    "/proc/version",
    "/etc/os-release",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/meminfo",
    "/sys/devices/system/cpu/online",
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/kernel/security/lsm",
    "/proc/sys/kernel/seccomp/actions_avail",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/user/max_user_namespaces",
    "/proc/pressure/memory",
    "/proc/driver/nvidia/version",
];
const PROGRAMS: [&str; 4] = ["picket-agent", "picket-worker", "picket-compile", "picket-nvml"];
/// The largest program whose digest is taken.
const MAX_PROGRAM: u64 = 512 << 20;
/// Where systemd keeps the drop-ins of a unit, beside the folders of the units.
const RUNTIME: &str = "/run/systemd/system";
/// Variables of a unit whose values are shown.
const SHOWN: [&str; 4] = ["PICKET_", "MALLOC_", "RUST_", "LANG"];

pub fn system() -> Result<Content, Missing> {
    let name = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let kernel = [name.sysname(), name.nodename(), name.release(), name.version(), name.machine()].map(part);
    let mut out = String::new();
    section(&mut out, "uname", &kernel.join(" "));
    out.push_str(&read::files(FILES.iter().map(Path::new)));
    Ok(Content::Text(out))
}

/// Which programs these are: an upgrade that was done by half shows here.
pub fn version() -> Result<Content, Missing> {
    let mut out = format!(
        "picket-agent {} for {}-{}, {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        if cfg!(debug_assertions) { "with debug assertions" } else { "optimized" }
    );
    for path in PROGRAMS.map(beside) {
        out.push_str(&program(&path));
        out.push('\n');
    }
    Ok(Content::Text(out))
}

fn program(path: &Path) -> String {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_PROGRAM => format!("{shown}: {} bytes", meta.len()),
        Ok(meta) => match std::fs::read(path) {
            Ok(bytes) => format!("{shown}: {} bytes, {}", meta.len(), Digest::of(&bytes).tagged()),
            Err(error) => format!("{shown}: {} bytes, cannot be read: {error}", meta.len()),
        },
        Err(error) => format!("{shown}: {error}"),
    }
}

/// The unit and its drop-ins.
pub fn unit() -> Result<Content, Missing> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for folder in UNITS.into_iter().chain([RUNTIME]) {
        paths.push(Path::new(folder).join(UNIT));
        let drop_ins = std::fs::read_dir(Path::new(folder).join(format!("{UNIT}.d"))).into_iter().flatten();
        paths.extend(drop_ins.flatten().map(|entry| entry.path()).take(64));
    }
    let text = read::files(paths.iter().map(PathBuf::as_path));
    if text.is_empty() {
        return Err(Missing::Not(format!("systemd has no {UNIT} on this node")));
    }
    Ok(Content::Text(without_variables(&text)))
}

/// A variable of a unit may be anything of a site's, under any name.
fn without_variables(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        match line.trim_start().strip_prefix("Environment=") {
            Some(value) if !is_shown(value) => {
                let name = value.trim_start_matches(['"', '\'']).split('=').next().unwrap_or_default();
                out.push_str(&format!("Environment={name}={}", picket_agent_services::secrets::REDACTED));
            }
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

fn is_shown(value: &str) -> bool {
    !value.contains(char::is_whitespace)
        && !value.ends_with('\\')
        && SHOWN.iter().any(|name| value.starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_unit() {
        let text = "[Service]\nEnvironment=MALLOC_ARENA_MAX=1\nEnvironment=\"SITE=hush hush\" B=hush\n\
                    Environment=PICKET_A=1 SITE=hush\nUser=picket\n";
        let clean = without_variables(text);
        assert!(!clean.contains("hush"), "{clean}");
        for kept in ["MALLOC_ARENA_MAX=1\n", "User=picket\n", "Environment=SITE=[redacted]\n"] {
            assert!(clean.contains(kept), "{clean}");
        }
    }

    #[test]
    fn this_machine() {
        let Ok(Content::Text(text)) = system() else { panic!("nothing") };
        assert!(text.contains("== uname\nLinux ") && text.contains("== /proc/meminfo"), "{text}");
        let Ok(Content::Text(text)) = version() else { panic!("nothing") };
        assert!(text.starts_with("picket-agent 0."), "{text}");
    }
}
