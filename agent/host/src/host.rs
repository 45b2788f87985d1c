//! The host: one engine, one cache and one clock for all plugins of the agent; and the way from a file to a plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Services;

use crate::action::{ActionInfo, ActionPlugin};
use crate::body::{NotPut, Place, Put, Seat, World};
use crate::check::{Checked, check, check_action};
use crate::compiler::{Compiler, NotCompiled};
use crate::desk::Setting;
use crate::error::codes;
use crate::fault::chain;
use crate::local::Local;
use crate::ticker::Ticker;
use crate::versions::Edition;
use crate::worker::{Walled, WorkerOptions, Workers};
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
    #[error("plugins cannot be walled in: {0}")]
    Worker(String),
}

/// The cache, and the place where plugins run.
pub struct Host {
    place: Arc<dyn Place>,
    workers: Option<Arc<Workers>>,
    compiler: Compiler,
    services: Arc<Services>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("compiler", &self.compiler).finish_non_exhaustive()
    }
}

impl Host {
    /// Plugins run in this very process.
    ///
    /// # Errors
    /// [`HostError`]: this machine cannot run plugins at all.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, HostError> {
        let engine = crate::engine::runtime().map_err(|e| HostError::Engine(chain(&e)))?;
        let ticker = Ticker::start(&engine).map_err(HostError::Ticker)?;
        Ok(Arc::new(Self::assemble(options, Arc::new(Local { engine, ticker }))))
    }

    /// Plugins run in workers; this process enters none of them.
    ///
    /// # Errors
    /// [`HostError`]: no worker can be started, or the wall around it lacks what is required.
    pub async fn walled(options: HostOptions, workers: WorkerOptions) -> Result<Arc<Self>, HostError> {
        let walls = workers.walls();
        let workers = Workers::new(workers).await.map_err(HostError::Worker)?;
        let mut host = Self::assemble(options, Arc::new(Walled(workers.clone())));
        host.compiler.walls(walls);
        host.workers = Some(workers);
        Ok(Arc::new(host))
    }

    /// Where plugins run, if that is not this process.
    pub const fn workers(&self) -> Option<&Arc<Workers>> {
        self.workers.as_ref()
    }

    fn assemble(options: HostOptions, place: Arc<dyn Place>) -> Self {
        let compiler = Compiler::new(
            options.cache_dir,
            options.compiler,
            options.compile_memory,
            options.compile_timeout,
        );
        Self { place, workers: None, compiler, services: options.services }
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
        let limits = match &component.manifest {
            Some(manifest) => spec.limits.clamp(&manifest.limits),
            None => spec.limits.clone(),
        };
        let world = component.world();
        if component.edition == Edition::Former {
            tracing::warn!(
                plugin = %id,
                "the plugin is made for {world}, the version before this agent's: a later agent will not run it; build it again"
            );
        }
        let (edition, controllable) = (component.edition, component.controllable);
        let seat = self
            .seat(&spec, &bytes, &digest, component.newer.as_deref(), |compiled| Put {
                plugin: id.clone(),
                compiled: Arc::new(compiled),
                capabilities: admission.capabilities().collect(),
                world: World::Source { edition, controllable },
                bounds: (&limits).into(),
                isolation: spec.isolation,
            })
            .await
            .map_err(|e| e.of(&version, &digest))?;
        drop(bytes);
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
            world,
            description: manifest.as_ref().map(|m| m.description.clone()).unwrap_or_default(),
            controllable: component.controllable,
            families: Vec::new(),
            limits,
            settings_schema: manifest.and_then(|m| m.config),
        };
        Plugin::start(info, seat, setting, &spec.settings).await
    }

    /// The same for an action: reads, checks, compiles, describes, tries its settings.
    ///
    /// # Errors
    /// [`PluginError`]: the phase says how far it came.
    pub async fn load_action(self: &Arc<Self>, spec: PluginSpec) -> Result<ActionPlugin, PluginError> {
        let id = &spec.id;
        let error = |phase, code, message: String| PluginError::new(id, phase, code, message);
        let asked = spec.clone();
        let checked = tokio::task::spawn_blocking(move || check_action(&asked))
            .await
            .map_err(|e| error(Phase::Read, &codes::HOST, e.to_string()))??;
        let version = checked.version().to_owned();
        let Checked { digest, bytes, component, admission } = checked;
        let limits = match &component.manifest {
            Some(manifest) => spec.limits.clamp(&manifest.limits),
            None => spec.limits.clone(),
        };
        let seat = self
            .seat(&spec, &bytes, &digest, component.newer.as_deref(), |compiled| Put {
                plugin: id.clone(),
                compiled: Arc::new(compiled),
                capabilities: admission.capabilities().collect(),
                world: World::Action,
                bounds: (&limits).into(),
                isolation: spec.isolation,
            })
            .await
            .map_err(|e| e.of(&version, &digest))?;
        drop(bytes);
        let setting = Setting {
            plugin: id.clone(),
            limits: limits.clone(),
            services: self.services.clone(),
            admission: Arc::new(admission),
        };
        let world = component.world();
        let manifest = component.manifest;
        let info = ActionInfo {
            id: id.clone(),
            version,
            digest,
            world,
            description: manifest.map(|m| m.description).unwrap_or_default(),
            definitions: Vec::new(),
            limits,
        };
        let settings = if spec.settings.is_null() { "{}".to_owned() } else { spec.settings.to_string() };
        ActionPlugin::start(info, seat, setting, settings).await
    }

    /// Compiles the component where the cache does not have it, and puts it where plugins run.
    async fn seat(
        &self,
        spec: &PluginSpec,
        bytes: &[u8],
        digest: &str,
        newer: Option<&str>,
        put: impl Fn(std::fs::File) -> Put,
    ) -> Result<Box<dyn Seat>, PluginError> {
        let error = |phase, code, message: String| PluginError::new(&spec.id, phase, code, message);
        let not_compiled = |e: NotCompiled| {
            let made = error(Phase::Compile, e.code, e.message);
            match e.source {
                Some(source) => made.because(source),
                None => made,
            }
        };
        let mut anew = false;
        loop {
            let compiled = self.compiler.component(bytes, digest, anew).await.map_err(not_compiled)?;
            match self.place.put(put(compiled)).await {
                Ok(seat) => return Ok(seat),
                Err(NotPut::Stale(why)) if !anew => {
                    tracing::warn!(plugin = %spec.id, error = %why, "a compiled plugin does not fit and is compiled again");
                    anew = true;
                }
                Err(NotPut::Stale(why)) => {
                    let message = format!("the component, just compiled, does not fit: {why}");
                    return Err(error(Phase::Compile, &codes::CACHE, message));
                }
                Err(NotPut::Unlinkable(why)) => {
                    let why = match newer {
                        Some(name) => {
                            format!("it is made for {name}, which is newer than this agent's: {why}")
                        }
                        None => why,
                    };
                    return Err(error(Phase::Link, &codes::LINK, why));
                }
                Err(NotPut::NoRoom(why)) => return Err(error(Phase::Instantiate, &codes::NO_WORKER, why)),
            }
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}
