//! Reads a merged configuration key by key and keeps every mistake, where the first one would end a plain
//! deserialization. The keys that were asked for are the keys that exist: what is left over is unknown.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::error::Kind;
use figment::value::{Dict, Tag, Value};
use figment::{Figment, Source};
use serde::de::DeserializeOwned;

use super::values::{ByteSize, parse_duration};
use super::{ConfigError, Problem};

/// How near two words must be to be called a slip of the pen (Jaro-Winkler, 0 to 1).
const NEAR: f64 = 0.75;

pub(super) struct Reader<'f> {
    figment: &'f Figment,
    problems: RefCell<Vec<Problem>>,
}

impl<'f> Reader<'f> {
    pub fn new(figment: &'f Figment) -> Self {
        Self { figment, problems: RefCell::default() }
    }

    pub fn root<'a>(&'a self, dict: &'a Dict) -> Table<'a> {
        Table { reader: self, path: String::new(), dict: Some(dict), known: Vec::new() }
    }

    pub fn finish(self) -> Result<(), ConfigError> {
        let problems = self.problems.into_inner();
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    fn problem(&self, tag: Tag, key: String, what: String) {
        let source = source_of(self.figment, tag, &key);
        self.problems.borrow_mut().push(Problem { source, key, what });
    }
}

/// The file or the variable that a value came from.
fn source_of(figment: &Figment, tag: Tag, key: &str) -> String {
    match figment.get_metadata(tag).map(|metadata| (&metadata.source, &metadata.name)) {
        Some((Some(Source::File(path)), _)) => path.display().to_string(),
        Some((_, name)) if name == super::load::ENVIRONMENT => {
            format!("PICKET_{}", key.replace('.', "__").to_uppercase())
        }
        _ => String::new(),
    }
}

/// One table of the configuration. `finish` it, so that unknown keys are told.
pub(super) struct Table<'a> {
    reader: &'a Reader<'a>,
    path: String,
    dict: Option<&'a Dict>,
    known: Vec<&'static str>,
}

