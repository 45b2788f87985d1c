use super::host::kmsg;
use crate::kmsg::{KmsgError, Message, Page};

pub(crate) fn kmsg_read(after: Option<&str>, most: u32) -> Result<Page, KmsgError> {
    let page = kmsg::read(after, most).map_err(|error| match error {
        kmsg::KmsgError::Invalid(text) => KmsgError::Invalid(text),
        kmsg::KmsgError::Unavailable(text) => KmsgError::Unavailable(text),
        kmsg::KmsgError::Other(text) => KmsgError::Other(text),
    })?;
    let message = |m: kmsg::Message| Message {
        sequence: m.sequence,
        timestamp_ms: m.timestamp,
        priority: m.priority,
        facility: m.facility,
        text: m.text,
    };
    Ok(Page {
        messages: page.messages.into_iter().map(message).collect(),
        cursor: page.cursor,
        lost: page.lost,
        more: page.more,
    })
}
