//! The words of the data path, as types: names, families, series, events. Checked where they come in, so that
//! everything behind may trust them.
//!
//! Sources: the Prometheus data model (names and labels), OpenMetrics 1.0 (types, parts).

use std::fmt;
use std::sync::Arc;

pub use crate::v1::{MetricType, Part, Severity};

/// The longest metric or label name, in bytes.
pub const MAX_NAME: usize = 256;
/// The longest label value, in bytes.
pub const MAX_LABEL_VALUE: usize = 4096;
/// The most labels a series may have.
pub const MAX_LABELS: usize = 64;
/// The longest help text, in bytes.
pub const MAX_HELP: usize = 1024;
/// The bit that tells the life of an agent's queue of log lines from the life of its samples.
pub const LOG_LIFE: u64 = 1 << 63;

/// Why a name or a label was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is {len} bytes long, {max} are allowed: {start}…")]
    TooLong { what: &'static str, len: usize, max: usize, start: String },
    #[error("{what} {text:?} has the character {bad:?}; allowed is {allowed}")]
    Character { what: &'static str, text: String, bad: char, allowed: &'static str },
    #[error("the label name {name:?} is Picket's own ({why})")]
    Reserved { name: String, why: &'static str },
    #[error("the label {name:?} stands twice")]
    Twice { name: String },
    #[error("{count} labels, {max} are allowed")]
    TooMany { count: usize, max: usize },
    #[error("{part:?} series do not belong to a family of type {metric_type:?}")]
    Part { part: Part, metric_type: MetricType },
}

fn start_of(text: &str) -> String {
    text.chars().take(64).collect()
}

fn check(
    what: &'static str,
    text: &str,
    allowed: &'static str,
    ok: impl Fn(usize, char) -> bool,
) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty { what });
    }
    if text.len() > MAX_NAME {
        return Err(InvalidName::TooLong { what, len: text.len(), max: MAX_NAME, start: start_of(text) });
    }
    match text.chars().enumerate().find(|&(i, c)| !ok(i, c)) {
        Some((_, bad)) => Err(InvalidName::Character { what, text: text.to_owned(), bad, allowed }),
        None => Ok(()),
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`, the Prometheus data model.
pub fn check_metric_name(name: &str) -> Result<(), InvalidName> {
    check("the metric name", name, "[a-zA-Z_:][a-zA-Z0-9_:]*", |i, c| {
        c == '_' || c == ':' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit())
    })
}

/// `[a-zA-Z_][a-zA-Z0-9_]*`, not beginning with `__`.
pub fn check_label_name(name: &str) -> Result<(), InvalidName> {
    check("the label name", name, "[a-zA-Z_][a-zA-Z0-9_]*", |i, c| {
        c == '_' || c.is_ascii_alphabetic() || (i > 0 && c.is_ascii_digit())
    })?;
    if name.starts_with("__") {
        return Err(InvalidName::Reserved {
            name: name.to_owned(),
            why: "names with __ are Prometheus's own",
        });
    }
    Ok(())
}

/// A node's or a plugin's name: letters, digits, `.`, `_`, `-`, 1 to 253 of them, beginning with a letter or digit.
fn check_id(what: &'static str, text: &str) -> Result<(), InvalidName> {
    check(what, text, "letters, digits, '.', '_', '-', beginning with a letter or a digit", |i, c| {
        c.is_ascii_alphanumeric() || (i > 0 && matches!(c, '.' | '_' | '-'))
    })
}

macro_rules! id {
    ($name:ident, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Letters, digits, `.`, `_` and `-`, beginning with a letter or a digit.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                check_id($what, text)?;
                Ok(Self(text.into()))
            }

            /// Whether `new` would take this text, without an allocation.
            pub fn check(text: &str) -> Result<(), InvalidName> {
                check_id($what, text)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(NodeId, "the node name", "A node, as its certificate names it.");
id!(PluginId, "the plugin id", "A plugin, as the operator's config names it.");

/// Which nodes are meant: one name, or all names of a form, in which `*` stands for any characters, none too.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct NodePattern(String);

impl NodePattern {
    /// What `*` may stand in a pattern, so that matching stays cheap.
    const MOST_STARS: usize = 8;

    /// A node's name, or one with `*` in it.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        if text.matches('*').count() > Self::MOST_STARS {
            return Err(InvalidName::Reserved { name: text.to_owned(), why: "eight * are the most" });
        }
        check_id("the nodes' names", &text.replace('*', "0"))?;
        Ok(Self(text.to_owned()))
    }

    /// The name, where it is one.
    pub fn name(&self) -> Option<NodeId> {
        NodeId::new(&self.0).ok()
    }

    pub fn matches(&self, node: &NodeId) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(last) = parts.next_back() else { return node.as_str() == first };
        let inner = node.as_str().strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
        let Some(mut rest) = inner else { return false };
        for part in parts {
            // The first place that fits is as good as any.
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        true
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A metric family, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family {
    /// The whole name as exposed, `_total` and `_info` included.
    pub name: String,
    pub metric_type: MetricType,
    pub unit: String,
    pub help: String,
}

impl Family {
    /// Checks the name and bounds the help text. Control characters in help and unit become spaces.
    pub fn new(
        name: impl Into<String>,
        metric_type: MetricType,
        unit: impl Into<String>,
        help: &str,
    ) -> Result<Self, InvalidName> {
        let name = name.into();
        check_metric_name(&name)?;
        let unit = unit.into();
        if !unit.is_empty() {
            check_metric_name(&unit)?;
        }
        let mut help: String = help.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if help.len() > MAX_HELP {
            let end = (0..=MAX_HELP).rev().find(|&i| help.is_char_boundary(i)).unwrap_or(0);
            help.truncate(end);
        }
        Ok(Self { name, metric_type, unit, help })
    }
}

/// A series' labels: checked, ordered by name, no name twice, no empty value (an empty label is no label).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, InvalidName> {
        let mut list = Vec::new();
        for (name, value) in pairs {
            check_label_name(&name)?;
            if value.len() > MAX_LABEL_VALUE {
                return Err(InvalidName::TooLong {
                    what: "a label value",
                    len: value.len(),
                    max: MAX_LABEL_VALUE,
                    start: start_of(&value),
                });
            }
            if !value.is_empty() {
                list.push((name, value));
            }
            if list.len() > MAX_LABELS {
                return Err(InvalidName::TooMany { count: list.len(), max: MAX_LABELS });
            }
        }
        list.sort_unstable();
        if let Some(w) = list.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(InvalidName::Twice { name: w[0].0.clone() });
        }
        Ok(Self(list))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a series of this part may stand in a family of this type.
pub fn check_part(metric_type: MetricType, part: Part) -> Result<(), InvalidName> {
    let fits = match metric_type {
        MetricType::Histogram => matches!(part, Part::Bucket | Part::Sum | Part::Count),
        MetricType::Summary => matches!(part, Part::Quantile | Part::Sum | Part::Count),
        _ => part == Part::Value,
    };
    if fits { Ok(()) } else { Err(InvalidName::Part { part, metric_type }) }
}

/// What stands after the family's name: `_bucket`, `_sum`, `_count` or nothing.
pub fn suffix(part: Part) -> &'static str {
    match part {
        Part::Bucket => "_bucket",
        Part::Sum => "_sum",
        Part::Count => "_count",
        Part::Value | Part::Quantile => "",
    }
}

/// The type's word in the exposition. Prometheus text has no info and no state sets: they are gauges there.
pub fn type_word(metric_type: MetricType, open_metrics: bool) -> &'static str {
    match metric_type {
        MetricType::Gauge => "gauge",
        MetricType::Counter => "counter",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::Info if open_metrics => "info",
        MetricType::StateSet if open_metrics => "stateset",
        MetricType::Info | MetricType::StateSet => "gauge",
        MetricType::Unknown if open_metrics => "unknown",
        MetricType::Unknown => "untyped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["up", "node_cpu_seconds_total", "vllm:num_requests_running", "_x", "A9"] {
            check_metric_name(good).unwrap();
        }
        for bad in ["", "9up", "a-b", "a b", "a\nb", "ä", "{"] {
            assert!(check_metric_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_label_name("vllm:x").is_err());
        assert!(check_label_name("__name__").is_err());
        assert!(check_metric_name(&"a".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn patterns_of_nodes() {
        let matches = |pattern: &str, node: &str| {
            NodePattern::new(pattern).unwrap().matches(&NodeId::new(node).unwrap())
        };
        for (pattern, yes, no) in [
            ("gpu-1", &["gpu-1"][..], &["gpu-11", "gpu", "xgpu-1"][..]),
            ("gpu-*", &["gpu-", "gpu-1", "gpu-1.example"], &["gpu", "xgpu-1"]),
            ("*.example", &["a.example", "a.b.example"], &["a.example.org"]),
            ("a*a", &["aa", "aba"], &["a", "ab"]),
            ("r*-gpu-*-b", &["r1-gpu-2-b", "r-gpu--b"], &["r1-gpu-b", "r1-cpu-2-b"]),
            ("*", &["a", "anything.at-all"], &[]),
        ] {
            yes.iter().for_each(|node| assert!(matches(pattern, node), "{pattern} {node}"));
            no.iter().for_each(|node| assert!(!matches(pattern, node), "{pattern} {node}"));
        }
        for bad in ["", "a b", "-a", "a/*", "*********"] {
            assert!(NodePattern::new(bad).is_err(), "{bad}");
        }
        assert!(NodePattern::new("gpu-*").unwrap().name().is_none());
    }

    #[test]
    fn labels_are_ordered_and_unique() {
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        let l = Labels::new([pair("b", "2"), pair("a", "1"), pair("c", "")]).unwrap();
        assert_eq!(l.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert!(matches!(Labels::new([pair("a", "1"), pair("a", "2")]), Err(InvalidName::Twice { .. })));
        assert!(Labels::new([pair("a", &"x".repeat(1 << 20))]).is_err());
    }

    #[test]
    fn help_is_one_line() {
        let f = Family::new("a", MetricType::Gauge, "", "two\nlines").unwrap();
        assert_eq!(f.help, "two lines");
    }
}
