//! The door to the effects.
use std::path::PathBuf;
use std::time::Duration;

use crate::grants::Grant;
use crate::{Request, Response};

/// How the services are set up.
#[derive(Debug, Clone)]
pub struct ServicesOptions {
    /// The agent's state folder; the plugins' stores lie in `plugins/` below it.
    pub state_dir: PathBuf,
    /// A PEM file with authorities to trust in HTTPS beside the system's.
    pub extra_authorities: Option<PathBuf>,
    pub limits: ServiceLimits,
}

/// The node's bounds on single effects.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceLimits {
    /// The longest file that is read, in bytes.
    pub read_bytes: usize,
    /// The most entries of a folder.
    pub directory_entries: usize,
    /// How long a file operation may take that can hang (anything but procfs and sysfs).
    pub file_time: Duration,
    /// The most HTTP requests of one call.
    pub http_requests: usize,
    /// How long one HTTP request may take in all.
    pub http_time: Duration,
    /// The longest body of an answer, in bytes.
    pub http_body_bytes: usize,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            read_bytes: 4 << 20,
            directory_entries: 65_536,
            file_time: Duration::from_secs(2),
            http_requests: 64,
            http_time: Duration::from_secs(5),
            http_body_bytes: 8 << 20,
        }
    }
}

/// Why the services could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    #[error("cannot read the authorities in {path}: {why}")]
    Authorities { path: PathBuf, why: String },
}

/// The effects, shared by all plugins of the agent.
#[derive(Debug)]
pub struct Services {
    options: ServicesOptions,
}

impl Services {
    /// # Errors
    /// [`ServicesError`]
    pub fn new(options: ServicesOptions) -> Result<Self, ServicesError> {
        Ok(Self { options })
    }

    /// Does one effect within the grant's scope. Never waits longer than the limits say.
    pub async fn call(&self, grant: &Grant, request: Request) -> Response {
        let _ = (&self.options, grant, request);
        Response::Mismatch
    }
}
