//! Which conditions were told and not ended yet. Kept in the store, so that a fresh instance ends what an earlier one
//! began, once.

use std::collections::BTreeMap;

use picket_sdk::{Collect, Event, Severity, store};

const KEY: &str = "open";

#[derive(Default)]
pub struct Told {
    /// The event's key, and its kind.
    open: Option<BTreeMap<String, String>>,
    changed: bool,
}

impl Told {
    fn open(&mut self, c: &mut Collect<'_>) -> &mut BTreeMap<String, String> {
        if self.open.is_none() {
            let kept = match store::get(KEY) {
                Ok(kept) => kept,
                Err(error) => {
                    c.failed(error);
                    None
                }
            };
            self.open = Some(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default());
        }
        self.open.get_or_insert_default()
    }

    /// `server` is in the condition `kind` (`vllm.stuck`); said once.
    pub fn begin(
        &mut self,
        c: &mut Collect<'_>,
        kind: &str,
        severity: Severity,
        server: &str,
        message: String,
    ) {
        let key = format!("{kind}:{server}");
        if self.open(c).contains_key(&key) {
            return;
        }
        c.emit(Event::new(kind, severity, message).about("container", server).key(key.clone()));
        self.open(c).insert(key, kind.to_owned());
        self.changed = true;
    }

    pub fn is_open(&mut self, c: &mut Collect<'_>, kind: &str, server: &str) -> bool {
        self.open(c).contains_key(&format!("{kind}:{server}"))
    }

    /// It is not, or no more.
    pub fn end(&mut self, c: &mut Collect<'_>, kind: &str, server: &str, message: &str) {
        let key = format!("{kind}:{server}");
        if self.open(c).remove(&key).is_some() {
            c.emit(Event::ended(kind, key, format!("{server}: {message}")).about("container", server));
            self.changed = true;
        }
    }

    /// Ends what is open of servers that are no more.
    pub fn keep(&mut self, c: &mut Collect<'_>, is_there: impl Fn(&str) -> bool) {
        let gone: Vec<(String, String)> = self
            .open(c)
            .iter()
            .filter_map(|(key, kind)| {
                let server = key.strip_prefix(kind.as_str())?.strip_prefix(':')?;
                (!is_there(server)).then(|| (kind.clone(), server.to_owned()))
            })
            .collect();
        for (kind, server) in gone {
            self.end(c, &kind, &server, "removed");
        }
    }

    pub fn save(&mut self, c: &mut Collect<'_>) {
        if std::mem::take(&mut self.changed) {
            let bytes = serde_json::to_vec(self.open(c)).unwrap_or_default();
            if let Err(error) = store::set(KEY, &bytes, None) {
                c.failed(error);
            }
        }
    }
}
