//! The door to the effects: one call that takes a grant and a request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_proto::model::PluginId;

use crate::always;
use crate::files::Files;
use crate::grants::{Admission, Capability, Compiled, Grant};
use crate::http::Client;
use crate::kmsg::Kmsg;
use crate::logs::{self, Logs};
use crate::nvml::Nvml;
use crate::store::Stores;
use crate::wakes::Wakes;
use crate::{Request, Response};

/// How the services are set up.
#[derive(Debug, Clone)]
pub struct ServicesOptions {
    /// The agent's state folder; the plugins' stores lie in `plugins/` below it.
    pub state_dir: PathBuf,
    /// A PEM file with authorities to trust in HTTPS beside the system's.
    pub extra_authorities: Option<PathBuf>,
    pub limits: ServiceLimits,
    pub nvml: crate::nvml::Options,
    pub kmsg: crate::kmsg::Options,
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
    /// How long the container engines together may take for one call.
    pub engine_time: Duration,
    /// The most containers of one call.
    pub engine_ids: usize,
    /// The most of a container's output in one call, in bytes and in lines.
    pub log_bytes: usize,
    pub log_lines: usize,
    /// The most commands that a plugin may have running.
    pub command_runs: usize,
    /// How long a change may take (beyond the time that it gives what it changes).
    pub control_time: Duration,
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
            engine_time: Duration::from_secs(3),
            engine_ids: 256,
            log_bytes: 1 << 20,
            log_lines: 5_000,
            command_runs: 4,
            control_time: Duration::from_secs(30),
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
    limits: ServiceLimits,
    files: Files,
    stores: Stores,
    http: Arc<Client>,
    logs: Logs,
    nvml: Nvml,
    kmsg: Kmsg,
    wakes: Wakes,
}

impl Services {
    /// # Errors
    /// [`ServicesError`]: the file with extra authorities holds none.
    pub fn new(options: ServicesOptions) -> Result<Self, ServicesError> {
        let wakes = Wakes::default();
        Ok(Self {
            nvml: Nvml::new(options.nvml, wakes.clone()),
            kmsg: Kmsg::new(options.kmsg, wakes.clone()),
            wakes,
            files: Files::default(),
            logs: Logs::default(),
            stores: Stores::new(options.state_dir.join("plugins")),
            http: Arc::new(Client::new(options.extra_authorities, &options.limits)?),
            limits: options.limits,
        })
    }

    /// Does one effect within the grant's scope. Never waits longer than the limits say.
    pub async fn call(&self, grant: &Grant, request: Request) -> Response {
        if let Some(refusal) = crate::held::refusal(grant, &request) {
            return refusal;
        }
        match (grant.scope(), request) {
            (Compiled::Files { read, filesystems, desk }, Request::Files(request)) => {
                Response::Files(self.files.call(desk, read, filesystems, &self.limits, request).await)
            }
            (Compiled::Store { bytes }, Request::Store(request)) => {
                let now_ms = always::now_ns() / 1_000_000;
                Response::Store(self.stores.call(grant.plugin(), *bytes, now_ms, request).await)
            }
            (Compiled::Http { rules }, Request::Http(requests)) => {
                Response::Http(self.http.send_many(grant.plugin(), rules, requests).await)
            }
            (Compiled::Containers(permit), Request::Containers(request)) => {
                Response::Containers(crate::containers::call(permit, &self.limits, request).await)
            }
            (Compiled::UnixHttp(rules), Request::UnixHttp(request)) => {
                let parts = self.http.parts();
                let (plugin, limits) = (grant.plugin(), &self.limits);
                Response::UnixHttp(crate::unix_http::send(plugin, rules, parts, limits, request).await)
            }
            (Compiled::Command(commands), Request::Command(request)) => {
                Response::Command(crate::command::call(commands, &self.limits, request).await)
            }
            (Compiled::ContainersControl(rules), Request::ContainersControl(request)) => {
                Response::ContainersControl(
                    crate::containers_control::call(rules, &self.limits, request).await,
                )
            }
            (Compiled::SystemdControl(rules), Request::SystemdControl(request)) => {
                Response::SystemdControl(crate::systemd_control::call(rules, &self.limits, request).await)
            }
            (Compiled::FilesWrite(rules), Request::FilesWrite(request)) => {
                Response::FilesWrite(crate::files_write::call(rules, &self.limits, request).await)
            }
            (Compiled::Nvml(devices), Request::Nvml(request)) => {
                Response::Nvml(self.nvml.call(grant.plugin(), devices, request).await)
            }
            (Compiled::Kmsg(filter), Request::Kmsg(request)) => {
                Response::Kmsg(self.kmsg.call(grant.plugin(), filter, request).await)
            }
            (Compiled::Logs(scope), Request::Logs(request)) => {
                let answer = self.logs.call(grant.plugin(), scope, &self.limits, request).await;
                if matches!(answer, Ok(logs::Answer::Committed { more: true })) {
                    // A backlog is read at once, with the rest between collects that a wake has.
                    self.wakes.wake(grant.plugin());
                }
                Response::Logs(answer)
            }
            (Compiled::System, Request::System(request)) => Response::System(crate::system::answer(request)),
            _ => Response::Mismatch,
        }
    }

    /// A call into a plugin is over, however it ended: what it left running is killed.
    pub fn call_ended(&self, admission: &Admission) {
        if let Some(Compiled::Command(commands)) = admission.grant(Capability::Command).map(Grant::scope) {
            commands.end_all();
        }
    }

    /// Who is to be collected from before its time.
    pub fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Puts back where a plugin's reading of a log goes on, before the plugin reads.
    pub fn restore_log_cursor(&self, plugin: &PluginId, source: &str, cursor: &str) {
        self.logs.restore(plugin, source, cursor);
    }

    /// What each plugin has read of logs.
    pub fn log_totals(&self) -> Vec<(PluginId, logs::Totals)> {
        self.logs.totals()
    }

    /// Plugins' stores that were found damaged and set aside since the start.
    pub fn damaged_stores(&self) -> u64 {
        self.stores.damaged()
    }
}
