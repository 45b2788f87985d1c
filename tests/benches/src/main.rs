//! `cargo xtask bench`: measures Picket against named peers in the same run, pinned to one core.
//!
//! CPU is user and system time of the server process alone; the load comes from another core.

mod fleet;
mod machine;
mod node;
mod precise;
mod process;
mod remote_write;
mod report;
mod rows;
mod setup;
mod shape;
mod trend;
mod usage;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::setup::Places;

const ROWS: [&str; 11] =
    ["agent", "server", "ingest", "wire", "exposition", "streams", "tax", "flat", "sources", "parse", "soak"];

#[derive(Parser)]
struct Args {
    /// Rows to measure; all of them but `flat`, `sources`, `parse` and `soak` when none is named.
    rows: Vec<String>,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Runs a figure; the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Smaller sizes, to see that it works: the figures are not for publishing.
    #[arg(long)]
    quick: bool,
    /// Of `ingest` (agents), `exposition` (series) and `streams` (connections) these sizes alone.
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Measures ours alone.
    #[arg(long)]
    no_peers: bool,
    /// Collections of a run of the row `wire`, 15 seconds each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    collections: u32,
    /// How long the rows `flat` and `sources` take.
    #[arg(long, default_value_t = 60)]
    minutes: u32,
    /// How often each plugin of the row `flat` collects; what leaks a little at each collect shows sooner when it is short.
    #[arg(long, default_value = "5s")]
    interval: String,
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    #[arg(long, default_value = "target/small/picket-agent")]
    agent: PathBuf,
    #[arg(long, default_value = "target/plugins")]
    plugins: PathBuf,
    #[arg(long, default_value = "target/parts")]
    parts: PathBuf,
    #[command(flatten)]
    soak: rows::soak::Soak,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Some(unknown) = args.rows.iter().find(|r| !ROWS.contains(&r.as_str())) {
        bail!("no row {unknown:?}; there are {}", ROWS.join(", "));
    }
    let places = Places {
        binaries: args.binaries,
        agent: args.agent,
        plugins: args.plugins,
        parts: (!args.no_peers).then_some(args.parts),
    };
    let sizes = |all: &[usize]| match args.sizes.as_slice() {
        [] => all.to_vec(),
        some => some.to_vec(),
    };
    let wanted = |row: &str| args.rows.is_empty() || args.rows.iter().any(|r| r == row);
    let mut figures = Vec::new();
    if wanted("agent") {
        figures.extend(rows::agent::measure(&places, args.runs, args.quick).await?);
    }
    if wanted("server") {
        figures.extend(rows::server::measure(&places, args.runs, args.quick).await?);
    }
    if wanted("ingest") {
        figures.extend(rows::ingest::measure(&places, &sizes(&[1, 100, 1000]), args.runs, args.quick).await?);
    }
    if wanted("wire") {
        figures.extend(rows::wire::measure(&places, args.runs, args.collections, args.quick).await?);
    }
    if wanted("exposition") {
        let exposed = sizes(if args.quick { &[10_000, 100_000] } else { &[10_000, 100_000, 1_000_000] });
        figures.extend(rows::exposition::measure(&places, &exposed, args.runs).await?);
    }
    if wanted("streams") {
        let connections = sizes(if args.quick { &[500] } else { &[10_000] });
        figures.extend(rows::streams::measure(&places, &connections, args.runs).await?);
    }
    if wanted("tax") {
        figures.extend(rows::tax::measure(&places, args.runs, args.quick)?);
    }
    let named = |row: &str| args.rows.iter().any(|r| r == row);
    if named("sources") {
        figures.extend(rows::sources::measure(&places, args.minutes).await?);
    }
    if named("parse") {
        figures.extend(rows::parse::measure(&places, args.runs, args.quick).await?);
    }
    if named("flat") {
        figures.extend(rows::flat::measure(&places, args.minutes, &args.interval).await?);
    }
    let mut well = true;
    if named("soak") {
        let (more, recovered) = rows::soak::measure(&places.binaries, &places.plugins, &args.soak).await?;
        figures.extend(more);
        well = recovered;
    }
    print!("{}", report::table(&figures));
    if let Some(path) = args.json {
        std::fs::write(&path, serde_json::to_vec_pretty(&figures)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    ensure!(
        well,
        "the soak failed: its table of faults says which recovery, its figures whether records were lost"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds() {
        super::Args::command().debug_assert();
    }
}
