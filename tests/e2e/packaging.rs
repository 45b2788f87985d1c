//! What is installed, before it is: the units that the packages bring.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{run, skip};

/// systemd's own count of what a unit leaves open, in tenths (`systemd-analyze security`; 92 is all of it), and its complaints.
fn exposure(unit: &str) -> Result<Option<(u32, String)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(unit);
    let asked = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&file)
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

#[test]
fn the_aggregators_unit_leaves_little_open() {
    run(async |_| {
        let Some((exposure, complaints)) = exposure("picket-aggregator.service")? else { return Ok(()) };
        ensure!(exposure <= 11, "systemd-analyze security counts {exposure} tenths");
        ensure!(complaints.is_empty(), "{complaints}");
        Ok(())
    });
}
