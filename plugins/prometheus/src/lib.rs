//! `prometheus`: what other exporters on the node say, passed on: those of a list, those that a discovery file names,
//! and text files in a folder.
//!
//! Settings have the words of Prometheus' own (`static_configs`, `file_sd_configs`, `relabel_configs` …), so that what
//! stands in its configuration can be carried over. Every series gets the labels `job` and `target`; `instance` is the
//! node's, since that is what dashboards mean by it.
//!
//! - [`settings`]: what the operator says; [`discovery`]: the targets that come of it;
//! - [`target`]: one exporter; [`textfile`]: a folder.
//!
//! Exporters that answered last time are asked first, all at once, and what they said is set before the others are
//! waited for.

pub mod discovery;
pub mod settings;
pub mod target;
pub mod textfile;

use std::time::Duration;

use picket_sdk::upstream::{self, Upstream};
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, Source, clock};

use discovery::{Discovery, Wanted};
pub use settings::Settings;
use target::{Exports, Target};
use textfile::TextFiles;

/// Requests of one round: the host takes no more in one call.
const AT_ONCE: usize = 60;

/// The plugin.
pub struct Prometheus {
    exports: Exports,
    targets_found: GaugeFamily<1>,
    settings: Settings,
    discovery: Discovery,
    targets: Vec<Target>,
    textfiles: TextFiles,
    /// When the discovery files are to be read again.
    discovery_due: Duration,
}

impl Source for Prometheus {
    type Settings = Settings;

    fn describe(d: &mut Describe) -> Self {
        let exports = Exports::declare(d);
        let targets_found = d
            .gauge("picket_prometheus_targets", "Exporters that the settings and the discovery files name.")
            .labels(&["job"]);
        let textfiles = TextFiles::declare(d);
        Self {
            exports,
            targets_found,
            settings: Settings::default(),
            discovery: Discovery::default(),
            targets: Vec::new(),
            textfiles,
            discovery_due: Duration::ZERO,
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        settings.check()?;
        self.textfiles.configure(&settings);
        self.discovery = Discovery::default();
        self.targets.clear();
        self.discovery_due = Duration::ZERO;
        self.settings = settings;
        Ok(())
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        let now = clock::monotonic();
        if now >= self.discovery_due {
            self.discovery_due = now + Duration::from_secs(self.settings.discovery_seconds);
            let wanted = self.discovery.targets(&self.settings, collect);
            self.take(wanted);
        }
        for job in &self.settings.jobs {
            let of_job = self.targets.iter().filter(|t| t.job() == job.job_name).count();
            self.targets_found.with(&[&job.job_name]).set(of_job as f64);
        }
        for troubled in [false, true] {
            let due: Vec<usize> = (0..self.targets.len())
                .filter(|i| {
                    self.targets.get(*i).is_some_and(|t| t.upstream.troubled() == troubled && !t.asked)
                })
                .collect();
            for chunk in due.chunks(AT_ONCE) {
                self.round(collect, chunk);
            }
        }
        for target in &mut self.targets {
            target.asked = false;
        }
        self.textfiles.collect(collect);
        Ok(())
    }
}

impl Prometheus {
    /// Keeps those that are wanted still, with all that they remember.
    fn take(&mut self, wanted: Vec<Wanted>) {
        let mut old = std::mem::take(&mut self.targets);
        self.targets = wanted
            .into_iter()
            .map(|wanted| match old.iter().position(|t| t.wanted == wanted) {
                Some(at) => old.swap_remove(at),
                None => Target::new(wanted),
            })
            .collect();
    }

    fn round(&mut self, collect: &mut Collect<'_>, chunk: &[usize]) {
        let begun = clock::monotonic();
        let mut upstreams: Vec<&mut Upstream> = Vec::new();
        for (i, target) in self.targets.iter_mut().enumerate() {
            if chunk.binary_search(&i).is_ok() {
                target.asked = true;
                upstreams.push(&mut target.upstream);
            }
        }
        let answers = upstream::ask(&mut upstreams, |_| true);
        let took = clock::monotonic().saturating_sub(begun);
        for (i, answer) in chunk.iter().zip(answers) {
            if let Some(target) = self.targets.get_mut(*i) {
                target.take(collect, &self.exports, answer, took);
            }
        }
    }
}

picket_sdk::export!(Prometheus);
