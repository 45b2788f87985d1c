//! `picket`: what an operator types. It talks to an aggregator's public HTTP API and to nothing else.
//!
//! Standard output is data, standard error is talk. Exit codes: 0 done, 1 failed, 2 wrong arguments.

mod action;
mod api;
mod arguments;
mod audit;
mod commands;
mod config;
mod output;
mod plugin;
mod top;

use std::process::ExitCode;

use clap::Parser as _;

use api::Client;
use arguments::{Arguments, Command, NodeCommand};
use audit::AuditCommand;
use config::Connection;

/// Why a command failed; each says what to do.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    #[error(transparent)]
    Api(#[from] api::ApiError),
    #[error(transparent)]
    Enroll(#[from] commands::enroll::EnrollError),
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("cannot write the answer: {0}")]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Author(#[from] plugin::AuthorError),
    #[error(transparent)]
    File(#[from] plugin::FileError),
    #[error(transparent)]
    Signing(#[from] plugin::SigningError),
    #[error(transparent)]
    Registry(#[from] plugin::RegistryError),
    #[error("{0}")]
    Usage(&'static str),
    #[error(transparent)]
    Audit(#[from] audit::Broken),
    #[error("nothing was rolled out as {0}; see `picket plugin status`")]
    NoRollout(String),
    #[error("the action ended as {0}: {1}")]
    Action(String, String),
    #[error("the aggregator is not ready: {0}")]
    NotReady(String),
}

fn main() -> ExitCode {
    let result = match arguments::enroll_arguments(std::env::args_os()) {
        Some(line) => Err(commands::enroll::run(&line).into()),
        None => run(Arguments::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us (`head`) has enough.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("picket: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    if let Command::Enroll { .. } = arguments.command {
        return Err(Error::Usage("write `picket enroll` first and the agent's arguments after it"));
    }
    if let Command::Audit { command: AuditCommand::Verify { file: Some(file), head } } = &arguments.command {
        return audit::verify_file(arguments.output, file, head.as_deref());
    }
    if let Command::Plugin { command } = &arguments.command
        && !command.is_of_the_fleet()
    {
        let runtime = runtime()?;
        return runtime.block_on(plugin::run(arguments.output, command));
    }
    let connection = Connection::resolve(&arguments.connection)?;
    let runtime = runtime()?;
    let client = Client::new(&connection)?;
    let output = arguments.output;
    runtime.block_on(async {
        match arguments.command {
            Command::Nodes { plugins, outdated } => {
                commands::nodes::list(&client, output, plugins, outdated).await
            }
            Command::Node { command } => match command {
                NodeCommand::Show { node } => commands::nodes::show(&client, output, &node).await,
                NodeCommand::Revoke { node } => commands::nodes::revoke(&client, output, &node).await,
                NodeCommand::Readmit { node } => commands::nodes::readmit(&client, output, &node).await,
                NodeCommand::Scenario(wish) => commands::nodes::scenario(&client, output, &wish).await,
            },
            Command::Top { once, interval } => top::run(client, output, once, interval).await,
            Command::Events(wish) => commands::events::list(&client, output, &wish).await,
            Command::Logs(wish) => commands::logs::run(&client, output, &wish).await,
            Command::Token { command } => commands::tokens::run(&client, output, command).await,
            Command::Metrics { own, selectors } => commands::metrics::print(&client, own, &selectors).await,
            Command::Action { command } => action::run(&client, output, command).await,
            Command::Audit { command } => audit::run(&client, output, command).await,
            Command::Status => commands::status::show(&client, output).await,
            Command::Plugin { command } => plugin::run_on_fleet(&client, output, &command).await,
            Command::Enroll { .. } => Ok(()),
        }
    })
}

/// The runtime of what asks over the network, and the one TLS provider.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    // Fails only where another provider was installed before, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(Error::Runtime)
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
