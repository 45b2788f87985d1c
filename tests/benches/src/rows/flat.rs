//! Whether the agent's memory stays as it is: five plugins every five seconds, or more often, and an aggregator that takes
//! it all, its resident bytes read each minute.
//!
//! The first reading is after two minutes, when all has been touched. What CPU is left doesn't matter here, so that this
//! may run beside other work; it is measured only when it is asked for by name.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::report::Figure;
use crate::rows::agent::{agent, join};
use crate::setup::{Aggregator, Places};
use crate::trend::slope;

const ROW: &str = "flat";
const MINUTE: Duration = Duration::from_secs(60);

pub async fn measure(places: &Places, minutes: u32, interval: &str) -> Result<Vec<Figure>> {
    eprintln!("flat: {minutes} minutes, a collect each {interval}");
    let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
    let dir_path = std::fs::canonicalize(dir.path())?;
    let aggregator = Aggregator::start(places).await?;
    join(&aggregator, &dir_path, "flat-node")?;
    let five = ["node", "mock", "node-a", "node-b", "node-c"];
    let (server, _) = agent(places, &dir_path, &five, interval).await?;
    tokio::time::sleep(MINUTE).await;
    let mut readings = Vec::new();
    for minute in 0..=minutes {
        tokio::time::sleep(MINUTE).await;
        let (resident, own) = (server.rss()? as f64, server.anonymous_rss()? as f64);
        eprintln!("flat: minute {minute}: {:.3} MB, {:.3} MB of it its own", resident / 1e6, own / 1e6);
        readings.push((resident, own));
    }
    let (first, last) = (readings.first().context("no minute")?, readings.last().context("no minute")?);
    let slope = |pick: fn(&(f64, f64)) -> f64| 60.0 * slope(readings.iter().map(pick)) / 1e3;
    let over = |what: &str| format!("{what}, {minutes} minutes");
    Ok(vec![
        Figure::new(ROW, over("RSS first"), "MB", false, &[first.0 / 1e6], None, None),
        Figure::new(ROW, over("RSS last"), "MB", false, &[last.0 / 1e6], None, Some(20.0)),
        Figure::new(ROW, over("RSS, fitted line"), "KB an hour", false, &[slope(|r| r.0)], None, None),
        Figure::new(ROW, over("anonymous, fitted line"), "KB an hour", false, &[slope(|r| r.1)], None, None),
    ])
}
