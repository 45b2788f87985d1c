//! Which names to leave out. A pattern is matched once a name; its verdict is kept.

use std::collections::HashMap;

use picket_sdk::Failure;
use regex_lite::Regex;

/// Verdicts that are kept; names that come and go (containers' interfaces) must not add up.
const KEPT: usize = 4096;

/// Two patterns, either may be absent.
#[derive(Default)]
pub struct Filter {
    exclude: Option<Regex>,
    include: Option<Regex>,
    known: HashMap<Box<str>, bool>,
}

impl Filter {
    /// `what` is the settings' table, for the error's text.
    pub fn new(what: &str, exclude: &str, include: &str) -> Result<Self, Failure> {
        let compile = |pattern: &str| match pattern {
            "" => Ok(None),
            pattern => Regex::new(pattern).map(Some).map_err(|e| {
                let message = format!("settings of {what}: {pattern:?} is no regular expression: {e}");
                Failure::new("settings", message)
            }),
        };
        Ok(Self { exclude: compile(exclude)?, include: compile(include)?, known: HashMap::new() })
    }

    /// Whether to leave it out.
    pub fn ignores(&mut self, name: &str) -> bool {
        if let Some(verdict) = self.known.get(name) {
            return *verdict;
        }
        let verdict = self.exclude.as_ref().is_some_and(|r| r.is_match(name))
            || self.include.as_ref().is_some_and(|r| !r.is_match(name));
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        self.known.insert(name.into(), verdict);
        verdict
    }
}
