//! Folders of `*.prom` files that other programs write, as node_exporter's textfile collector reads them, with its
//! metrics about them.

use std::collections::BTreeMap;

use picket_sdk::exposition::{Options, Passthrough, samples};
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, files};

use crate::settings::Settings;

/// Files of one folder that are read.
const MOST: usize = 256;

/// See the module.
pub struct TextFiles {
    mtime: GaugeFamily<1>,
    error: GaugeFamily,
    directories: Vec<String>,
    options: Options,
    files: BTreeMap<String, Passthrough>,
}

impl TextFiles {
    pub fn declare(d: &mut Describe) -> Self {
        Self {
            mtime: d
                .gauge("node_textfile_mtime_seconds", "Unixtime mtime of textfiles successfully read.")
                .labels(&["file"]),
            error: d.gauge(
                "node_textfile_scrape_error",
                "1 if there was an error opening or reading a file, 0 otherwise",
            ),
            directories: Vec::new(),
            options: Options::default(),
            files: BTreeMap::new(),
        }
    }

    pub fn configure(&mut self, settings: &Settings) {
        self.directories =
            settings.textfile_directories.iter().map(|d| d.trim_end_matches('/').to_owned()).collect();
        self.options = Options {
            relabel: settings.textfile_relabel_configs.clone(),
            samples: settings.sample_limit,
            timestamps: false,
            ..Options::default()
        };
        self.files.clear();
    }

    pub fn collect(&mut self, collect: &mut Collect<'_>) {
        if self.directories.is_empty() {
            return;
        }
        let (mut found, mut failed) = (Vec::new(), false);
        for directory in &self.directories {
            match files::list_directory(directory) {
                Ok(entries) => {
                    let mut names: Vec<String> = entries
                        .iter()
                        .filter(|e| e.name.ends_with(".prom"))
                        .map(|e| format!("{directory}/{}", e.name))
                        .collect();
                    names.sort();
                    if names.len() > MOST {
                        failed = true;
                        let message =
                            format!("{directory} has {} files, {MOST} of them are read", names.len());
                        collect.fail("too-many", &message);
                        names.truncate(MOST);
                    }
                    found.append(&mut names);
                }
                Err(error) => {
                    failed = true;
                    collect.failed(error);
                }
            }
        }
        self.files.retain(|path, _| found.contains(path));
        for path in found {
            match self.file(collect, &path) {
                Ok(whole) => failed |= !whole,
                Err(failure) => {
                    failed = true;
                    collect.fail(&failure.reason, &format!("{path}: {}", failure.message));
                }
            }
        }
        self.error.set(f64::from(u8::from(failed)));
    }

    /// Whether all of it could be read.
    fn file(&mut self, collect: &mut Collect<'_>, path: &str) -> Result<bool, Failure> {
        let modified = files::modified(path)?;
        let body = files::read(path)?;
        if samples(&body).any(|s| s.is_ok_and(|s| s.timestamp_ms.is_some())) {
            // Nobody knows how old the file will be when it is read: its own time would be right once.
            return Err(Failure::new(
                "timestamp",
                "a text file must not have timestamps; none of it is taken",
            ));
        }
        let pass =
            self.files.entry(path.to_owned()).or_insert_with(|| Passthrough::new(self.options.clone()));
        let stats = pass.page(collect, &body, &[])?;
        self.mtime.with(&[path]).set(modified.as_secs_f64());
        Ok(stats.malformed + stats.utf8 == 0)
    }
}
