//! SIGHUP: the configuration is read again; what is not valid changes nothing and is said.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{Config, Sources, load};
use crate::health::Health;
use crate::logs::LogHandle;
use crate::schedule::Schedule;
use crate::trust::Trust;

/// What takes a change over.
pub struct Parts<'a> {
    pub logs: &'a LogHandle,
    pub schedule: &'a Schedule,
    pub health: &'a Health,
    pub trust: &'a Arc<Trust>,
    pub plugin_dir: &'a Mutex<PathBuf>,
}

/// Takes over the plugins, whom they are trusted from, and the log level. What only a start can change is kept as it was, and named.
pub async fn reload(config: &mut Config, sources: &Sources, parts: Parts<'_>) {
    let Parts { logs, schedule, health, trust, plugin_dir } = parts;
    let read_again = Sources { file: sources.file.clone(), environment: sources.environment.clone() };
    let new = match tokio::task::spawn_blocking(move || load(&read_again)).await {
        Ok(Ok(new)) => new,
        Ok(Err(error)) => {
            tracing::error!("not reloaded, the former configuration stays in force: {error}");
            health.set_config(Some(format!("not reloaded: {error}")));
            return;
        }
        Err(error) => {
            tracing::error!("not reloaded: {error}");
            return;
        }
    };
    let waiting = needs_restart(config, &new);
    if new.log.level != config.log.level
        && let Err(error) = logs.set_level(&new.log.level)
    {
        tracing::error!("the log level was not changed: {error}");
    }
    config.log.level.clone_from(&new.log.level);
    config.plugins.clone_from(&new.plugins);
    config.plugin_dir.clone_from(&new.plugin_dir);
    config.trust.clone_from(&new.trust);
    plugin_dir.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&new.plugin_dir);
    let (trust, settings) = (trust.clone(), new.trust.clone());
    if let Err(error) = tokio::task::spawn_blocking(move || trust.reload(&settings)).await {
        tracing::error!("the policy was not read again: {error}");
    }
    schedule.apply(super::plan(config)).await;
    health.set_config(
        (!waiting.is_empty())
            .then(|| format!("changed, and in force only after a restart: {}", waiting.join(", "))),
    );
    if waiting.is_empty() {
        tracing::info!("configuration reloaded");
    } else {
        tracing::warn!("configuration reloaded; a restart is needed for: {}", waiting.join(", "));
    }
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("state_dir", old.state_dir != new.state_dir),
        ("cache_dir", old.cache_dir != new.cache_dir),
        ("compiler", old.compiler != new.compiler),
        ("nvml", old.nvml != new.nvml),
        ("kmsg", old.kmsg != new.kmsg),
        ("worker", old.worker != new.worker),
        ("compile", old.compile != new.compile),
        ("actions", old.actions != new.actions),
        ("node", old.node != new.node),
        ("http", old.http != new.http),
        ("uplink", old.uplink != new.uplink),
        ("spool", old.spool != new.spool),
        ("log.format", old.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
