//! Relabelling, in Prometheus' words: the rules of `relabel_configs` and `metric_relabel_configs`.
//!
//! A rule sees the labels of a series, with its name as `__name__`, and changes them or drops the series. On a page
//! that is passed through it runs once a series, not once a sample.

use regex_lite::Regex;
use serde::Deserialize;

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Action {
    #[default]
    Replace,
    Keep,
    Drop,
    KeepEqual,
    DropEqual,
    HashMod,
    LabelMap,
    LabelDrop,
    LabelKeep,
    Lowercase,
    Uppercase,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    source_labels: Vec<String>,
    #[serde(default = "semicolon")]
    separator: String,
    #[serde(default)]
    target_label: String,
    #[serde(default = "everything")]
    regex: String,
    #[serde(default)]
    modulus: u64,
    #[serde(default = "first_group")]
    replacement: String,
    #[serde(default)]
    action: Action,
}

fn semicolon() -> String {
    ";".to_owned()
}

fn everything() -> String {
    "(.*)".to_owned()
}

fn first_group() -> String {
    "$1".to_owned()
}

/// A rule, checked; it deserialises from Prometheus' own keys (`source_labels`, `separator`, `regex`,
/// `target_label`, `replacement`, `modulus`, `action`) and defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct Relabel {
    source_labels: Vec<String>,
    separator: String,
    target_label: String,
    regex: Regex,
    modulus: u64,
    replacement: String,
    action: Action,
}

/// Why a rule can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum RelabelError {
    #[error("the regular expression {regex:?} is not valid: {why}")]
    Regex { regex: String, why: String },
    #[error("the action {0:?} needs target_label")]
    NoTarget(Action),
    #[error("target_label {0:?} is no label name")]
    Target(String),
    #[error("the action hashmod needs a modulus of 1 or more")]
    NoModulus,
}

impl TryFrom<Written> for Relabel {
    type Error = RelabelError;

    fn try_from(w: Written) -> Result<Self, RelabelError> {
        // Anchored at both ends, as in Prometheus; a dot takes newlines too.
        let regex = Regex::new(&format!("^(?s:{})$", w.regex))
            .map_err(|e| RelabelError::Regex { regex: w.regex.clone(), why: e.to_string() })?;
        let needs_target = matches!(
            w.action,
            Action::Replace
                | Action::HashMod
                | Action::Lowercase
                | Action::Uppercase
                | Action::KeepEqual
                | Action::DropEqual
        );
        if needs_target && w.target_label.is_empty() {
            return Err(RelabelError::NoTarget(w.action));
        }
        if needs_target && !w.target_label.contains('$') && !is_label(&w.target_label) {
            return Err(RelabelError::Target(w.target_label));
        }
        if w.action == Action::HashMod && w.modulus == 0 {
            return Err(RelabelError::NoModulus);
        }
        Ok(Self {
            source_labels: w.source_labels,
            separator: w.separator,
            target_label: w.target_label,
            regex,
            modulus: w.modulus,
            replacement: w.replacement,
            action: w.action,
        })
    }
}

fn is_label(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Labels as name and value, the metric's name as `__name__`.
type Labels = Vec<(String, String)>;

fn get<'a>(labels: &'a Labels, name: &str) -> &'a str {
    labels.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
}

fn put(labels: &mut Labels, name: &str, value: String) {
    match labels.iter_mut().find(|(n, _)| n == name) {
        Some((_, old)) => *old = value,
        None => labels.push((name.to_owned(), value)),
    }
}

impl Relabel {
    /// Applies one rule after another. `false`: the series is dropped. A label with an empty value is no label.
    pub fn apply_all(rules: &[Self], labels: &mut Labels) -> bool {
        rules.iter().all(|rule| rule.apply(labels)) && {
            labels.retain(|(_, value)| !value.is_empty());
            true
        }
    }

