//! How many files the node has open, and how many it may.

use picket_sdk::{Collect, Describe, Event, Failure, GaugeFamily, Severity, Source, files};
use serde::Deserialize;

const FILE: &str = "/proc/sys/fs/file-nr";

pub struct Plugin {
    open: GaugeFamily,
    limit: GaugeFamily,
    settings: Settings,
}

/// As `[config]` in plugin.toml describes them.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    warn_above: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warn_above: 0.9 }
    }
}

impl Source for Plugin {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            open: d.gauge("{{snake}}_open_files", "Files that are open on the node."),
            limit: d.gauge("{{snake}}_open_files_limit", "Files that may be open on the node."),
            settings: Settings::default(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        let text = files::read(FILE)?;
        let (open, limit) = parse(&String::from_utf8_lossy(&text))
            .ok_or_else(|| Failure::new("parse", "/proc/sys/fs/file-nr has not three numbers"))?;
        self.open.set(open);
        self.limit.set(limit);
        if limit > 0.0 && open / limit > self.settings.warn_above {
            let message = format!("{open} of {limit} files are open");
            collect.emit(Event::new("{{name}}.many-open-files", Severity::Warning, message).key("open-files"));
        }
        Ok(())
    }
}

/// `allocated unused limit`
fn parse(text: &str) -> Option<(f64, f64)> {
    let mut words = text.split_whitespace().map(|word| word.parse::<f64>().ok());
    let (allocated, unused, limit) = (words.next()??, words.next()??, words.next()??);
    Some((allocated - unused, limit))
}

picket_sdk::export!(Plugin);
