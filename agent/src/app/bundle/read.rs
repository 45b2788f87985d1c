//! Reads files and programs: bounded, and never on a thread that others wait for.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;

use rustix::fs::OFlags;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::bag::{Content, MAX_ENTRY, Missing};

/// What is read before it is cleaned and cut.
const MAX_READ: usize = 4 * MAX_ENTRY;

/// Runs what blocks on a thread of its own. Where that hangs it is left behind: the command ends without it.
pub async fn blocking(
    reading: impl FnOnce() -> Result<Content, Missing> + Send + 'static,
) -> Result<Content, Missing> {
    let read = tokio::task::spawn_blocking(reading).await;
    read.unwrap_or_else(|error| Err(Missing::Not(format!("its reading failed: {error}"))))
}

/// A file from its begin.
pub fn file(path: &Path) -> Result<String, Missing> {
    read(path, None)
}

/// The end of a log.
pub fn tail(path: &Path) -> Result<String, Missing> {
    read(path, Some(MAX_READ as u64))
}

fn read(path: &Path, last: Option<u64>) -> Result<String, Missing> {
    let missing = |source| Missing::Read { path: path.display().to_string(), source };
    // A pipe in a file's place has nobody who writes.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(missing)?;
    let length = file.metadata().map_err(missing)?.len();
    let skipped = last.map_or(0, |last| length.saturating_sub(last));
    if skipped > 0 {
        file.seek(SeekFrom::Start(skipped)).map_err(missing)?;
    }
    let mut bytes = Vec::new();
    file.take(MAX_READ as u64).read_to_end(&mut bytes).map_err(missing)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(if skipped > 0 { after_first_line(&text) } else { text })
}

/// Half a line could be half a secret.
fn after_first_line(text: &str) -> String {
    text.split_once('\n').map_or_else(String::new, |(_, rest)| rest.to_owned())
}

/// Several files beneath each other, each under its name; those that are not there are left out.
pub fn files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> String {
    let mut out = String::new();
    for path in paths {
        match file(path) {
            Ok(text) => section(&mut out, &path.display().to_string(), &text),
            Err(Missing::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(why) => section(&mut out, &path.display().to_string(), &why.to_string()),
        }
    }
    out
}

pub fn section(out: &mut String, title: &str, text: &str) {
    let _ = writeln!(out, "== {title}\n{}\n", text.trim_end());
}

/// What a program writes, the end of it.
///
/// # Errors
/// It is not there, or failed and wrote nothing.
pub async fn program(name: &str, arguments: &[&str]) -> Result<String, Missing> {
    let not = |why: String| Missing::Not(format!("{name}: {why}"));
    let mut child = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| not(error.to_string()))?;
    let mut out = child.stdout.take().ok_or_else(|| not("it has no output".to_owned()))?;
    let (mut bytes, mut buffer, mut dropped) = (Vec::new(), vec![0; 64 << 10], false);
    loop {
        let read = out.read(&mut buffer).await.map_err(|error| not(error.to_string()))?;
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if bytes.len() > 2 * MAX_READ {
            bytes.drain(..bytes.len() - MAX_READ);
            dropped = true;
        }
    }
    let status = child.wait().await.map_err(|error| not(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let text = if dropped { after_first_line(&text) } else { text };
    if text.trim().is_empty() {
        return Err(not(format!("it wrote nothing ({status})")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let text: String = (0..700_000).map(|n| format!("{n:07}\n")).collect();
        std::fs::write(&path, &text).unwrap();
        let end = tail(&path).unwrap();
        assert!(end.len() <= MAX_READ && end.len() > MAX_READ - 20);
        assert!(end.ends_with("0699999\n") && end.split('\n').next().unwrap().len() == 7);
        assert!(file(&path).unwrap().starts_with("0000000\n"));
        assert!(file(&dir.path().join("none")).unwrap_err().to_string().contains("none cannot be read"));
    }

    #[tokio::test]
    async fn programs() {
        assert_eq!(program("echo", &["a"]).await.unwrap(), "a\n");
        assert!(program("false", &[]).await.unwrap_err().to_string().contains("wrote nothing"));
        assert!(program("/no/such", &[]).await.unwrap_err().to_string().contains("/no/such"));
        let much = program("seq", &["1", "2000000"]).await.unwrap();
        assert!(much.ends_with("\n2000000\n") && much.len() <= 2 * MAX_READ);
    }
}