    fn apply(&self, labels: &mut Labels) -> bool {
        let values: Vec<&str> = self.source_labels.iter().map(|name| get(labels, name)).collect();
        let value = values.join(&self.separator);
        match self.action {
            Action::Keep => return self.regex.is_match(&value),
            Action::Drop => return !self.regex.is_match(&value),
            Action::KeepEqual => return get(labels, &self.target_label) == value,
            Action::DropEqual => return get(labels, &self.target_label) != value,
            Action::Replace => {
                let Some(found) = self.regex.captures(&value) else { return true };
                let mut target = String::new();
                found.expand(&self.target_label, &mut target);
                if is_label(&target) {
                    let mut new = String::new();
                    found.expand(&self.replacement, &mut new);
                    put(labels, &target, new);
                }
            }
            Action::Lowercase => put(labels, &self.target_label, value.to_lowercase()),
            Action::Uppercase => put(labels, &self.target_label, value.to_uppercase()),
            Action::HashMod => {
                let digest = md5::compute(value.as_bytes());
                let (_, tail) = digest.0.split_at(8);
                let word = tail.iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
                put(labels, &self.target_label, (word % self.modulus.max(1)).to_string());
            }
            Action::LabelMap => {
                let mapped: Labels = labels
                    .iter()
                    .filter_map(|(name, value)| {
                        let found = self.regex.captures(name)?;
                        let mut target = String::new();
                        found.expand(&self.replacement, &mut target);
                        is_label(&target).then(|| (target, value.clone()))
                    })
                    .collect();
                for (name, value) in mapped {
                    put(labels, &name, value);
                }
            }
            Action::LabelDrop => labels.retain(|(name, _)| !self.regex.is_match(name)),
            Action::LabelKeep => {
                labels.retain(|(name, _)| name.starts_with("__") || self.regex.is_match(name));
            }
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(rules: serde_json::Value, labels: &[(&str, &str)], wanted: Option<&[(&str, &str)]>) {
        let own = |list: &[(&str, &str)]| -> Labels {
            list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let parsed: Vec<Relabel> = serde_json::from_value(rules.clone()).unwrap();
        let mut labels = own(labels);
        let kept = Relabel::apply_all(&parsed, &mut labels);
        labels.sort();
        let got = kept.then_some(labels);
        assert_eq!(got, wanted.map(own), "{rules}");
    }

    /// The cases of Prometheus' own tests of its relabelling, where the rules are supported.
    #[test]
    fn as_prometheus_does() {
        let abc: &[(&str, &str)] = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
        check(
            json!([{"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "separator": ";",
                "replacement": "ch${1}-ch${1}"}]),
            abc,
            Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "choo-choo")]),
        );
        check(
            json!([
                {"source_labels": ["a", "b"], "regex": "f(.*);(.*)r", "target_label": "a", "replacement": "b${1}${2}m"},
                {"source_labels": ["c", "a"], "regex": "(b).*b(.*)ba(.*)", "target_label": "d",
                    "replacement": "$1$2$2$3"}
            ]),
            abc,
            Some(&[("a", "boobam"), ("b", "bar"), ("c", "baz"), ("d", "boooom")]),
        );
        check(
            json!([
                {"source_labels": ["a"], "regex": ".*o.*", "action": "drop"},
                {"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "replacement": "x"}
            ]),
            &[("a", "foo")],
            None,
        );
        check(
            json!([{"source_labels": ["a"], "regex": "no-match", "action": "drop"}]),
            &[("a", "abc")],
            Some(&[("a", "abc")]),
        );
        check(
            json!([{"source_labels": ["a"], "regex": "f|o", "action": "drop"}]),
            &[("a", "foo")],
            Some(&[("a", "foo")]),
        );
        check(
            json!([{"source_labels": ["a"], "regex": "no-match", "action": "keep"}]),
            &[("a", "foo")],
            None,
        );
        check(
            json!([{"source_labels": ["a"], "regex": "f.*", "action": "keep"}]),
            &[("a", "foo")],
            Some(&[("a", "foo")]),
        );
        // No match: no replacement; an empty replacement removes the label.
        check(
            json!([{"source_labels": ["a"], "regex": "f", "target_label": "b", "replacement": "bar"}]),
            &[("a", "boo"), ("b", "baz")],
            Some(&[("a", "boo"), ("b", "baz")]),
        );
        check(
            json!([{"source_labels": ["a"], "regex": "(f).*", "target_label": "a", "replacement": ""}]),
            &[("a", "foo"), ("b", "baz")],
            Some(&[("b", "baz")]),
        );
        check(
            json!([{"source_labels": ["c"], "target_label": "d", "action": "hashmod", "modulus": 1000}]),
            abc,
            Some(&[("a", "foo"), ("b", "bar"), ("c", "baz"), ("d", "976")]),
        );
        check(
            json!([{"source_labels": ["a"], "target_label": "d", "action": "hashmod", "modulus": 1000}]),
            &[("a", "foo\nbar"), ("b", "bar"), ("c", "baz")],
            Some(&[("a", "foo\nbar"), ("b", "bar"), ("c", "baz"), ("d", "734")]),
        );
        check(
            json!([{"regex": "(b.*)", "replacement": "bar_${1}", "action": "labelmap"}]),
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            Some(&[("a", "foo"), ("b1", "bar"), ("b2", "baz"), ("bar_b1", "bar"), ("bar_b2", "baz")]),
        );
        check(
            json!([{"regex": "__meta_(my.*)", "replacement": "${1}", "action": "labelmap"}]),
            &[("a", "foo"), ("__meta_my_bar", "aaa"), ("__meta_other", "x")],
            Some(&[("__meta_my_bar", "aaa"), ("__meta_other", "x"), ("a", "foo"), ("my_bar", "aaa")]),
        );
        check(
            json!([{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${2}",
                "target_label": "${1}"}]),
            &[("a", "some-name-value")],
            Some(&[("a", "some-name-value"), ("name", "value")]),
        );
        check(
            json!([{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "replacement": "${3}",
                "target_label": "${3}"}]),
            &[("a", "some-name-value")],
            Some(&[("a", "some-name-value")]),
        );
        check(
            json!([{"regex": "(b.*)", "action": "labeldrop"}]),
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            Some(&[("a", "foo")]),
        );
        check(
            json!([{"regex": "(b.*)", "action": "labelkeep"}]),
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            Some(&[("b1", "bar"), ("b2", "baz")]),
        );
        check(
            json!([{"source_labels": ["a"], "target_label": "a", "action": "uppercase"}]),
            &[("a", "foO")],
            Some(&[("a", "FOO")]),
        );
        check(
            json!([{"source_labels": ["a"], "target_label": "b", "action": "keepequal"}]),
            &[("a", "x"), ("b", "y")],
            None,
        );
        check(
            json!([{"source_labels": ["a"], "target_label": "b", "action": "dropequal"}]),
            &[("a", "x"), ("b", "x")],
            None,
        );
    }

    #[test]
    fn rules_that_cannot_be_used() {
        for rule in [
            json!({"action": "replace"}),
            json!({"action": "hashmod", "target_label": "a"}),
            json!({"action": "keep", "regex": "("}),
            json!({"target_label": "not-a-label"}),
            json!({"target": "a"}),
            json!({"action": "explode"}),
        ] {
            assert!(serde_json::from_value::<Relabel>(rule.clone()).is_err(), "{rule}");
        }
    }
}
