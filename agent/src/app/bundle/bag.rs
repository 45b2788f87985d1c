//! The bundle while it is filled: whatever goes in is read within a time, cleaned, cut to its size, and listed. What can't be
//! had is listed too, with the reason: who reads the bundle must not take silence for health.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::redact::Redactor;
use crate::client::AskError;

/// One entry, in bytes.
pub const MAX_ENTRY: usize = 1 << 20;
/// All of them.
pub const MAX_TOTAL: usize = 16 << 20;
/// Reading what makes one entry.
pub const WITHIN: Duration = Duration::from_secs(5);
const ALL_WITHIN: Duration = Duration::from_secs(120);

/// A file of the archive, or one that is missing in it.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub name: String,
    pub bytes: usize,
    /// Where it was read.
    pub from: String,
    /// Secrets that were taken out.
    pub redacted: usize,
    /// What of it was left out because it is too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Why it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// It may not be read by this user.
    #[serde(skip)]
    pub denied: bool,
    #[serde(skip)]
    pub content: String,
}

/// What was read.
#[derive(Debug)]
pub enum Content {
    Text(String),
    /// Of a log the end counts.
    Log(String),
    /// JSON; of what the agent says by its own types.
    Json(Value),
    /// The same, written as TOML.
    Toml(Value),
}

/// Why something is not there.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    #[error("{path} cannot be read: {source}")]
    Read { path: String, source: std::io::Error },
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Not(String),
    #[error("it took longer than {WITHIN:?}")]
    Late,
    #[error("the time for the whole bundle, {ALL_WITHIN:?}, was over")]
    NoTime,
    #[error("the bundle was full with {} MiB", MAX_TOTAL >> 20)]
    Full,
}

impl Missing {
    fn denied(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied)
    }
}

pub struct Bag {
    pub redactor: Redactor,
    pub entries: Vec<Entry>,
    ends: Instant,
}

impl Bag {
    pub fn new(redactor: Redactor) -> Self {
        Self { redactor, entries: Vec::new(), ends: Instant::now() + ALL_WITHIN }
    }

    /// Reads, cleans, cuts, lists.
    pub async fn add(
        &mut self,
        name: impl Into<String>,
        from: impl Into<String>,
        reading: impl Future<Output = Result<Content, Missing>>,
    ) {
        let left = self.ends.saturating_duration_since(Instant::now());
        let read = match tokio::time::timeout(left.min(WITHIN), reading).await {
            Ok(read) => read,
            Err(_) if left < WITHIN => Err(Missing::NoTime),
            Err(_) => Err(Missing::Late),
        };
        self.put(&name.into(), &from.into(), read);
    }

    fn put(&mut self, name: &str, from: &str, read: Result<Content, Missing>) {
        let (name, from) = (self.redactor.text(name).text, self.redactor.text(from).text);
        let kept = read.and_then(|content| {
            let (mut text, redacted, of_log) = self.clean(content)?;
            let cut = cut(&mut text, of_log);
            let total: usize = self.entries.iter().map(|entry| entry.bytes).sum();
            if total + text.len() > MAX_TOTAL { Err(Missing::Full) } else { Ok((text, redacted, cut)) }
        });
        let entry = match kept {
            Ok((content, redacted, cut)) => Entry {
                name,
                from,
                bytes: content.len(),
                redacted,
                cut,
                missing: None,
                denied: false,
                content,
            },
            Err(why) => {
                let denied = why.denied();
                let missing = Some(self.redactor.text(&why.to_string()).text);
                Entry {
                    name,
                    from,
                    bytes: 0,
                    redacted: 0,
                    cut: None,
                    missing,
                    denied,
                    content: String::new(),
                }
            }
        };
        self.entries.push(entry);
    }

    fn clean(&mut self, content: Content) -> Result<(String, usize, bool), Missing> {
        let written = |text: Result<String, String>| {
            text.map_err(|why| Missing::Not(format!("it cannot be written down: {why}")))
        };
        Ok(match content {
            Content::Text(text) => {
                let clean = self.redactor.text(&text);
                (clean.text, clean.redacted, false)
            }
            Content::Log(text) => {
                let clean = self.redactor.text(&text);
                (clean.text, clean.redacted, true)
            }
            Content::Json(mut value) => {
                let redacted = self.redactor.document(&mut value, true);
                let text = serde_json::to_string_pretty(&value).map_err(|error| error.to_string());
                (written(text)?, redacted, false)
            }
            Content::Toml(mut value) => {
                let redacted = self.redactor.document(&mut value, true);
                let text = toml::to_string_pretty(&value).map_err(|error| error.to_string());
                (written(text)?, redacted, false)
            }
        })
    }
}