impl<'a> Table<'a> {
    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.dict?.get(key)
    }

    /// The value of `key`, read by `parse`, whose error is a sentence for the operator.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        parse(value).map_err(|what| self.reader.problem(value.tag(), self.key(key), what)).ok()
    }

    /// A mistake about a key that could be read but may not have this value.
    pub fn refuse(&self, key: &str, what: impl Into<String>) {
        let tag = self.dict.and_then(|dict| dict.get(key)).map_or(Tag::Default, Value::tag);
        self.reader.problem(tag, self.key(key), what.into());
    }

    /// A mistake about the table as such.
    pub fn refuse_itself(&self, what: impl Into<String>) {
        let tag = self.dict.and_then(|dict| dict.values().next()).map_or(Tag::Default, Value::tag);
        self.reader.problem(tag, self.path.clone(), what.into());
    }

    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.read(key, |value| match text_of(value) {
            Some("") => Err("is empty; leave the key out instead".to_owned()),
            Some(text) => Ok(text.to_owned()),
            None => Err(expected("a text", value)),
        })
    }

    pub fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        self.string(key).map(PathBuf::from)
    }

    pub fn bool(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, |value| value.to_bool().ok_or_else(|| expected("true or false", value)))
    }

    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.read(key, |value| match text_of(value) {
            Some(text) => parse_duration(text),
            None => Err(expected("a duration such as \"15s\"", value)),
        })
    }

    pub fn count(&mut self, key: &'static str, allowed: std::ops::RangeInclusive<usize>) -> Option<usize> {
        self.read(key, |value| match whole(value).and_then(|n| usize::try_from(n).ok()) {
            Some(number) if allowed.contains(&number) => Ok(number),
            Some(number) => {
                Err(format!("{number} is not allowed; {} to {} is", allowed.start(), allowed.end()))
            }
            None => Err(expected("a number", value)),
        })
    }

    /// Whether the table was written down at all.
    pub fn is_there(&self) -> bool {
        self.dict.is_some()
    }

    pub fn size(&mut self, key: &'static str) -> Option<ByteSize> {
        self.read(key, |value| match (text_of(value), whole(value)) {
            (Some(text), _) => ByteSize::parse(text),
            (None, Some(bytes)) => {
                u64::try_from(bytes).map(ByteSize).map_err(|_| "is too large a size".to_owned())
            }
            (None, None) => Err(expected("a size such as \"256MiB\"", value)),
        })
    }

    pub fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        self.read(key, |value| match text_of(value) {
            Some(text) => text.parse().map_err(|_| {
                format!(
                    "{text:?} is no address; write ADDRESS:PORT such as \"127.0.0.1:9460\" or \"[::1]:9460\""
                )
            }),
            None => Err(expected("an address such as \"127.0.0.1:9460\"", value)),
        })
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &'static str, words: &[(&'static str, T)]) -> Option<T> {
        self.read(key, |value| {
            let text = text_of(value).ok_or_else(|| expected("a word", value))?;
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let list: Vec<_> = words.iter().map(|(word, _)| *word).collect();
                format!("{text:?} is not known; allowed are {}{}", list.join(", "), did_you_mean(text, &list))
            })
        })
    }

    /// A value that another crate knows how to read.
    pub fn deserialize<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<T> {
        let value = self.value(key)?;
        self.element(value, self.key(key))
    }

    /// A list, element by element, so that each mistake has its place.
    pub fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let value = self.value(key)?;
        let Some(items) = value.as_array() else {
            self.refuse(key, expected("a list", value));
            return None;
        };
        let key = self.key(key);
        Some(
            items
                .iter()
                .enumerate()
                .filter_map(|(i, item)| self.element(item, format!("{key}.{i}")))
                .collect(),
        )
    }

    fn element<T: DeserializeOwned>(&self, value: &Value, key: String) -> Option<T> {
        match value.deserialize() {
            Ok(read) => Some(read),
            Err(error) => {
                for error in error {
                    let mut key = key.clone();
                    for part in &error.path {
                        key = format!("{key}.{part}");
                    }
                    self.reader.problem(value.tag(), key, sentence(&error.kind));
                }
                None
            }
        }
    }

    pub fn table(&mut self, key: &'static str) -> Table<'a> {
        let value = self.value(key);
        let dict = value.and_then(Value::as_dict);
        if let (Some(value), None) = (value, dict) {
            self.refuse(key, expected("a table", value));
        }
        Table { reader: self.reader, path: self.key(key), dict, known: Vec::new() }
    }

    /// The tables within the table `key`, by names that the operator chose.
    pub fn tables(&mut self, key: &'static str) -> Vec<(&'a str, Table<'a>)> {
        let outer = self.table(key);
        let mut list = Vec::new();
        for (name, value) in outer.dict.into_iter().flatten() {
            match value.as_dict() {
                Some(dict) => list.push((
                    name.as_str(),
                    Table {
                        reader: outer.reader,
                        path: outer.key(name),
                        dict: Some(dict),
                        known: Vec::new(),
                    },
                )),
                None => outer.refuse(name, expected("a table", value)),
            }
        }
        list
    }

    /// Tells the keys that were never asked for.
    pub fn finish(self) {
        for (name, value) in self.dict.into_iter().flatten() {
            if !self.known.contains(&name.as_str()) {
                let hint = did_you_mean(name, &self.known);
                let hint =
                    if hint.is_empty() { format!("; known are {}", self.known.join(", ")) } else { hint };
                self.reader.problem(value.tag(), self.key(name), format!("is no known key{hint}"));
            }
        }
    }
}

fn text_of(value: &Value) -> Option<&str> {
    value.as_str()
}

/// A whole number: TOML's are signed, the environment's are not.
fn whole(value: &Value) -> Option<u128> {
    value.to_u128().or_else(|| u128::try_from(value.to_i128()?).ok())
}

fn expected(what: &str, value: &Value) -> String {
    format!("must be {what}, not {}", value.to_actual())
}

/// `; did you mean "x"?`, or nothing where no candidate is near.
fn did_you_mean(word: &str, candidates: &[&str]) -> String {
    candidates
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .filter(|(nearness, _)| *nearness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("; did you mean {candidate:?}?"))
        .unwrap_or_default()
}

fn sentence(kind: &Kind) -> String {
    match kind {
        Kind::UnknownField(field, known) => {
            format!("{field:?} is no known key; known are {}{}", known.join(", "), did_you_mean(field, known))
        }
        Kind::UnknownVariant(word, known) => {
            format!("{word:?} is not known; allowed are {}{}", known.join(", "), did_you_mean(word, known))
        }
        Kind::MissingField(field) => format!("the key {field:?} is missing"),
        other => other.to_string(),
    }
}
