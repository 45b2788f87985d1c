//! `picket audit`: the aggregator's audit log, and whether its chain holds.
//!
//! It is checked here, from the lines themselves: the aggregator is not asked for its opinion.

use std::path::PathBuf;

use clap::Subcommand;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::Error;
use crate::api::Client;
use crate::arguments::Output;
use crate::output;

const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Entries of one request.
const PAGE: usize = 1000;

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the entries.
    Show {
        /// Of this node alone.
        #[arg(long)]
        node: Option<String>,
        /// About this alone: an action's id.
        #[arg(long)]
        subject: Option<String>,
        /// The last so many that fit.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Check that no entry was changed, taken out or put in; prints the last hash.
    Verify {
        /// A copy of the log instead: audit.log of the aggregator's state folder.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A hash that an earlier check printed: it must stand in the chain.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
    },
}

/// Why the log is not what it was.
#[derive(Debug, thiserror::Error)]
#[error("the audit log was changed by another hand: {0}")]
pub struct Broken(String);

pub async fn run(client: &Client, format: Output, command: AuditCommand) -> Result<(), Error> {
    match command {
        AuditCommand::Show { node, subject, limit } => {
            let lines = fetch(client).await?;
            show(format, &lines, node.as_deref(), subject.as_deref(), limit as usize)
        }
        AuditCommand::Verify { file: Some(file), head } => verify_file(format, &file, head.as_deref()),
        AuditCommand::Verify { file: None, head } => {
            let lines = fetch(client).await?;
            verified(format, check(lines.iter().map(String::as_str), head.as_deref()))
        }
    }
}

/// Checks a copy; needs no aggregator.
pub fn verify_file(format: Output, file: &std::path::Path, head: Option<&str>) -> Result<(), Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Broken(format!("{} cannot be read: {e}", file.display())))?;
    verified(format, check(text.lines(), head))
}

async fn fetch(client: &Client) -> Result<Vec<String>, Error> {
    let mut lines: Vec<String> = Vec::new();
    loop {
        let query = [("after", lines.len().to_string()), ("limit", PAGE.to_string())];
        let response = client.stream("/api/v1/audit", &query).await?;
        let text = response.text().await.map_err(|e| client.broken(&e))?;
        if text.is_empty() {
            return Ok(lines);
        }
        lines.extend(text.lines().map(str::to_owned));
    }
}

/// The number of entries and the last hash.
fn check<'a>(lines: impl Iterator<Item = &'a str>, head: Option<&str>) -> Result<(u64, String), Broken> {
    let (mut count, mut last) = (0u64, GENESIS.to_owned());
    let mut seen = head.is_none_or(|head| head == GENESIS);
    for line in lines {
        count += 1;
        let broken = |why: &str| Broken(format!("entry {count}: {why}"));
        let (hash, json) = line.split_once(' ').ok_or_else(|| broken("it is no entry"))?;
        let wanted: String = digest(&SHA256, format!("{last}\n{json}").as_bytes())
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        if hash != wanted {
            return Err(broken("its hash does not fit it and the entry before it"));
        }
        let entry: Value = serde_json::from_str(json).map_err(|_| broken("it is no JSON"))?;
        if entry["seq"].as_u64() != Some(count) || entry["previous"].as_str() != Some(&last) {
            return Err(broken("its number or the hash before it is another's"));
        }
        seen |= head == Some(hash);
        last = wanted;
    }
    if !seen {
        return Err(Broken(
            "the hash that was given does not stand in it: its end was cut off, or it was made anew".into(),
        ));
    }
    Ok((count, last))
}

fn verified(format: Output, checked: Result<(u64, String), Broken>) -> Result<(), Error> {
    let (entries, head) = checked?;
    match format {
        Output::Json => Ok(output::json(&json!({ "entries": entries, "head": head, "good": true }))?),
        Output::Table => {
            output::line(format_args!("{entries} entries, the chain holds; the last hash:"))?;
            Ok(output::line(head)?)
        }
    }
}

fn show(
    format: Output,
    lines: &[String],
    node: Option<&str>,
    subject: Option<&str>,
    limit: usize,
) -> Result<(), Error> {
    let entries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line.split_once(' ')?.1).ok());
    let fits = |entry: &Value, key: &str, wanted: Option<&str>| {
        wanted.is_none_or(|wanted| entry[key].as_str() == Some(wanted))
    };
    let mut entries: Vec<Value> =
        entries.filter(|e| fits(e, "node", node) && fits(e, "subject", subject)).collect();
    entries.drain(..entries.len().saturating_sub(limit));
    if format == Output::Json {
        return Ok(output::json(&Value::Array(entries))?);
    }
    let word = |entry: &Value, key: &str| output::plain(entry[key].as_str().unwrap_or_default());
    let rows = entries.iter().map(|e| {
        vec![
            e["seq"].to_string(),
            e["time_ms"].as_i64().map(output::time).unwrap_or_default(),
            word(e, "actor"),
            word(e, "event"),
            word(e, "node"),
            word(e, "subject"),
            word(e, "message"),
        ]
    });
    Ok(output::table(&["#", "TIME", "WHO", "WHAT", "NODE", "SUBJECT", "MESSAGE"], rows, &[0])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(n: u64) -> Vec<String> {
        let mut last = GENESIS.to_owned();
        (1..=n)
            .map(|seq| {
                let json = json!({ "seq": seq, "previous": last }).to_string();
                last = digest(&SHA256, format!("{last}\n{json}").as_bytes())
                    .as_ref()
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect();
                format!("{last} {json}")
            })
            .collect()
    }

    fn all(lines: &[String], head: Option<&str>) -> Result<(u64, String), Broken> {
        check(lines.iter().map(String::as_str), head)
    }

    #[test]
    fn a_chain_holds_or_breaks() {
        let good = log(4);
        let (count, head) = all(&good, None).unwrap();
        assert_eq!(count, 4);
        assert!(all(&good, Some(&head)).is_ok() && all(&[], None).is_ok());
        let early = all(&good[..2], None).unwrap().1;
        assert!(all(&good, Some(&early)).is_ok(), "an earlier head stands in it");
        assert!(all(&good[..3], Some(&head)).is_err(), "its end was cut off");
        for change in 0..4 {
            let mut bad = good.clone();
            bad[change] = bad[change].replacen("seq\":", "seq\": ", 1);
            assert!(all(&bad, None).is_err());
            let mut short = good.clone();
            short.remove(change);
            assert!(change == 3 || all(&short, None).is_err());
        }
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        assert!(all(&swapped, None).is_err());
        assert!(all(&log(9)[..2], Some(&"f".repeat(64))).is_err());
    }
}
