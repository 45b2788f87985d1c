//! Label sets, and the lines of this collect under each. Their number is bounded: past it the lines of a new set go under
//! one whose container, file or unit is `other`.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use picket_sdk::logs::{Batch, Chunk};

use crate::decode::{self, Format};
use crate::level::Level;
use crate::settings::Settings;

/// A set that was not seen for so long gives its place to others.
const FORGET: u64 = 3_600_000_000_000;
/// The longest value of a label, in bytes.
const MAX_VALUE: usize = 256;
/// What stands for a name that has no place.
const OTHER: &str = "other";

pub type Labels = Vec<(String, String)>;

pub struct Streams {
    most: usize,
    now: u64,
    /// By the hash of a set: when it was last seen.
    known: HashMap<u64, u64>,
    batches: BTreeMap<Labels, Batch>,
}

impl Streams {
    pub fn new(most: usize) -> Self {
        Self { most, now: 0, known: HashMap::new(), batches: BTreeMap::new() }
    }

    /// A collect begins; what an earlier one did not take is gone.
    pub fn begin(&mut self, now: u64) {
        self.now = now;
        self.batches.clear();
        if self.known.len() >= self.most {
            self.known.retain(|_, seen| now.saturating_sub(*seen) < FORGET);
        }
    }

    /// False: there was no place for the set.
    pub fn add(&mut self, labels: &Labels, time: u64, line: String) -> bool {
        if let Some(batch) = self.batches.get_mut(labels) {
            batch.timestamps.push(time);
            batch.lines.push(line);
            return true;
        }
        let mut hasher = DefaultHasher::new();
        labels.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self.known.contains_key(&hash) || self.known.len() < self.most;
        let labels = if known {
            self.known.insert(hash, self.now);
            labels.clone()
        } else {
            overflow(labels)
        };
        let batch =
            self.batches.entry(labels.clone()).or_insert_with(|| Batch { labels, ..Batch::default() });
        batch.timestamps.push(time);
        batch.lines.push(line);
        known
    }

    pub fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.batches).into_values().collect()
    }
}

/// The labels whose values are few stay; the others say `other`.
fn overflow(labels: &Labels) -> Labels {
    let few = |name: &str| matches!(name, "job" | "level" | "stream");
    let own = |(name, value): &(String, String)| {
        (name.clone(), if few(name) { value.clone() } else { OTHER.to_owned() })
    };
    labels.iter().map(own).collect()
}

/// Where the lines of a source come from.
pub struct Origin<'a> {
    /// `container`, `file` or `journal`.
    pub source: &'static str,
    pub container: &'a str,
    pub unit: &'a str,
    /// Of all its lines, in order of name.
    fixed: Labels,
}

impl<'a> Origin<'a> {
    pub fn new(chunk: &'a Chunk, format: Format, settings: &Settings) -> Self {
        let label =
            |name: &str| chunk.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let mut fixed = vec![("job".to_owned(), bounded(&settings.job))];
        let (mut source, mut container) = ("file", "");
        match format {
            Format::Journal => source = "journal",
            Format::Docker | Format::Cri => {
                source = "container";
                match decode::pod(&chunk.name).filter(|_| format == Format::Cri) {
                    Some((namespace, pod, name)) => {
                        container = name;
                        fixed.push(("namespace".to_owned(), bounded(namespace)));
                        fixed.push(("pod".to_owned(), bounded(pod)));
                    }
                    // An engine that tells no name: the id's usual short form.
                    None => container = label("container").or_else(|| label("id")?.get(..12)).unwrap_or(""),
                }
            }
            Format::Plain => {}
        }
        if container.is_empty() && source != "journal" {
            fixed.push(("file".to_owned(), bounded(&chunk.name)));
        }
        for wanted in &settings.container_labels {
            if let Some(value) = label(&format!("label.{wanted}")) {
                fixed.push((sane(wanted), bounded(value)));
            }
        }
        fixed.sort();
        fixed.dedup_by(|a, b| a.0 == b.0);
        Self { source, container, unit: "", fixed }
    }

    /// The labels of one entry.
    pub fn labels(&self, container: &str, unit: &str, stream: &str, level: Level) -> Labels {
        let mut labels = self.fixed.clone();
        let own = [("container", container), ("unit", unit), ("stream", stream), ("level", level.word())];
        for (name, value) in own {
            if !value.is_empty() && !labels.iter().any(|(n, _)| n == name) {
                labels.push((name.to_owned(), bounded(value)));
            }
        }
        labels.sort();
        labels
    }
}

fn bounded(value: &str) -> String {
    let end = value.floor_char_boundary(MAX_VALUE);
    value.get(..end).unwrap_or_default().to_owned()
}

/// A label's name as Prometheus allows it.
fn sane(name: &str) -> String {
    let fits = |(i, c): (usize, char)| {
        if c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit()) { c } else { '_' }
    };
    let name: String = name.chars().take(100).enumerate().map(fits).collect();
    name.trim_start_matches("__").to_owned()
}
