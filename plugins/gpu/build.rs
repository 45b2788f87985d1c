//! Makes tables of `config/xid-catalogue.toml`, so that the plugin carries them without parsing anything. A row that
//! is not valid is an error of the build.
#![allow(clippy::unwrap_used)] // what fails here fails the build

use std::fmt::Write as _;
use std::path::Path;

use serde::Deserialize;

const FILE: &str = "../../config/xid-catalogue.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Catalogue {
    sources: std::collections::BTreeMap<String, String>,
    xid: Vec<Row>,
    nvlink5: Vec<Unit>,
    sxid_group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    code: u32,
    name: String,
    meaning: String,
    severity: String,
    immediate: String,
    investigate: String,
    source: String,
    #[serde(default)]
    workflow: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Unit {
    xid: u32,
    units: Vec<String>,
    before_r575: u32,
    r575: u32,
    source: String,
    rows: Vec<SubRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubRow {
    sub: Option<u32>,
    status: Option<u32>,
    severity: String,
    immediate: String,
    investigate: String,
    promoted: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    base: u32,
    meaning: String,
    source: String,
    rows: Vec<GroupRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupRow {
    code: u32,
    name: String,
    severity: String,
    immediate: String,
    investigate: String,
}

fn main() {
    println!("cargo::rerun-if-changed={FILE}");
    let text = std::fs::read_to_string(FILE).unwrap();
    let catalogue: Catalogue = toml::from_str(&text).unwrap();
    let known = |source: &String| assert!(catalogue.sources.contains_key(source), "source {source:?}");
    let mut out = String::new();

    assert!(catalogue.xid.is_sorted_by_key(|row| row.code), "xid: not in order");
    out.push_str("pub static XIDS: &[Row] = &[\n");
    for row in &catalogue.xid {
        known(&row.source);
        line(&mut out, row);
    }
    out.push_str("];\n\npub static SXIDS: &[Row] = &[\n");
    for group in &catalogue.sxid_group {
        known(&group.source);
        for row in &group.rows {
            assert_eq!(row.code / 1000 * 1000, group.base, "code {} is not of its group", row.code);
            let row = Row {
                code: row.code,
                name: row.name.clone(),
                meaning: group.meaning.clone(),
                severity: row.severity.clone(),
                immediate: row.immediate.clone(),
                investigate: row.investigate.clone(),
                source: group.source.clone(),
                workflow: String::new(),
            };
            line(&mut out, &row);
        }
    }
    out.push_str("];\n\npub static UNITS: &[Unit] = &[\n");
    for unit in &catalogue.nvlink5 {
        known(&unit.source);
        write!(
            out,
            "Unit {{ xid: {}, names: &{:?}, before_r575: {}, r575: {}, source: {:?}, rows: &[",
            unit.xid, unit.units, unit.before_r575, unit.r575, unit.source
        )
        .unwrap();
        for row in &unit.rows {
            let promoted =
                row.promoted.as_ref().map_or("None".to_owned(), |a| format!("Some({})", action(a)));
            write!(
                out,
                "SubRow {{ sub: {:?}, status: {:?}, severity: {}, immediate: {}, investigate: {}, promoted: {promoted} }},",
                row.sub,
                row.status,
                severity(&row.severity),
                action(&row.immediate),
                action(&row.investigate)
            )
            .unwrap();
        }
        out.push_str("] },\n");
    }
    out.push_str("];\n");
    let folder = std::env::var("OUT_DIR").unwrap();
    std::fs::write(Path::new(&folder).join("catalogue.rs"), out).unwrap();
}

fn line(out: &mut String, row: &Row) {
    writeln!(
        out,
        "Row {{ code: {}, name: {:?}, meaning: {:?}, severity: {}, immediate: {}, investigate: {}, workflow: {:?}, source: {:?} }},",
        row.code,
        row.name,
        row.meaning,
        severity(&row.severity),
        action(&row.immediate),
        action(&row.investigate),
        row.workflow,
        row.source
    )
    .unwrap();
}

fn action(word: &str) -> &'static str {
    match word {
        "ignore" => "Action::Ignore",
        "restart-app" => "Action::RestartApp",
        "reset-gpu" => "Action::ResetGpu",
        "reboot" => "Action::Reboot",
        "check-mechanicals" => "Action::CheckMechanicals",
        "update-firmware" => "Action::UpdateFirmware",
        "contact-support" => "Action::ContactSupport",
        other => panic!("no action: {other:?}"),
    }
}

fn severity(word: &str) -> &'static str {
    match word {
        "info" => "Level::Info",
        "warning" => "Level::Warning",
        "critical" => "Level::Critical",
        other => panic!("no severity: {other:?}"),
    }
}
