//! `picket-agent`: parses its arguments, reads its configuration, runs the daemon or one of the small commands.
//!
//! Exit codes: 0 well; 1 failed; 2 wrong arguments; 3 `check-config` alone: the agent would start, but refuse a plugin;
//! 78 the configuration is not valid (`EX_CONFIG`: a restart won't help).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use picket_agent::app::{self, App, Output, bundle};
use picket_agent::clock::{self, Clock as _};
use picket_agent::config::{self, Config, ConfigError, Sources};
use picket_agent::detect::drop_in;
use picket_agent::schedule::Wish;
use picket_agent::watch::{self, Wished};
use picket_agent::{client, detect, identity, logs};

const FAILED: u8 = 1;
const WRONG: u8 = 2;
const PLUGIN_REFUSED: u8 = 3;
const CONFIG: u8 = 78;
/// Collecting is little work; two threads let one plugin compute while another's turn comes.
const WORKERS: usize = 2;
/// How long a version may take to be compiled and tried.
const WISH_WITHIN: Duration = Duration::from_secs(150);
const BLOCKING: usize = 8;

#[derive(Parser)]
#[command(name = "picket-agent", version, about = "Collects a node's metrics with sandboxed plugins")]
struct Cli {
    /// The main configuration file; conf.d/*.toml beside it is read too
    #[arg(long, short, global = true, default_value = config::DEFAULT_FILE, value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent (the default)
    Run,
    /// Check the configuration and its plugins, and print it as it is in force, defaults included
    CheckConfig {
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Look at the node and print the configuration that fits it
    Detect {
        /// Write it to conf.d/50-detected.toml beside the configuration instead, and what it needs to a drop-in of the unit
        #[arg(long)]
        write: bool,
    },
    /// Get this node's certificate from the aggregator with a one-time token
    Enroll(Enroll),
    /// Gather what a bug report needs, without secrets, into one file that you can look through and send
    SupportBundle(bundle::command::Arguments),
    /// Run one plugin for its author, without a configuration; `picket plugin run` is the way in
    #[command(hide = true)]
    PluginRun(app::author::Arguments),
    /// Show the plugins of the agent that runs on this node
    Plugins {
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
        #[command(subcommand)]
        command: Option<PluginsCommand>,
    },
}

#[derive(Subcommand)]
enum PluginsCommand {
    /// Run the version of a plugin that ran before this one, until another file lies in the plugin folder
    Rollback { plugin: String },
    /// Try a quarantined plugin again
    Release { plugin: String },
}

#[derive(Args)]
struct Enroll {
    /// What `picket token create` printed
    #[arg(long, required_unless_present = "token_file")]
    token: Option<String>,
    /// A file that holds the token, in place of --token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The name that this node takes, with a token for a batch of nodes; the machine's where not said
    #[arg(long)]
    node: Option<String>,
    /// Where the aggregator is reached from here, HOST:PORT, instead of the token's addresses
    #[arg(long)]
    aggregator: Option<String>,
    /// Do nothing where this node is enrolled and its certificate holds: for what runs at every start
    #[arg(long)]
    if_needed: bool,
    /// Make the state folder this user's and group's, by number, for an agent that does not run as root
    #[arg(long, value_name = "USER:GROUP")]
    owner: Option<identity::Owner>,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn main() -> ExitCode {
    picket_agent_host::one_heap();
    let kept = picket_agent_host::keep_from_children();
    let cli = Cli::parse();
    if let Err(error) = kept {
        eprintln!("what was open at the start can't be kept from programs that are started: {error}");
    }
    if let Some(Command::PluginRun(arguments)) = &cli.command {
        return author(arguments);
    }
    let sources = Sources { file: cli.config, environment: config::variables() };
    if let Some(Command::SupportBundle(arguments)) = &cli.command {
        return support_bundle(arguments, sources);
    }
    let config = match config::load(&sources) {
        Ok(config) => config,
        Err(error) => return invalid(&error),
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = match cli.command.unwrap_or(Command::Run) {
        Command::Run => runtime.block_on(run(config, sources)),
        Command::CheckConfig { output } => return check_config(&config, output),
        Command::Detect { write } => runtime.block_on(look(&config, &sources, write)),
        Command::Enroll(arguments) => runtime.block_on(enroll(config, arguments)),
        Command::PluginRun(_) | Command::SupportBundle(_) => return ExitCode::SUCCESS,
        Command::Plugins { output, command: None } => runtime.block_on(plugins(config, output)),
        Command::Plugins { command: Some(command), .. } => runtime.block_on(wish(config, command)),
    };
    ended.map_or_else(|error| failed(&error), |()| ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
}

/// No configuration is read: an author's machine has none.
fn author(arguments: &app::author::Arguments) -> ExitCode {
    let log = config::Log { level: "warn,plugin=info".to_owned(), format: config::LogFormat::Text };
    let ended = logs::init(&log)
        .map_err(anyhow::Error::from)
        .and_then(|_log| runtime()?.block_on(app::author::run(arguments)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(PLUGIN_REFUSED),
        Err(error) => failed(&error),
    }
}

/// A configuration that is not valid is what it reports, not why it fails.
fn support_bundle(arguments: &bundle::command::Arguments, sources: Sources) -> ExitCode {
    if let Some(why) = arguments.refusal() {
        eprintln!("picket-agent: {why}");
        return ExitCode::from(WRONG);
    }
    let ended = runtime().map_err(anyhow::Error::from).and_then(|runtime| {
        let ended = runtime.block_on(bundle::command::run(arguments, sources));
        // A reading that hangs must not keep the command.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => failed(&error),
    }
}

async fn run(config: Config, sources: Sources) -> anyhow::Result<()> {
    let logs = logs::init(&config.log)?;
    App::build(config, sources, logs).await?.run().await;
    Ok(())
}

fn check_config(config: &Config, output: Output) -> ExitCode {
    let text = match output {
        Output::Text => toml::to_string_pretty(config).map_err(anyhow::Error::from),
        Output::Json => serde_json::to_string_pretty(config).map_err(anyhow::Error::from),
    };
    match text {
        Ok(text) => println!("{}", text.trim_end()),
        Err(error) => return failed(&error),
    }
    let refused = app::refused_plugins(config);
    for error in &refused {
        eprintln!("picket-agent: this plugin would be refused, the agent would run without it: {error}");
    }
    match app::wall(config) {
        Ok(wall) => {
            for standing in wall.parts.iter().filter(|standing| !standing.up) {
                eprintln!("picket-agent: the plugins' second wall would be without {standing}");
            }
        }
        Err(why) => {
            eprintln!("picket-agent: it would not start: {why}");
            return ExitCode::from(FAILED);
        }
    }
    if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(PLUGIN_REFUSED) }
}

async fn look(config: &Config, sources: &Sources, write: bool) -> anyhow::Result<()> {
    let text = detect::run(config, &detect::Machine::default()).await;
    if !write {
        print!("{text}");
        return Ok(());
    }
    let target = detect::target(&sources.file);
    place(&target, &text)?;
    eprintln!(
        "{} is written; look through it, then `picket-agent check-config` and reload the agent",
        target.display()
    );
    open_the_unit(sources)
}

/// What the plugins that are granted something now need of systemd, where the packages' unit runs the agent.
fn open_the_unit(sources: &Sources) -> anyhow::Result<()> {
    let root = Path::new("/");
    let Some(target) = drop_in::target(&sources.file, root) else { return Ok(()) };
    match drop_in::text(&config::load(sources)?, root) {
        Some(text) => place(&target, &text)?,
        // An older one says more than is needed.
        None if target.exists() => place(&target, "# Nothing beyond the unit is needed.\n")?,
        None => return Ok(()),
    }
    eprintln!(
        "{} opens the unit for them; look through it, then `systemctl daemon-reload` and restart the agent",
        target.display()
    );
    Ok(())
}

fn place(target: &Path, text: &str) -> anyhow::Result<()> {
    let copy =
        detect::write(target, text).with_context(|| format!("{} cannot be written", target.display()))?;
    if let Some(copy) = copy {
        eprintln!("what {} held before is kept in {}", target.display(), copy.display());
    }
    Ok(())
}

async fn enroll(config: Config, arguments: Enroll) -> anyhow::Result<()> {
    let Enroll { token, token_file, node, aggregator, if_needed, owner, output } = arguments;
    let state_dir = config.state_dir;
    if let Some(owner) = owner {
        owner.take(&state_dir)?;
    }
    let holding = if if_needed { identity::holding(&state_dir) } else { None };
    let (node, new) = match holding {
        Some(node) => (node, false),
        None => {
            let token = match (token, token_file) {
                (Some(token), _) => token,
                (None, Some(file)) => std::fs::read_to_string(&file)
                    .with_context(|| format!("the token in {} cannot be read", file.display()))?
                    .trim()
                    .to_owned(),
                (None, None) => anyhow::bail!("say --token TOKEN or --token-file FILE"),
            };
            let aggregator = aggregator.or(config.uplink.aggregator);
            let options = identity::EnrollOptions { token, aggregator, node, state_dir: state_dir.clone() };
            (identity::enroll(options).await?, true)
        }
    };
    match output {
        Output::Text => {
            let how = if new { "enrolled" } else { "enrolled already" };
            println!("{how} as {node}; the identity is in {}", state_dir.join("identity").display());
        }
        Output::Json => {
            println!("{}", serde_json::json!({ "node": node, "new": new, "state_dir": state_dir }))
        }
    }
    Ok(())
}

async fn plugins(config: Config, output: Output) -> anyhow::Result<()> {
    let answer = client::get(config.http.listen, "/api/v1/plugins").await?;
    match output {
        Output::Text => print!("{}", client::plugin_table(&answer, clock::SystemClock::new().wall_ms())),
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
    }
    Ok(())
}

/// By way of the state folder: who may write there may change what runs.
async fn wish(config: Config, command: PluginsCommand) -> anyhow::Result<()> {
    let (plugin, wish) = match command {
        PluginsCommand::Rollback { plugin } => (plugin, Wish::RollBack),
        PluginsCommand::Release { plugin } => (plugin, Wish::Release),
    };
    let answer = watch::ask(&config.state_dir, &Wished { plugin, wish }, WISH_WITHIN).await;
    println!("{}", answer.map_err(anyhow::Error::msg)?);
    Ok(())
}

fn invalid(error: &ConfigError) -> ExitCode {
    eprintln!("picket-agent: {error}");
    ExitCode::from(CONFIG)
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("picket-agent: {error:#}");
    ExitCode::from(FAILED)
}

#[cfg(test)]
#[path = "../../tests/pages/check.rs"]
mod pages;

#[cfg(test)]
mod tests {
    #[test]
    fn pages() {
        super::pages::check(<super::Cli as clap::CommandFactory>::command());
    }
}
