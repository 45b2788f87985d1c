//! The twins of `nvml` and `kmsg`.

use crate::kmsg::{KmsgError, Message, Page};
use crate::nvml::NvmlError;

/// What `nvml::snapshot` gives: a test's closure is called with the age that the plugin asked for.
pub(crate) type Snapshots = Box<dyn FnMut(u32) -> Result<serde_json::Value, NvmlError>>;

/// Messages that the kernel wrote, and how reading them fails.
#[derive(Default)]
pub(crate) struct Kmsg {
    pub messages: Vec<Message>,
    pub error: Option<KmsgError>,
    /// Told once, with the next page.
    pub lost: u64,
}

impl Kmsg {
    pub fn append(&mut self, now_ms: u64, text: &str) {
        let sequence = self.messages.last().map_or(1, |m| m.sequence + 1);
        let text = text.to_owned();
        self.messages.push(Message { sequence, timestamp_ms: now_ms, priority: 3, facility: 0, text });
    }

    pub fn read(&mut self, after: Option<&str>, most: u32) -> Result<Page, KmsgError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let after: u64 = match after {
            None => 0,
            Some(cursor) => cursor
                .strip_prefix("test:")
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| KmsgError::Invalid(cursor.to_owned()))?,
        };
        let mut later = self.messages.iter().filter(|m| m.sequence > after).peekable();
        let mut messages = Vec::new();
        while messages.len() < most as usize
            && let Some(message) = later.next()
        {
            messages.push(message.clone());
        }
        let more = later.peek().is_some();
        let last = messages.last().map_or(after, |m| m.sequence);
        Ok(Page { messages, cursor: format!("test:{last}"), lost: std::mem::take(&mut self.lost), more })
    }
}
