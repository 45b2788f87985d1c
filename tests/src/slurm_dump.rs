//! A large cluster without the cluster: a file as `scontrol show nodes --json` writes it, and the plugin `slurm` told to read
//! that file in its place.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::{quoted, repository};

/// Writes the dump of `count` nodes; every hundredth is drained.
pub fn large_slurm_dump(file: &Path, count: u32) -> Result<()> {
    let fixture = repository().join("plugins/slurm/tests/fixtures/24.11/nodes.json");
    let page: Value = serde_json::from_slice(&std::fs::read(fixture)?)?;
    let mut node = page["nodes"][0].clone();
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    write!(out, "{{\n  \"nodes\": [\n")?;
    for i in 0..count {
        let drained = i % 100 == 0;
        node["name"] = format!("node{i:05}").into();
        node["state"] = if drained { json!(["IDLE", "DRAIN"]) } else { json!(["MIXED"]) };
        node["reason"] = if drained { "bad cable".into() } else { "".into() };
        write!(out, "{}{}", if i == 0 { "" } else { ",\n" }, serde_json::to_string_pretty(&node)?)?;
    }
    writeln!(out, "\n  ],\n  \"errors\": [], \"meta\": {{ \"slurm\": {{ \"release\": \"24.11.5\" }} }}\n}}")?;
    Ok(out.flush()?)
}

/// The section of the plugin that reads the nodes from `file` each second, and nothing else, with that much memory.
pub fn slurm_reading_a_file(file: &Path, memory: &str) -> String {
    let command = |name: &str, program: &str, argument: &str| {
        format!(
            "  {{ name = \"slurm-{name}\", program = \"{program}\", arguments = [{argument}], output_bytes = 268435456 }},\n"
        )
    };
    let mut commands = command("ping", "/bin/echo", "\"Slurmctld(primary) at vm is UP\"");
    commands.push_str(&command("nodes-json", "/bin/cat", &quoted(file)));
    for other in
        ["nodes-json-old", "jobs-json", "nodes", "jobs", "partitions", "reservations", "diag", "node-states"]
    {
        commands.push_str(&command(other, "/bin/false", ""));
    }
    format!(
        "[plugins.slurm]\nfile = \"slurm.wasm\"\ninterval = \"1s\"\n[plugins.slurm.settings]\npoller = true\n\
         jobs = false\npartitions = false\nreservations = false\nscheduler = false\n[plugins.slurm.limits]\n\
         guest_time = \"30s\"\ncall_time = \"60s\"\nmemory = \"{memory}\"\n[[plugins.slurm.grants]]\ncapability = \"system\"\n\
         [[plugins.slurm.grants]]\ncapability = \"store\"\nbytes = 262144\n[[plugins.slurm.grants]]\ncapability = \
         \"command\"\ncommands = [\n{commands}]\n[[plugins.slurm.grants]]\ncapability = \"http\"\nurls = []\n\
         [[plugins.slurm.grants]]\ncapability = \"unix-http\"\nsockets = []\n"
    )
}
