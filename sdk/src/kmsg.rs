//! The kernel's messages, from a cursor that the plugin keeps. Grant: `kmsg`.
//!
//! A message that the grant admits makes the agent collect from the plugin at once, so nothing needs to be polled fast.

use crate::{Failure, sys};

/// Why there are no messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KmsgError {
    /// The cursor is none that [`read`] gave.
    #[error("the cursor is not valid: {0}")]
    Invalid(String),
    /// The node's kernel messages cannot be read; the text says why and what to do.
    #[error("kernel messages cannot be read: {0}")]
    Unavailable(String),
    /// A reason that this version of the SDK does not know.
    #[error("{0}")]
    Other(String),
}

impl From<KmsgError> for Failure {
    fn from(error: KmsgError) -> Self {
        let reason = match error {
            KmsgError::Invalid(_) => "cursor",
            KmsgError::Unavailable(_) => "unavailable",
            KmsgError::Other(_) => "kmsg",
        };
        Self::new(reason, error.to_string())
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// The kernel's number: unique and rising since the boot.
    pub sequence: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// 0 (emergency) to 7 (debug).
    pub priority: u8,
    /// 0: the kernel itself.
    pub facility: u8,
    /// Without the newline; other control characters are escaped as `\xHH`, as the kernel gives them.
    pub text: String,
}

/// What one [`read`] gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Where to go on; worth keeping in the [`crate::store`]. After a reboot it begins anew by itself.
    pub cursor: String,
    /// Messages after the given cursor that were overwritten before they could be read.
    pub lost: u64,
    /// Later messages are there: ask again.
    pub more: bool,
}

/// At most `most` messages after the cursor; without one from the oldest that is held.
///
/// # Errors
/// Any [`KmsgError`].
pub fn read(after: Option<&str>, most: u32) -> Result<Page, KmsgError> {
    sys::kmsg_read(after, most)
}
