//! Answers that are longer than anybody wants to hold, read in parts.
//!
//! HTTP has words for that, so a plugin needs no others: it asks with `Range: bytes=0-N`. A server that knows ranges answers
//! them itself. Of one that doesn't the host holds the answer open: it gives the first bytes with the status 206, `Content-Range` and an
//! `ETag` of its own, and the next ones to the request that names both (`Range: bytes=N+1-M`, `If-Range`). What was not asked for
//! waits with the server. So the memory is a part's, however long the answer is, and the server is asked once.
//!
//! A plugin has one such answer open: a new one ends it, and so does leaving it for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use picket_proto::model::PluginId;

use super::wire::{self, Flow};
use super::{Answer, Error, Request};

/// The longest answer.
const LONGEST: u64 = 1 << 30;
/// How long a part may take, where its request asks for so much.
pub(crate) const LONGEST_PART: Duration = Duration::from_secs(60);
const TAG: &str = "\"picket-";

/// Which bytes a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    first: u64,
    last: u64,
    /// Of an answer that is held open.
    tag: Option<String>,
}

impl Asked {
    /// None: the whole answer is wanted, or what only a server can tell.
    pub fn of(request: &Request) -> Option<Self> {
        if request.method != "GET" {
            return None;
        }
        let header = |name: &str| {
            let found = request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim())
        };
        let (first, last) = header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (first.parse().ok()?, last.parse().ok()?);
        let tag = header("if-range").filter(|tag| tag.starts_with(TAG)).map(str::to_owned);
        (first <= last && (first == 0 || tag.is_some())).then_some(Self { first, last, tag })
    }
}

/// The answers that are held open.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    open: Mutex<HashMap<PluginId, Open>>,
    number: AtomicU64,
}

#[derive(Debug)]
struct Open {
    tag: String,
    /// Where it comes from, and what of it was given.
    place: String,
    at: u64,
    flow: Flow,
}

impl Parts {
    /// The part that is asked for, of at most `most` bytes. `open` asks the server, where it is to be asked.
    pub async fn answer(
        &self,
        plugin: &PluginId,
        place: &str,
        asked: &Asked,
        most: usize,
        open: impl Future<Output = Result<Flow, Error>>,
    ) -> Result<Answer, Error> {
        let wanted = usize::try_from(asked.last - asked.first).unwrap_or(usize::MAX).saturating_add(1);
        let before = self.opened().remove(plugin);
        let mut open = match &asked.tag {
            Some(tag) => before
                .filter(|open| open.tag == *tag && open.place == place && open.at == asked.first)
                .ok_or_else(|| {
                    let why =
                        "is not open any more, or was read to another place: ask for it from its beginning";
                    Error::Invalid(format!("{place}: the answer {tag} {why}"))
                })?,
            None => {
                drop(before);
                let flow = open.await?;
                let number = self.number.fetch_add(1, Ordering::Relaxed);
                Open { tag: format!("{TAG}{number}\""), place: place.to_owned(), at: 0, flow }
            }
        };
        if asked.tag.is_none() && open.flow.status != 200 {
            return whole(open.flow, place, most).await;
        }
        let (body, ended) = open.flow.take(wanted.min(most)).await?;
        let begun = open.at;
        open.at += body.len() as u64;
        let mut headers = open.flow.headers.clone();
        if ended && begun == 0 {
            return Ok(Answer { status: 200, headers, body });
        }
        if open.at > LONGEST {
            return Err(wire::too_large(place, LONGEST as usize));
        }
        headers.retain(|(name, _)| {
            !["content-length", "content-range", "etag"].iter().any(|own| name.eq_ignore_ascii_case(own))
        });
        let total = if ended { open.at.to_string() } else { "*".to_owned() };
        let last = open.at.saturating_sub(1);
        headers.push(("content-range".to_owned(), format!("bytes {begun}-{last}/{total}")));
        headers.push(("etag".to_owned(), open.tag.clone()));
        if !ended {
            self.opened().insert(plugin.clone(), open);
        }
        Ok(Answer { status: 206, headers, body })
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<PluginId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is no part, or a part by the server's own doing.
async fn whole(mut flow: Flow, place: &str, most: usize) -> Result<Answer, Error> {
    let (body, ended) = flow.take(most).await?;
    if !ended {
        return Err(wire::too_large(place, most));
    }
    Ok(Answer { status: flow.status, headers: std::mem::take(&mut flow.headers), body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = |headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let (method, url) = ("GET".to_owned(), "http://a/".to_owned());
            let request = Request { method, url, headers, body: Vec::new(), timeout: None, secret: None };
            Asked::of(&request).map(|a| (a.first, a.last, a.tag))
        };
        let tag = "\"picket-3\"";
        for (headers, expected) in [
            (vec![], None),
            (vec![("Range", "bytes=0-99")], Some((0, 99, None))),
            (vec![("range", "bytes=100-199"), ("If-Range", tag)], Some((100, 199, Some(tag.to_owned())))),
            // The server's to answer, if it can.
            (vec![("range", "bytes=100-199")], None),
            (vec![("range", "bytes=100-199"), ("if-range", "\"its own\"")], None),
            (vec![("range", "bytes=-500")], None),
            (vec![("range", "bytes=0-")], None),
            (vec![("range", "bytes=9-0"), ("if-range", tag)], None),
            (vec![("range", "bytes=0-1,5-9")], None),
            (vec![("range", "lines=0-9")], None),
        ] {
            assert_eq!(asked(&headers), expected, "{headers:?}");
        }
    }
}
