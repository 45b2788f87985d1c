//! The agent's log, where systemd keeps it.

use super::bag::{Content, Missing};
use super::read;
use crate::detect::drop_in::UNIT;

/// Lines.
const MOST: &str = "5000";

pub async fn journal() -> Result<Content, Missing> {
    let unit = ["--unit", UNIT, "--lines", MOST];
    let form = ["--output", "short-iso-precise", "--no-pager", "--quiet"];
    let text = read::program("journalctl", &[&unit[..], &form[..]].concat()).await?;
    Ok(Content::Log(text))
}
