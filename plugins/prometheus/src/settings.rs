//! `[plugins.prometheus.settings]`, in Prometheus' own words where it has them.

use std::collections::BTreeMap;

use picket_sdk::Failure;
use picket_sdk::exposition::Relabel;
use serde::Deserialize;

/// What the operator says.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub timeout_ms: u64,
    pub sample_limit: u64,
    pub targets_limit: usize,
    pub discovery_seconds: u64,
    pub jobs: Vec<Job>,
    pub textfile_directories: Vec<String>,
    pub textfile_relabel_configs: Vec<Relabel>,
}

/// One of `scrape_configs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    pub job_name: String,
    #[serde(default = "http")]
    pub scheme: String,
    #[serde(default = "metrics")]
    pub metrics_path: String,
    #[serde(default)]
    pub static_configs: Vec<Group>,
    #[serde(default)]
    pub file_sd_configs: Vec<FileDiscovery>,
    #[serde(default)]
    pub relabel_configs: Vec<Relabel>,
    #[serde(default)]
    pub metric_relabel_configs: Vec<Relabel>,
    pub sample_limit: Option<u64>,
    pub timeout_ms: Option<u64>,
    #[serde(default = "yes")]
    pub honor_timestamps: bool,
    pub secret: Option<String>,
}

/// Targets that share labels: of the settings, or of a discovery file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub targets: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Files that name targets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDiscovery {
    pub files: Vec<String>,
}

fn http() -> String {
    "http".to_owned()
}

fn metrics() -> String {
    "/metrics".to_owned()
}

const fn yes() -> bool {
    true
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout_ms: 2000,
            sample_limit: 20_000,
            targets_limit: 100,
            discovery_seconds: 30,
            jobs: Vec::new(),
            textfile_directories: Vec::new(),
            textfile_relabel_configs: Vec::new(),
        }
    }
}

impl Settings {
    /// Says what can't be used.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wrong = |message: String| Err(Failure::new("settings", message));
        let mut names: Vec<&str> = Vec::new();
        for job in &self.jobs {
            let name = job.job_name.as_str();
            if name.is_empty() {
                return wrong("a job has no job_name".to_owned());
            }
            if names.contains(&name) {
                return wrong(format!("the job {name} stands twice"));
            }
            names.push(name);
            if !matches!(job.scheme.as_str(), "http" | "https") {
                return wrong(format!("job {name}: the scheme {:?} is not http or https", job.scheme));
            }
            if !job.metrics_path.starts_with('/') {
                return wrong(format!("job {name}: metrics_path {:?} must begin with /", job.metrics_path));
            }
            if job.static_configs.is_empty() && job.file_sd_configs.is_empty() {
                return wrong(format!("job {name}: it has neither static_configs nor file_sd_configs"));
            }
            let files = job.file_sd_configs.iter().flat_map(|d| &d.files);
            if let Some(bad) = files.clone().find(|f| !good_pattern(f)) {
                return wrong(format!(
                    "job {name}: {bad:?} must be an absolute path that ends in .json, with a * in its last segment at most"
                ));
            }
            for name in job.static_configs.iter().flat_map(|g| g.labels.keys()) {
                if !is_label(name) {
                    return wrong(format!("job {}: {name:?} is no label name", job.job_name));
                }
            }
        }
        if let Some(bad) = self.textfile_directories.iter().find(|d| !d.starts_with('/')) {
            return wrong(format!("textfile_directories: {bad:?} is not an absolute path"));
        }
        Ok(())
    }
}

/// `/etc/targets/*.json`
fn good_pattern(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    path.starts_with('/')
        && path.ends_with(".json")
        && !folder.contains('*')
        && name.matches('*').count() <= 1
}

pub(crate) fn is_label(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
