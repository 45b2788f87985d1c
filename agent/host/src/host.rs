//! The host: one engine, one cache and one clock for all plugins of the agent; and the way from a file to a plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Services;
use wasmtime::Engine;

use crate::check::{Checked, check};
use crate::compiler::Compiler;
use crate::component::{CONTROLLABLE_WORLD, SOURCE_WORLD};
use crate::error::codes;
use crate::fault::chain;
use crate::instance::{Linked, Setting};
use crate::{Phase, Plugin, PluginError, PluginInfo, PluginSpec};

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

/// The engine, the cache and the ticker. They live as long as a plugin of theirs does.
pub struct Host {
    engine: Engine,
    compiler: Compiler,
    services: Arc<Services>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

impl Host {
    /// # Errors
    /// [`HostError`]: this machine cannot run plugins at all.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, HostError> {
        let engine = Engine::new(&crate::engine::config()).map_err(|e| HostError::Engine(chain(&e)))?;
        crate::engine::tick(&engine).map_err(HostError::Ticker)?;
        let compiler = Compiler::new(
            options.cache_dir,
            options.compiler,
            options.compile_memory,
            options.compile_timeout,
        );
        Ok(Arc::new(Self { engine, compiler, services: options.services }))
    }

    /// Reads, checks, compiles where the cache does not have it, instantiates, describes and configures a plugin.
    ///
    /// # Errors
    /// [`PluginError`]: the phase says how far it came.
    pub async fn load(self: &Arc<Self>, spec: PluginSpec) -> Result<Plugin, PluginError> {
        let id = &spec.id;
        let error = |phase, code, message: String| PluginError::new(id, phase, code, message);
        let asked = spec.clone();
        let checked = tokio::task::spawn_blocking(move || check(&asked))
            .await
            .map_err(|e| error(Phase::Read, &codes::HOST, e.to_string()))??;
        let version = checked.version().to_owned();
        let Checked { digest, bytes, component, admission } = checked;
        let compiled = self.compiler.component(&self.engine, &bytes, &digest).await.map_err(|e| {
            let made = error(Phase::Compile, e.code, e.message).of(&version, &digest);
            match e.source {
                Some(source) => made.because(source),
                None => made,
            }
        })?;
        drop(bytes);
        let linked = Linked::new(&self.engine, &compiled, &admission, component.controllable)
            .map_err(|e| error(Phase::Link, &codes::LINK, chain(&e)).of(&version, &digest))?;
        let limits = match &component.manifest {
            Some(manifest) => spec.limits.clamp(&manifest.limits),
            None => spec.limits.clone(),
        };
        let world = if component.controllable { CONTROLLABLE_WORLD } else { SOURCE_WORLD };
        let setting = Setting {
            plugin: id.clone(),
            limits: limits.clone(),
            services: self.services.clone(),
            admission: Arc::new(admission),
        };
        let manifest = component.manifest;
        let info = PluginInfo {
            id: id.clone(),
            name: manifest.as_ref().map_or_else(|| file_name(&spec.file), |m| m.id.to_string()),
            version,
            digest,
            world: manifest.as_ref().map_or_else(|| world.to_owned(), |m| m.world.clone()),
            description: manifest.as_ref().map(|m| m.description.clone()).unwrap_or_default(),
            controllable: component.controllable,
            families: Vec::new(),
            limits,
            settings_schema: manifest.and_then(|m| m.config),
        };
        Plugin::start(info, linked, setting, &spec.settings).await
    }
}

fn file_name(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}
