//! The operator's settings.

use picket_sdk::Failure;
use serde::Deserialize;

/// All of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which node polls the cluster.
    pub poller: Poller,
    /// What the cluster is read with.
    pub reader: ReaderChoice,
    /// Where slurmrestd listens: a URL, or a Unix socket's path. Both empty: there is none.
    pub restd_url: String,
    pub restd_socket: String,
    /// `v0.0.42`; empty: the newest that it answers to.
    pub restd_version: String,
    /// The name of the granted secret with the token; empty: none is sent (a socket that trusts its peer).
    pub restd_secret: String,
    /// The user that the token is of; empty: the token says it.
    pub restd_user: String,
    /// How long slurmrestd may take to begin an answer.
    pub restd_timeout_seconds: u64,
    /// Seconds between two dumps of one kind.
    pub interval_seconds: u64,
    /// Nodes with series of their own.
    pub max_nodes: usize,
    /// Users and accounts with series of their own; the others are one, `other`.
    pub top_users: usize,
    pub top_accounts: usize,
    /// Whose labels the series have: `vpenso` (few) or `sckyzo` (by partition, user and reason).
    pub labels: Labels,
    pub nodes: bool,
    pub jobs: bool,
    pub partitions: bool,
    pub reservations: bool,
    pub scheduler: bool,
    pub events: bool,
    /// The controller's own metrics (Slurm 25.11 and later), as in `http://controller:6817`; empty: they are not read.
    pub openmetrics_url: String,
    pub openmetrics_pages: Vec<String>,
    /// The label `job` of what comes from there.
    pub openmetrics_job: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Labels {
    Vpenso,
    Sckyzo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReaderChoice {
    Auto,
    Restd,
    Json,
    Text,
}

/// `true`, `false`, `"auto"`, a node's name, or a list of candidates.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Poller {
    This(bool),
    Named(String),
    Candidates(Vec<String>),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            poller: Poller::Named("auto".to_owned()),
            reader: ReaderChoice::Auto,
            restd_url: String::new(),
            restd_socket: String::new(),
            restd_version: String::new(),
            restd_secret: String::new(),
            restd_user: String::new(),
            restd_timeout_seconds: 5,
            interval_seconds: 60,
            max_nodes: 1000,
            top_users: 50,
            top_accounts: 50,
            labels: Labels::Vpenso,
            nodes: true,
            jobs: true,
            partitions: true,
            reservations: true,
            scheduler: true,
            events: true,
            openmetrics_url: String::new(),
            openmetrics_pages: ["jobs", "nodes", "partitions", "scheduler", "jobs-users-accts"]
                .map(str::to_owned)
                .to_vec(),
            openmetrics_job: "slurmctld".to_owned(),
        }
    }
}

impl Settings {
    /// # Errors
    /// What can't be, with what would be.
    pub fn check(&self) -> Result<(), Failure> {
        let wrong = |why: &str| Err(Failure::new("settings", why));
        let has_restd = !self.restd_url.is_empty() || !self.restd_socket.is_empty();
        if !self.restd_url.is_empty() && !self.restd_socket.is_empty() {
            return wrong("restd_url and restd_socket are both set: say where slurmrestd listens, once");
        }
        if self.reader == ReaderChoice::Restd && !has_restd {
            return wrong("reader = \"restd\" wants restd_url or restd_socket");
        }
        if !self.restd_url.is_empty()
            && !self.restd_url.starts_with("http://")
            && !self.restd_url.starts_with("https://")
        {
            return wrong("restd_url must begin with http:// or https://");
        }
        if !self.restd_socket.is_empty() && !self.restd_socket.starts_with('/') {
            return wrong("restd_socket must be an absolute path");
        }
        let version_fits = self.restd_version.strip_prefix("v0.0.").is_some_and(|n| n.parse::<u32>().is_ok());
        if !self.restd_version.is_empty() && !version_fits {
            return wrong("restd_version is written as in \"v0.0.42\"");
        }
        if self.interval_seconds < 1 {
            return wrong("interval_seconds must be at least 1");
        }
        if let Poller::Candidates(names) = &self.poller
            && (names.is_empty() || names.len() > 64)
        {
            return wrong("poller: a list of candidates has 1 to 64 names");
        }
        if matches!(&self.poller, Poller::Named(name) if name.is_empty()) {
            return wrong("poller is true, false, \"auto\", a node's name, or a list of candidates");
        }
        let plain =
            |page: &String| !page.is_empty() && page.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if !self.openmetrics_pages.iter().all(plain) {
            return wrong("openmetrics_pages are words such as \"jobs\"");
        }
        Ok(())
    }
}
