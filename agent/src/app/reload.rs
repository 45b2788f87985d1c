//! SIGHUP: the configuration is read again; what is not valid changes nothing and is said.

use crate::config::{Config, Sources, load};
use crate::health::Health;
use crate::logs::LogHandle;
use crate::schedule::Schedule;

/// Takes over the plugins and the log level. What only a start can change is kept as it was, and named.
pub async fn reload(
    config: &mut Config,
    sources: &Sources,
    logs: &LogHandle,
    schedule: &Schedule,
    health: &Health,
) {
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
        ("http", old.http != new.http),
        ("uplink", old.uplink != new.uplink),
        ("spool", old.spool != new.spool),
        ("log.format", old.log.format != new.log.format),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect()
}