/// Takes off what is too much, by whole lines where there are any; says so.
fn cut(text: &mut String, of_log: bool) -> Option<String> {
    let all = text.len();
    if all <= MAX_ENTRY {
        return None;
    }
    let is_end = |at: &usize| text.is_char_boundary(*at);
    if of_log {
        let from = (all - MAX_ENTRY..all).find(is_end).unwrap_or(all);
        let line = text.get(from..).and_then(|rest| rest.find('\n')).map_or(from, |at| from + at + 1);
        text.drain(..line);
        return Some(format!("its last {} of {all} bytes", text.len()));
    }
    let to = (0..=MAX_ENTRY).rev().find(is_end).unwrap_or(0);
    let line = text.get(..to).and_then(|rest| rest.rfind('\n')).map_or(to, |at| at + 1);
    text.truncate(line);
    Some(format!("its first {} of {all} bytes", text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bag() -> Bag {
        Bag::new(Redactor::default())
    }

    #[tokio::test]
    async fn what_is_too_much_is_cut_and_said() {
        let mut bag = bag();
        let text: String = (0..300_000).map(|n| format!("{n} é\n")).collect();
        bag.add("begin", "x", async { Ok(Content::Text(text.clone())) }).await;
        bag.add("end", "x", async { Ok(Content::Log(text.clone())) }).await;
        bag.add("line", "x", async { Ok(Content::Log("é".repeat(MAX_ENTRY))) }).await;
        for entry in &bag.entries {
            assert!(
                entry.bytes <= MAX_ENTRY && entry.bytes > MAX_ENTRY - 100,
                "{} {}",
                entry.name,
                entry.bytes
            );
            assert!(entry.cut.as_ref().is_some_and(|cut| cut.contains("of")), "{:?}", entry.cut);
        }
        assert!(bag.entries[0].content.starts_with("0 é\n") && bag.entries[0].content.ends_with("é\n"));
        assert!(bag.entries[1].content.ends_with("299999 é\n"));
    }

    #[tokio::test]
    async fn the_whole_is_bounded_too() {
        let mut bag = bag();
        for n in 0..20 {
            bag.add(n.to_string(), "x", async { Ok(Content::Text("x y\n".repeat(MAX_ENTRY / 4))) }).await;
        }
        assert_eq!(bag.entries.iter().map(|entry| entry.bytes).sum::<usize>(), MAX_TOTAL);
        assert_eq!(bag.entries.iter().filter(|entry| entry.missing.is_some()).count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_left_out() {
        let mut bag = bag();
        let begin = Instant::now();
        for n in 0..100 {
            bag.add(n.to_string(), "x", std::future::pending()).await;
        }
        assert!(begin.elapsed() <= ALL_WITHIN + Duration::from_secs(1));
        let why = |n: usize| bag.entries[n].missing.clone().unwrap();
        assert!(why(0).contains("5s"), "{}", why(0));
        assert!(why(99).contains("whole bundle"), "{}", why(99));
    }

    #[tokio::test]
    async fn nothing_that_is_listed_holds_a_secret() {
        let mut bag = bag();
        let why = || Missing::Not("http://u:s3cret@h is not there".to_owned());
        bag.add("password=s3cret", "http://u:s3cret@h/", async { Err(why()) }).await;
        bag.add("json", "x", async { Ok(Content::Json(serde_json::json!({ "token": "s3cret" }))) }).await;
        bag.add("toml", "x", async { Ok(Content::Toml(serde_json::json!({ "token": "s3cret" }))) }).await;
        let list = serde_json::to_string(&bag.entries).unwrap();
        assert!(!list.contains("s3cret"), "{list}");
        assert!(bag.entries.iter().all(|entry| !entry.content.contains("s3cret")));
        assert_eq!(bag.entries[1].redacted, 1);
    }
}
