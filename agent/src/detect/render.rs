//! The configuration's text: what was seen stands above what it led to.

use std::fmt::Write as _;

use picket_agent_host::manifest_of;
use picket_agent_services::grants::{Need, grant_lines};
use picket_proto::model::PluginId;

use super::Found;
use crate::config::Config;

pub(super) fn config(config: &Config, found: &[Found]) -> String {
    let mut out = String::from(
        "# What `picket-agent detect` found on this node. Look through it: each grant below is a permission that you give.\n",
    );
    for found in found {
        out.push('\n');
        section(&mut out, config, found);
    }
    out
}

fn section(out: &mut String, config: &Config, found: &Found) {
    let id = found.plugin;
    for seen in &found.seen {
        let _ = writeln!(out, "# seen: {}", one_line(seen));
    }
    for todo in &found.todo {
        let _ = writeln!(out, "# to do: {}", one_line(todo));
    }
    let file = config.plugin_dir.join(format!("{id}.wasm"));
    let manifest = manifest_of(&file);
    if let Err(why) = &manifest {
        let _ = writeln!(out, "# not switched on: {}", one_line(why));
    }
    let _ = writeln!(out, "[plugins.{id}]\nfile = \"{id}.wasm\"");
    if let Some(interval) = found.interval {
        let _ = writeln!(out, "interval = \"{interval}\"");
    }
    if manifest.is_err() {
        let _ = writeln!(out, "enabled = false");
    }
    if !found.settings.is_empty() {
        let mut plugin = toml::Table::new();
        plugin.insert("settings".to_owned(), found.settings.clone().into());
        let mut plugins = toml::Table::new();
        plugins.insert(id.to_owned(), plugin.into());
        let mut root = toml::Table::new();
        root.insert("plugins".to_owned(), plugins.into());
        let _ = write!(out, "\n{root}");
    }
    let Ok(manifest) = manifest else { return };
    let Ok(id) = PluginId::new(id) else { return };
    let needs: Vec<Need> = manifest
        .needs
        .iter()
        .map(|need| Need { scope: found.reach.narrow(&need.scope), why: need.why.clone() })
        .collect();
    if !needs.is_empty() {
        let _ = write!(out, "\n{}", grant_lines(&id, &needs).trim_end());
        out.push('\n');
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
