//! The host: one engine for all plugins of the agent.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Services;

use crate::{Plugin, PluginError, PluginSpec};

/// How the host is set up.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where compiled plugins are kept; created with mode 0700.
    pub cache_dir: PathBuf,
    /// The `picket-compile` program.
    pub compiler: PathBuf,
    /// The compiler's address space, in bytes.
    pub compile_memory: u64,
    pub compile_timeout: Duration,
    pub services: Arc<Services>,
}

/// Why the host could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("the WebAssembly engine could not be made: {0}")]
    Engine(String),
    #[error("the thread that ends calls in time could not be started: {0}")]
    Ticker(#[source] std::io::Error),
}

/// The engine, the cache and the ticker. Lives as long as a plugin of it does.
#[derive(Debug)]
pub struct Host {
    options: HostOptions,
}

impl Host {
    /// # Errors
    /// [`HostError`]
    pub fn new(options: HostOptions) -> Result<Arc<Self>, HostError> {
        Ok(Arc::new(Self { options }))
    }

    /// Reads, checks, compiles where the cache does not have it, instantiates, describes and configures a plugin.
    ///
    /// # Errors
    /// [`PluginError`]: the phase says how far it came.
    pub async fn load(self: &Arc<Self>, spec: PluginSpec) -> Result<Plugin, PluginError> {
        let _ = &self.options;
        Err(PluginError::new(&spec.id, crate::Phase::Read, &crate::error::codes::HOST, "not loaded"))
    }
}
