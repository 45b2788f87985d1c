//! `picket plugin new|build|check|run|test`: from nothing to a plugin file.
//!
//! What a template needs of Picket (the contract's WIT, the SDK of its language) is part of this program, so that a new plugin
//! builds without a network once its language's own tool is installed. That tool makes the component; what is
//! Picket's is done here: the world is cut down to what the manifest needs, the manifest is put in, the result is looked at.
//!
//! No WebAssembly engine is linked: `check`, `run` and `test` start `picket-agent plugin-run`, the node's own host in the node's
//! own worker, so what an author sees here is what a node will do.

mod build;
mod contract;
mod project;
mod template;
mod tests;
mod trial;
mod world;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use picket_artifact::{EmbedError, ManifestError};
use picket_proto::model::InvalidName;

use crate::Error;
use crate::arguments::Output;
use crate::output;
use project::Project;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Language {
    Rust,
    Python,
    #[value(alias = "js")]
    Javascript,
    C,
}

#[derive(Debug, Subcommand)]
pub enum AuthorCommand {
    /// Begin a plugin: a folder with a manifest, a metric that works, its tests, and all that it builds with.
    New {
        /// Small letters, digits and dashes: `my-thing`.
        name: String,
        #[arg(long, short, value_enum)]
        language: Language,
        /// Where its folder is made.
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        into: PathBuf,
    },
    /// Build the plugin of a folder into one file, manifest included.
    Build {
        /// The plugin's folder.
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Say everything for which a node would refuse a plugin, and what to do about it.
    Check(TrialArguments),
    /// Run a plugin here, as a node would, and print what it reads.
    Run {
        #[command(flatten)]
        trial: TrialArguments,
        /// Grant what its manifest asks for (look at it first: it is printed without this).
        #[arg(long)]
        grant_needs: bool,
        /// Read so many times; without it until Ctrl-C.
        #[arg(long, short = 'n', value_name = "TIMES")]
        collects: Option<u32>,
        /// Time between two readings.
        #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
        interval: Duration,
    },
    /// Build a plugin, run its own tests, then hold it to the contract in the node's own host.
    Test {
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The `picket-agent` program, where it is neither beside this one nor on PATH.
        #[arg(long, value_name = "FILE")]
        agent: Option<PathBuf>,
    },
}

/// What is tried out, and with what.
#[derive(Debug, Args)]
pub struct TrialArguments {
    /// A built plugin, or its folder.
    #[arg(default_value = ".")]
    pub plugin: PathBuf,
    /// What its section in the agent's configuration would say: [settings], [[grants]], [limits].
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// Where the value of a secret that its manifest names stands.
    #[arg(long = "secret", value_name = "NAME=FILE")]
    pub secrets: Vec<String>,
    /// The `picket-agent` program, where it is neither beside this one nor on PATH.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
}

/// Why there is no plugin yet; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorError {
    #[error("{name:?} is no name for a plugin: {why}")]
    Name { name: String, why: String },
    #[error(transparent)]
    Id(#[from] InvalidName),
    #[error("{} is there already: choose another name, or another place with --into", .0.display())]
    Exists(PathBuf),
    #[error("{} has no plugin.toml: run this in a plugin's folder, or begin one with `picket plugin new`", .0.display())]
    NoProject(PathBuf),
    #[error("{} has none of Cargo.toml, plugin.py, plugin.js and plugin.c: what language is it in?", .0.display())]
    NoLanguage(PathBuf),
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{} is not valid: {source}", .path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{tool} is missing. {install}")]
    Missing { tool: String, install: String },
    #[error("{tool} cannot be started: {source}")]
    Start { tool: String, source: std::io::Error },
    #[error("{tool} ended with {status}: see above")]
    Tool { tool: String, status: std::process::ExitStatus },
    #[error("{} is not valid: {source}", .path.display())]
    Expectations { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "plugin.toml says world = {world:?}, which {why}; it is picket:source/source-plugin@VERSION, \
         picket:source/controllable-source-plugin@VERSION or picket:action/action-plugin@VERSION"
    )]
    World { world: String, why: &'static str },
    #[error("the contract in {} cannot be used: {why}", .path.display())]
    Wit { path: PathBuf, why: String },
    #[error("no component can be made of it: {0}")]
    Component(String),
    #[error("the manifest cannot be put in: {0}")]
    Embed(#[from] EmbedError),
    #[error("it is not built yet: {} is missing; run `picket plugin build`", .0.display())]
    NotBuilt(PathBuf),
    #[error(
        "nothing is granted yet. The lines above are what it asks for: say --grant-needs to grant exactly that here, or give \
         grants of your own with --with FILE"
    )]
    NothingGranted,
    #[error("picket-agent gave an answer that this program does not know: are the two of one version?")]
    Answer,
    #[error("a node would refuse it")]
    Refused,
    #[error("it does not hold to the contract: {0} of the points above")]
    Contract(usize),
}

pub async fn run(format: Output, command: &AuthorCommand) -> Result<(), Error> {
    match command {
        AuthorCommand::New { name, language, into } => {
            let folder = template::write(name, *language, into)?;
            if format == Output::Json {
                output::json(&serde_json::json!({ "folder": folder, "language": language.word() }))?;
            } else {
                output::line(folder.display())?;
                eprintln!("{}", template::next_steps(&folder, *language));
            }
            Ok(())
        }
        AuthorCommand::Build { folder } => {
            let built = build::build(&Project::open(folder)?)?;
            if format == Output::Json {
                let told =
                    serde_json::json!({ "file": built.file, "bytes": built.bytes, "digest": built.digest });
                return Ok(output::json(&told)?);
            }
            eprintln!("{} bytes, {}", built.bytes, built.digest);
            Ok(output::line(built.file.display())?)
        }
        AuthorCommand::Check(trial) => contract::check(format, trial).await,
        AuthorCommand::Run { trial, grant_needs, collects, interval } => {
            trial::run(format, trial, *grant_needs, *collects, *interval).await
        }
        AuthorCommand::Test { folder, agent } => {
            let project = Project::open(folder)?;
            let built = build::build(&project)?;
            tests::run_own(&project)?;
            contract::test(format, &project, &built.file, agent.as_deref()).await
        }
    }
}

impl Language {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::C => "c",
        }
    }

    /// What installs, in the plugin's folder, what makes WebAssembly of it.
    const fn install(self) -> &'static str {
        match self {
            Self::Rust => "rustup target add wasm32-unknown-unknown",
            Self::Python => "python3 -m venv .venv && .venv/bin/pip install componentize-py==0.25.1",
            Self::Javascript => "npm install",
            Self::C => "apt install clang lld wasi-libc libclang-rt-dev-wasm32",
        }
    }
}
