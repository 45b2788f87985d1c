//! SHA-256 by coreutils, so that this crate, the first that a clone builds, needs none for it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// Of a file, in hex.
pub fn file(path: &Path) -> Result<String> {
    first_word(&command::output(Command::new("sha256sum").arg("--").arg(path))?)
}

/// Of some bytes, in hex.
pub fn bytes(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run sha256sum")?;
    // It reads to the end before it writes its one line.
    child.stdin.take().context("no standard input")?.write_all(bytes).context("sha256sum does not read")?;
    let output = child.wait_with_output()?;
    first_word(&String::from_utf8_lossy(&output.stdout))
}

fn first_word(line: &str) -> Result<String> {
    match line.split_whitespace().next() {
        // A name with odd characters is said with a backslash before the sum.
        Some(word) if word.trim_start_matches('\\').len() == 64 => {
            Ok(word.trim_start_matches('\\').to_owned())
        }
        _ => bail!("sha256sum said {line:?}"),
    }
}
