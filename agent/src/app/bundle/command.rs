//! The command: shows the list, asks, makes the file.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::{Bundle, Options, archive};
use crate::app::Output;
use crate::config::Sources;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to write it; picket-support-NODE-TIME.tar.gz in the current folder where not said
    #[arg(long, value_name = "FILE.tar.gz")]
    output_file: Option<PathBuf>,
    /// Show what would be in it, and write nothing
    #[arg(long, conflicts_with_all = ["yes", "output_file"])]
    list: bool,
    /// Write it without asking
    #[arg(long, short)]
    yes: bool,
    /// Put other names in the place of this node's, the aggregator's and of network addresses
    #[arg(long)]
    anonymous: bool,
    /// All of /metrics, in place of Picket's own metrics and the number of the others' series
    #[arg(long)]
    all_metrics: bool,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Arguments {
    /// Why this can't be done as it was asked for.
    pub fn refusal(&self) -> Option<&'static str> {
        let asks = !self.list && !self.yes;
        (asks && !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal())).then_some(
            "support-bundle shows what is in it and asks before it writes, and here is no terminal to ask on: look at it \
             with --list, then say --yes",
        )
    }
}

/// Gathers, shows, asks, writes. False: the person did not want it.
///
/// # Errors
/// The file is there already, or can't be written.
pub async fn run(arguments: &Arguments, sources: Sources) -> anyhow::Result<bool> {
    if let Some(target) = &arguments.output_file {
        // Told before the work and the question; what makes the file looks again.
        if target.symlink_metadata().is_ok() {
            bail!(
                "{} is there already, and nothing is overwritten: say another --output-file",
                target.display()
            );
        }
    }
    let options = Options { sources, anonymous: arguments.anonymous, all_metrics: arguments.all_metrics };
    let bundle = Bundle::gather(options).await;
    if arguments.list {
        match arguments.output {
            Output::Text => print!("{}", bundle.table()),
            Output::Json => println!(
                "{}",
                serde_json::to_string_pretty(&serde_json::json!({ "entries": bundle.entries }))?
            ),
        }
        hint(&bundle);
        return Ok(true);
    }
    eprint!("{}", bundle.table());
    hint(&bundle);
    let target = match &arguments.output_file {
        Some(target) => target.clone(),
        None => PathBuf::from(format!("{}.tar.gz", bundle.name)),
    };
    let bytes = bundle.pack().context("the archive cannot be made")?;
    if !arguments.yes && !agreed(&target, bytes.len())? {
        eprintln!("nothing is written");
        return Ok(false);
    }
    archive::write(&target, &bytes)
        .with_context(|| format!("{} cannot be made: name another with --output-file", target.display()))?;
    say(&target, &bundle, bytes.len(), arguments.output)?;
    Ok(true)
}

fn hint(bundle: &Bundle) {
    if bundle.lacks_rights() {
        eprintln!("some of it this user may not read: run it as root for all");
    }
}

fn agreed(target: &Path, bytes: usize) -> std::io::Result<bool> {
    let mut error = std::io::stderr().lock();
    write!(error, "Write {} ({bytes} bytes)? [y/N] ", target.display())?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn say(target: &Path, bundle: &Bundle, bytes: usize, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Text => {
            println!("{}", target.display());
            eprintln!("look through it before you send it: tar -xzf {}", target.display());
        }
        Output::Json => {
            let said = serde_json::json!({ "file": target, "bytes": bytes, "entries": bundle.entries });
            println!("{}", serde_json::to_string_pretty(&said)?);
        }
    }
    Ok(())
}
