//! Takes secrets out of texts and documents before a stranger sees them.
//!
//! Nets, one behind the other: the values that this node's own configuration keeps secret; private keys in PEM; words that
//! are tokens by their form; credentials in URLs; and what follows a name that stands for a secret. In doubt something
//! harmless goes too: a bundle is read by strangers, and what has left can't be taken back.

use picket_agent_services::secrets::{REDACTED, clean_arguments, names_a_secret};
use serde_json::Value;

use super::pseudonyms::Pseudonyms;
use super::words::{self, Carry};

/// A shorter value would be found in places that have nothing to do with it.
const SHORTEST: usize = 6;
/// Values that are looked for.
const MAX_KNOWN: usize = 1024;
const PRIVATE: &str = "PRIVATE KEY";

#[derive(Default)]
pub struct Redactor {
    /// The longest first, so that none hides the rest of another.
    known: Vec<String>,
    /// None: names and addresses stay.
    pub pseudonyms: Option<Pseudonyms>,
}

/// A text that may be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Cleaned {
    pub text: String,
    /// How many secrets were taken out.
    pub redacted: usize,
}

impl Redactor {
    /// This value is secret wherever it stands.
    pub fn learn(&mut self, secret: &str) {
        for part in secret.lines().map(str::trim).filter(|part| part.len() >= SHORTEST) {
            if part != REDACTED
                && self.known.len() < MAX_KNOWN
                && !self.known.iter().any(|known| known == part)
            {
                self.known.push(part.to_owned());
            }
        }
        self.known.sort_by_key(|known| std::cmp::Reverse(known.len()));
    }

    /// What stands in this document under the name of a secret is secret elsewhere too.
    pub fn learn_from(&mut self, document: &Value) {
        self.learn_beneath(document, false);
    }

    fn learn_beneath(&mut self, value: &Value, secret: bool) {
        match value {
            Value::String(text) if secret => self.learn(text),
            Value::Array(list) => list.iter().for_each(|inner| self.learn_beneath(inner, secret)),
            Value::Object(map) => {
                for (name, inner) in map {
                    let secret = (secret || names_a_secret(name)) && !is_place(name, inner);
                    self.learn_beneath(inner, secret);
                }
            }
            _ => {}
        }
    }

    pub fn text(&mut self, text: &str) -> Cleaned {
        let mut redacted = 0;
        let mut text = text.to_owned();
        for secret in &self.known {
            let found = text.matches(secret).count();
            if found > 0 {
                redacted += found;
                text = text.replace(secret, REDACTED);
            }
        }
        let text = without_keys(&text, &mut redacted);
        let mut clean = String::with_capacity(text.len());
        let mut carry = Carry::default();
        for line in text.split_inclusive('\n') {
            redacted += words::clean_line(line, &mut carry, &mut clean);
        }
        if let Some(pseudonyms) = &mut self.pseudonyms {
            clean = pseudonyms.replace(&clean);
        }
        Cleaned { text: clean, redacted }
    }

    /// Cleans it in place, and says how many secrets it held. `own`: by the agent's types the `secret` of a grant and a `key` name
    /// files.
    pub fn document(&mut self, value: &mut Value, own: bool) -> usize {
        self.walk(value, false, own)
    }

    fn walk(&mut self, value: &mut Value, secret: bool, own: bool) -> usize {
        match value {
            Value::String(text) if secret => {
                let new = !text.is_empty() && text != REDACTED;
                if new {
                    REDACTED.clone_into(text);
                }
                usize::from(new)
            }
            Value::Number(_) if secret => {
                *value = Value::String(REDACTED.to_owned());
                1
            }
            Value::String(text) => {
                let clean = self.text(text);
                *text = clean.text;
                clean.redacted
            }
            Value::Array(list) => {
                let before = count(list);
                clean_arguments(list);
                let arguments = count(list) - before;
                arguments + list.iter_mut().map(|inner| self.walk(inner, secret, own)).sum::<usize>()
            }
            Value::Object(map) => {
                let mut redacted = 0;
                for (name, mut inner) in std::mem::take(map) {
                    let named = secret || names_a_secret(&name);
                    let secret = named && !is_place(&name, &inner) && !(own && is_rule(&name, &inner));
                    // A plugin's settings are its author's: of their names none is ours.
                    redacted += self.walk(&mut inner, secret, own && name != "settings");
                    let name = self.text(&name);
                    redacted += name.redacted;
                    map.insert(name.text, inner);
                }
                redacted
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }
}

fn count(list: &[Value]) -> usize {
    list.iter().filter_map(Value::as_str).filter(|text| text.ends_with(REDACTED)).count()
}

/// It says where a secret lies, and not what it is.
fn is_place(name: &str, value: &Value) -> bool {
    value.as_str().is_some_and(|text| words::names_a_place(name, text))
}

fn is_rule(name: &str, value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            name == "secret"
                && map.keys().all(|key| ["name", "header", "prefix", "file"].contains(&key.as_str()))
        }
        Value::String(text) => name == "key" && text.starts_with('/'),
        _ => false,
    }
}

/// Private keys in PEM, whole. Where the end is missing all that follows goes; where the begin is, all that stands before.
fn without_keys(text: &str, redacted: &mut usize) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut kept) = (text, 0);
    while let Some((at, end, begins)) = marker(rest) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        *redacted += 1;
        let after = from.split_at(end).1;
        if begins {
            rest = match marker(after) {
                Some((at, end, false)) => after.split_at(at).1.split_at(end).1,
                // Another one begins: what stands between them is of this one.
                Some((at, _, true)) => after.split_at(at).1,
                None => "",
            };
        } else {
            out.truncate(kept);
            rest = after;
        }
        out.push_str(REDACTED);
        kept = out.len();
    }
    out.push_str(rest);
    out
}

/// The next line that begins or ends a private key: where it is, how long it is, whether it begins one.
fn marker(text: &str) -> Option<(usize, usize, bool)> {
    const RULE: &str = "-----";
    let mut passed = 0;
    loop {
        let rest = text.get(passed..)?;
        let at = rest.find(RULE)?;
        let after = rest.get(at + RULE.len()..)?;
        if let Some(end) = after.find(RULE)
            && let Some(label) = after.get(..end)
            && label.contains(PRIVATE)
            && (label.starts_with("BEGIN ") || label.starts_with("END "))
        {
            return Some((passed + at, end + 2 * RULE.len(), label.starts_with("BEGIN ")));
        }
        passed += at + RULE.len();
    }
}

#[cfg(test)]
#[path = "redact_tests.rs"]
mod tests;
