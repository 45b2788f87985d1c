//! `picket plugin`: what a plugin file is, who vouches for it, what it wants, and its way to a registry. Works without an
//! aggregator; but for the rollout to the fleet, which is the aggregator's.

mod author;
mod file;
mod grants;
mod inspect;
mod registry;
mod rollout;
mod signing;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::Error;
use crate::api::Client;
use crate::arguments::Output;
use registry::RegistryArguments;
use rollout::RolloutArguments;

pub use author::AuthorError;
pub use file::FileError;
pub use registry::RegistryError;
pub use signing::SigningError;

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    #[command(flatten)]
    Author(author::AuthorCommand),
    /// Print the lines of the agent's configuration that grant what a plugin needs, each with its reason.
    Grants {
        file: PathBuf,
        /// The plugin's name in the configuration; the manifest's id where not said.
        #[arg(long = "as", value_name = "ID")]
        name: Option<String>,
    },
    /// Show what a plugin file is: manifest, needs, imports, digest, signatures (which are not verified by this).
    Inspect { file: PathBuf },
    /// Make a pair of keys: NAME.key, which signs and is a secret, and NAME.pub, for policies.
    Keygen { name: PathBuf },
    /// Get a plugin, and what vouches for it, from an OCI registry.
    Pull {
        /// HOST/REPOSITORY:TAG, or HOST/REPOSITORY@sha256:DIGEST for exactly that one.
        reference: String,
        /// Where to write it.
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        into: PathBuf,
        #[command(flatten)]
        registry: RegistryArguments,
    },
    /// Put a plugin, and what vouches for it, into an OCI registry; prints the reference with its digest.
    Push {
        file: PathBuf,
        /// HOST/REPOSITORY:TAG
        reference: String,
        #[command(flatten)]
        registry: RegistryArguments,
    },
    /// Let the nodes that have a plugin go on with its rollout, those that failed among them.
    Resume { name: String },
    /// Bring a plugin onto the fleet, stage by stage.
    Rollout(RolloutArguments),
    /// Have all nodes that a plugin was rolled out to run what they ran before.
    Rollback { name: String },
    /// Tell no more nodes of a plugin's rollout.
    Pause {
        name: String,
        #[arg(long)]
        reason: Option<String>,
    },
    /// How rollouts go; of one plugin, node by node.
    Status { name: Option<String> },
    /// Sign a plugin: writes FILE.sig, or adds a signature to it.
    Sign {
        file: PathBuf,
        /// The private key, PEM (PKCS#8, ed25519).
        #[arg(long)]
        key: PathBuf,
    },
    /// Hold a plugin, with what lies beside it, against a policy or a key; fails where it is not trusted.
    Verify(VerifyArguments),
}

#[derive(Debug, Args)]
pub struct VerifyArguments {
    pub file: PathBuf,
    /// A policy, as nodes have it.
    #[arg(long, conflicts_with = "key", required_unless_present = "key")]
    pub policy: Option<PathBuf>,
    /// A public key, PEM, that must have signed it.
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// The plugin's name in the node's configuration, where it is not the manifest's id.
    #[arg(long = "as", value_name = "ID")]
    pub name: Option<String>,
}

impl PluginCommand {
    /// It is the aggregator's to do.
    pub fn is_of_the_fleet(&self) -> bool {
        matches!(
            self,
            Self::Resume { .. }
                | Self::Rollout(_)
                | Self::Rollback { .. }
                | Self::Pause { .. }
                | Self::Status { .. }
        )
    }
}

/// What the aggregator is asked to do.
pub async fn run_on_fleet(client: &Client, output: Output, command: &PluginCommand) -> Result<(), Error> {
    match command {
        PluginCommand::Rollout(wish) => rollout::start(client, output, wish).await,
        PluginCommand::Status { name } => rollout::status(client, output, name.as_deref()).await,
        PluginCommand::Resume { name } => rollout::change(client, output, name, "resume", None).await,
        PluginCommand::Rollback { name } => rollout::change(client, output, name, "rollback", None).await,
        PluginCommand::Pause { name, reason } => {
            rollout::change(client, output, name, "pause", reason.as_deref()).await
        }
        _ => run(output, command).await,
    }
}

pub async fn run(output: Output, command: &PluginCommand) -> Result<(), Error> {
    match command {
        PluginCommand::Author(command) => author::run(output, command).await,
        PluginCommand::Grants { file, name } => grants::print(output, file, name.as_deref()),
        PluginCommand::Inspect { file } => inspect::show(output, file),
        PluginCommand::Keygen { name } => signing::keygen(output, name),
        PluginCommand::Pull { reference, into, registry } => {
            registry::pull(output, reference, into, registry).await
        }
        PluginCommand::Push { file, reference, registry } => {
            registry::push(output, file, reference, registry).await
        }
        PluginCommand::Sign { file, key } => signing::sign(output, file, key),
        PluginCommand::Verify(arguments) => signing::verify(output, arguments),
        PluginCommand::Resume { .. }
        | PluginCommand::Rollout(_)
        | PluginCommand::Rollback { .. }
        | PluginCommand::Pause { .. }
        | PluginCommand::Status { .. } => Err(Error::Usage("this needs an aggregator: say --url")),
    }
}
