//! Everything that is done with this repository but not shipped: `cargo xtask …`.
//!
//! It is the first thing that a new clone builds, so its dependencies are few and small. Nothing at run time
//! depends on it. Each command is a module; this file only names them.

mod bench;
mod build;
mod command;
mod demo;
mod deploy;
mod dist;
mod fuzz;
mod guests;
mod image;
mod parts;
mod plugins;
mod process;
mod setup;
mod soak;
mod system;
mod test;
mod tidy;
mod wit;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, try, test and measure Picket",
    disable_help_subcommand = true
)]
enum Command {
    /// Start an aggregator, this machine as a node and simulated GPU nodes, and watch them.
    Demo(demo::Args),
    /// Run all tests, the end-to-end ones with the real binaries and a real Prometheus among them.
    Test(test::Args),
    /// Measure against the peers and write docs/benchmarks.md.
    Bench(bench::Args),
    /// Build the first-party plugins into target/plugins.
    BuildPlugins(BuildPlugins),
    /// Build the plugins made for the end-to-end tests into target/guests.
    BuildGuests,
    /// Make container images, as OCI layouts, without a daemon.
    Image(image::Args),
    /// Check chart, manifests, Ansible role, cloud-init file, book and images with the tools that they are for.
    Deploy(deploy::Args),
    /// Make the packages: deb and rpm, with sums and a bill of materials.
    Dist(dist::Args),
    /// Send what no one should to everything that reads, for a stated time.
    Fuzz(fuzz::Args),
    /// Let a fleet live for hours under changing load and faults, and watch what grows.
    Soak(soak::Args),
    /// Check the rules of the house: dependencies, lints, contracts, words, changelog.
    Tidy,
    /// Compare, freeze and renumber the packages of the plugin contract.
    Wit(wit::Args),
    /// Bring the real servers that the tests use into target/parts; by name also large ones (litellm, vllm).
    Parts(parts::Args),
}

#[derive(clap::Args)]
struct BuildPlugins {
    /// Which ones; none: all.
    names: Vec<String>,
}

fn main() -> ExitCode {
    let command = Command::parse();
    let root = repository();
    let done = match command {
        Command::Demo(args) => demo::run(&root, &args),
        Command::Test(args) => test::run(&root, &args),
        Command::Bench(args) => bench::run(&root, &args),
        Command::BuildPlugins(args) => setup::check(&root).and_then(|()| {
            let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
            for file in plugins::build(&root, &names)? {
                println!("{}", file.display());
            }
            Ok(true)
        }),
        Command::BuildGuests => setup::check(&root)
            .and_then(|()| guests::build(&root))
            .and_then(|()| guests::build_hostile(&root))
            .map(|()| true),
        Command::Image(args) => image::run(&root, &args),
        Command::Deploy(args) => deploy::run(&root, &args),
        Command::Dist(args) => dist::run(&root, &args),
        Command::Fuzz(args) => fuzz::run(&root, &args),
        Command::Soak(args) => soak::run(&root, &args),
        Command::Wit(args) => wit::run(&root, &args),
        Command::Tidy => tidy::run(&root),
        Command::Parts(args) => parts::run(&root, &args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: the folder above this crate's.
fn repository() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder).to_owned()
}
