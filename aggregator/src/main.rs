//! `picket-aggregator`: what it can be told, and how it ends.
//!
//! Exit codes: 0 done, 1 failed while it ran, 2 wrong arguments, 78 (EX_CONFIG) the configuration or the state folder
//! does not let it start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use picket_aggregator::app::{self, App, AppError};
use picket_aggregator::clock::Clock;
use picket_aggregator::config::Config;
use picket_aggregator::identity::Role;
use picket_aggregator::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const EX_CONFIG: u8 = 78;

#[derive(Parser)]
#[command(name = "picket-aggregator", version, about = "Ends a fleet's uplinks and exports its metrics.")]
struct Arguments {
    /// The configuration file; without one, the defaults and the environment.
    #[arg(long, short, global = true, value_name = "FILE", env = "PICKET_AGGREGATOR_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (what it does without a command).
    Run,
    /// Make a CA and an admin's API token in the state folder. Never overwrites.
    Init {
        /// Do nothing where that was done before: for what runs at every start.
        #[arg(long)]
        if_needed: bool,
    },
    /// Read the configuration and say what it would do.
    CheckConfig,
    /// Make an API token in the state folder, whether the aggregator runs or not.
    Token {
        #[arg(long, default_value = "admin")]
        role: Role,
        /// What the token is called in lists.
        #[arg(long)]
        name: String,
        /// How long it is good, as 12h or 30d; for ever without.
        #[arg(long, value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let path = arguments.config.as_deref();
    let result = Config::load(path).map_err(AppError::from).and_then(|config| match arguments.command {
        None | Some(Command::Run) => run(config, path),
        Some(Command::Init { if_needed }) => init(&config, if_needed),
        Some(Command::CheckConfig) => {
            print!("{}", config.summary());
            Ok(())
        }
        Some(Command::Token { role, name, ttl }) => {
            let made = app::create_token(&config, &Clock::system(), &name, role, ttl)?;
            println!("{}", made.text);
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picket-aggregator: {error}");
            match error {
                AppError::Listen { .. } | AppError::File { .. } => ExitCode::FAILURE,
                _ => ExitCode::from(EX_CONFIG),
            }
        }
    }
}

fn run(config: Config, path: Option<&Path>) -> Result<(), AppError> {
    let level = telemetry::logging(&config.log)?;
    let metrics = telemetry::metrics()?;
    // For the client that forwards logs. Fails only where another provider was installed before, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| AppError::File { what: "start threads for", path: "the runtime".into(), source })?;
    runtime.block_on(async {
        let app = App::build(config, Clock::system(), metrics).await?;
        let stop = CancellationToken::new();
        let reload = Arc::new(Notify::new());
        signals(&stop, &reload, path.map(Path::to_owned), level).map_err(|source| AppError::File {
            what: "listen to",
            path: "signals".into(),
            source,
        })?;
        notify(&[sd_notify::NotifyState::Ready]);
        app.run(stop, reload).await;
        Ok(())
    })
}

/// SIGTERM and SIGINT stop it; SIGHUP reads log level and certificates again.
fn signals(
    stop: &CancellationToken,
    reload: &Arc<Notify>,
    path: Option<PathBuf>,
    level: telemetry::LogLevel,
) -> std::io::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hup = signal(SignalKind::hangup())?;
    let (stop, reload) = (stop.clone(), Arc::clone(reload));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = term.recv() => break,
                _ = int.recv() => break,
                _ = hup.recv() => {
                    let since = sd_notify::NotifyState::monotonic_usec_now().ok();
                    notify(&[Some(sd_notify::NotifyState::Reloading), since].into_iter().flatten().collect::<Vec<_>>());
                    app::reload_log_level(path.as_deref(), &level);
                    reload.notify_one();
                    notify(&[sd_notify::NotifyState::Ready]);
                }
            }
        }
        notify(&[sd_notify::NotifyState::Stopping]);
        stop.cancel();
    });
    Ok(())
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

fn init(config: &Config, if_needed: bool) -> Result<(), AppError> {
    let made = match app::init(config, &Clock::system()) {
        Err(AppError::Initialised(token)) if if_needed => {
            eprintln!("{} is there: nothing to do", token.display());
            return Ok(());
        }
        made => made?,
    };
    if let Some((path, fingerprint)) = made.authority {
        println!("CA certificate     {}", path.display());
        println!("CA fingerprint     {fingerprint}");
    }
    println!("admin's API token  {}", made.admin_token.display());
    eprintln!("Next: start `picket-aggregator run`, then `picket token create --node NAME` for each node.");
    Ok(())
}

#[cfg(test)]
#[path = "../../tests/pages/check.rs"]
mod pages;

#[cfg(test)]
mod tests {
    #[test]
    fn pages() {
        super::pages::check(<super::Arguments as clap::CommandFactory>::command());
    }
}
