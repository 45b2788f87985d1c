//! Runs a query's stages on lines.

use std::borrow::Cow;

use picket_proto::model::Labels;

use super::ast::{LabelFilter, Needle, Quantity, Stage, TextTest};
use super::{fields, units};

pub const ERROR: &str = "__error__";
pub const ERROR_DETAILS: &str = "__error_details__";

/// A query's stages, ready.
pub struct Pipeline<'a> {
    stages: &'a [Stage],
    /// Whether labels may be others than the stream's.
    changes_labels: bool,
}

/// A line's labels: the stream's, less those dropped, and those found in it.
#[derive(Debug, Default)]
pub struct Extracted {
    found: Vec<(String, String)>,
    dropped: Vec<String>,
    kept: Option<Vec<String>>,
    error: Option<(&'static str, String)>,
}

impl<'a> Pipeline<'a> {
    pub fn new(stages: &'a [Stage]) -> Self {
        let changes_labels = stages.iter().any(|stage| match stage {
            Stage::Line(_) => false,
            // A number filter can fail, which is a label.
            Stage::Label(filter) => can_fail(filter),
            _ => true,
        });
        Self { stages, changes_labels }
    }

    pub fn changes_labels(&self) -> bool {
        self.changes_labels
    }

    /// A text that every line has to have, for a quick look.
    pub fn needle(&self) -> Option<&'a str> {
        self.stages.iter().take_while(|stage| matches!(stage, Stage::Line(_))).find_map(|stage| match stage {
            Stage::Line(filter) if !filter.negated => match filter.any.as_slice() {
                [Needle::Text(text)] if !text.is_empty() => Some(text.as_str()),
                _ => None,
            },
            _ => None,
        })
    }

    /// `false`: the line is not wanted. `extracted` is cleared first.
    pub fn run(&self, labels: &Labels, line: &str, extracted: &mut Extracted) -> bool {
        if self.changes_labels {
            extracted.clear();
        }
        self.stages.iter().all(|stage| match stage {
            Stage::Line(filter) => filter.holds(line),
            Stage::Json => {
                let result = fields::json(line, |name, value| extracted.add(labels, name, value));
                if let Err(details) = result {
                    extracted.fail("JSONParserErr", details);
                }
                true
            }
            Stage::Logfmt => {
                fields::logfmt(line, |name, value| extracted.add(labels, name, value));
                true
            }
            Stage::Label(filter) => holds(filter, labels, extracted),
            Stage::Drop(names) => {
                for name in names {
                    extracted.drop_label(name);
                }
                true
            }
            Stage::Keep(names) => {
                extracted.keep(names);
                true
            }
        })
    }
}

fn can_fail(filter: &LabelFilter) -> bool {
    match filter {
        LabelFilter::Text { .. } => false,
        LabelFilter::Number { .. } => true,
        LabelFilter::And(a, b) | LabelFilter::Or(a, b) => can_fail(a) || can_fail(b),
    }
}

fn holds(filter: &LabelFilter, labels: &Labels, extracted: &mut Extracted) -> bool {
    match filter {
        LabelFilter::Text { name, test } => {
            let value = extracted.get(labels, name).unwrap_or_default();
            // An error of an earlier stage is a label too.
            match test {
                TextTest::Equal(want) => value == want.as_str(),
                test => test.holds(&value),
            }
        }
        LabelFilter::Number { name, compare, value } => {
            let Some(text) = extracted.get(labels, name) else { return false };
            let (found, wanted) = match *value {
                Quantity::Number(number) => (text.trim().parse().ok(), number),
                Quantity::Duration(ns) => (units::duration_ns(text.trim()), ns),
                Quantity::Bytes(bytes) => (units::bytes(text.trim()), bytes),
            };
            match found {
                Some(found) => compare.holds(found, wanted),
                None => {
                    let details = format!("the label {name} is {text:?}, which can't be compared");
                    extracted.fail("LabelFilterErr", &details);
                    true
                }
            }
        }
        LabelFilter::And(a, b) => holds(a, labels, extracted) && holds(b, labels, extracted),
        LabelFilter::Or(a, b) => holds(a, labels, extracted) || holds(b, labels, extracted),
    }
}

impl Extracted {
    fn clear(&mut self) {
        self.found.clear();
        self.dropped.clear();
        self.kept = None;
        self.error = None;
    }

    /// A stream's own label stays; what is found under its name gets another.
    fn add(&mut self, labels: &Labels, mut name: String, value: String) {
        if labels.get(&name).is_some() {
            name.push_str("_extracted");
        }
        self.dropped.retain(|dropped| *dropped != name);
        match self.found.iter_mut().find(|(found, _)| *found == name) {
            // The first one counts, as in Loki.
            Some(_) => {}
            None => self.found.push((name, value)),
        }
    }

    fn fail(&mut self, error: &'static str, details: &str) {
        if self.error.is_none() {
            self.error = Some((error, details.to_owned()));
        }
    }

    fn drop_label(&mut self, name: &str) {
        match name {
            ERROR => self.error = None,
            ERROR_DETAILS => {
                if let Some((_, details)) = &mut self.error {
                    details.clear();
                }
            }
            name => {
                self.found.retain(|(found, _)| found != name);
                self.dropped.push(name.to_owned());
            }
        }
    }

    fn keep(&mut self, names: &[String]) {
        self.found.retain(|(found, _)| names.contains(found));
        self.kept = Some(match self.kept.take() {
            Some(before) => before.into_iter().filter(|name| names.contains(name)).collect(),
            None => names.to_vec(),
        });
    }

    /// Whether a stream's own label is still there.
    fn has_own(&self, name: &str) -> bool {
        !self.dropped.iter().any(|dropped| dropped == name)
            && self.kept.as_ref().is_none_or(|kept| kept.iter().any(|k| k == name))
    }

    fn get<'b>(&'b self, labels: &'b Labels, name: &str) -> Option<Cow<'b, str>> {
        match (name, &self.error) {
            (ERROR, Some((error, _))) => return Some(Cow::Borrowed(error)),
            (ERROR_DETAILS, Some((_, details))) => return Some(Cow::Owned(details.clone())),
            _ => {}
        }
        if let Some((_, value)) = self.found.iter().find(|(found, _)| found == name) {
            return Some(Cow::Owned(value.clone()));
        }
        labels.get(name).filter(|_| self.has_own(name)).map(Cow::Borrowed)
    }

    pub fn error(&self) -> Option<&'static str> {
        self.error.as_ref().map(|(error, _)| *error)
    }

    /// All of a line's labels, in order of name.
    pub fn labels(&self, labels: &Labels) -> Vec<(String, String)> {
        let own = labels.iter().filter(|(name, _)| self.has_own(name));
        let mut all: Vec<(String, String)> = own.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        all.extend(self.found.iter().cloned());
        if let Some((error, details)) = &self.error {
            all.push((ERROR.to_owned(), (*error).to_owned()));
            if !details.is_empty() {
                all.push((ERROR_DETAILS.to_owned(), details.clone()));
            }
        }
        all.sort_unstable();
        all
    }
}
