//! What is installed, before it is: the units that the packages bring. The packages themselves: `cargo xtask test --system`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{run, skip};

/// What `systemd-analyze security` may count, in tenths (92 is all of it).
const AGENT: u32 = 15;
const AGGREGATOR: u32 = 11;

fn packaged(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file)
}

/// systemd's own count of what a unit leaves open, in tenths, and its complaints.
fn exposure(unit: &str) -> Result<Option<(u32, String)>> {
    let asked = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(packaged(unit))
        .env("LC_ALL", "C")
        .output();
    let Ok(asked) = asked else {
        skip("there is no systemd-analyze on this machine");
        return Ok(None);
    };
    let said = String::from_utf8_lossy(&asked.stdout);
    let overall = said.lines().rev().find_map(|line| line.split_once("Overall exposure level for "));
    let number = overall
        .and_then(|(_, rest)| rest.split_whitespace().nth(1))
        .and_then(|n| n.replace('.', "").parse().ok());
    let complaints = String::from_utf8_lossy(&asked.stderr).into_owned();
    Ok(Some((number.with_context(|| format!("{unit}: {said}{complaints}"))?, complaints)))
}

fn leaves_little_open(unit: &str, most: u32) -> Result<()> {
    let Some((exposure, complaints)) = exposure(unit)? else { return Ok(()) };
    ensure!(exposure <= most, "systemd-analyze security counts {exposure} tenths for {unit}");
    ensure!(complaints.is_empty(), "{complaints}");
    Ok(())
}

#[test]
fn the_agents_unit_leaves_little_open() {
    run(async |_| leaves_little_open("picket-agent.service", AGENT));
}

#[test]
fn the_aggregators_unit_leaves_little_open() {
    run(async |_| leaves_little_open("picket-aggregator.service", AGGREGATOR));
}

/// The settings of a unit by name, each with all that is said of it.
fn settings(unit: &str) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(packaged(unit))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

/// What would take a wall from the workers, or metrics from the plugins, though systemd counts it as gain.
#[test]
fn the_agents_unit_leaves_the_workers_their_walls() {
    run(async |_| {
        let settings = settings("picket-agent.service")?;
        let all = |name: &str| {
            let values = settings.iter().filter(|(key, _)| key == name);
            values
                .flat_map(|(_, value)| value.split_whitespace().map(ToOwned::to_owned))
                .collect::<Vec<String>>()
        };
        // @system-service has neither: without them the worker's own filter and rule set would be refused.
        let calls = all("SystemCallFilter");
        for call in
            ["seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "capset"]
        {
            ensure!(calls.iter().any(|c| c == call), "{call} is not allowed: {calls:?}");
        }
        // Compiled plugins are mapped and then made executable.
        ensure!(all("MemoryDenyWriteExecute").is_empty(), "nothing that was compiled could run");
        // The mounts of process 1 and the numbers of the whole system are what the plugin node reads.
        ensure!(all("ProtectProc").is_empty() && all("ProcSubset").is_empty(), "/proc is hidden");
        ensure!(all("User") == ["picket"], "it runs as {:?}", all("User"));
        // The bound of a worker's memory is a group below the unit's own.
        ensure!(all("Delegate") == ["memory", "pids"], "{:?}", all("Delegate"));
        let writable = all("ReadWritePaths");
        ensure!(
            writable.iter().any(|path| path == "-/sys/fs/cgroup/system.slice/picket-agent.service"),
            "{writable:?}"
        );
        Ok(())
    });
}
