//! What the agent reads of its environment, all of it.

/// Variables of Picket's other programs, which may stand in the same environment.
const OTHERS: [&str; 5] = ["PICKET_URL", "PICKET_TOKEN", "PICKET_TOKEN_FILE", "PICKET_CA", "PICKET_CONFIG"];
/// The aggregator's own.
const AGGREGATOR: &str = "PICKET_AGGREGATOR_";

/// The `PICKET_*` variables that set something of the agent's. One that is not UTF-8 is left out.
pub fn variables() -> Vec<(String, String)> {
    let mut list: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("PICKET_") && !name.starts_with(AGGREGATOR))
        .filter(|(name, _)| !OTHERS.contains(&name.as_str()))
        .collect();
    list.sort();
    list
}

/// `device:inode` of the stream that systemd's journal reads, where the agent was started by it.
#[expect(clippy::disallowed_methods, reason = "this is the config module")]
pub fn journal_stream() -> Option<(u64, u64)> {
    let text = std::env::var("JOURNAL_STREAM").ok()?;
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}
