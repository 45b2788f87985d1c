//! Which units a plugin may look at, and what it may do to them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::grants::{Granted, list, string};

const PROGRAM: &str = "/usr/bin/systemctl";

/// What may be done to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Restart,
    Reload,
    Start,
    Stop,
}

impl Verb {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Whole names; a `*` stands for any run of characters: `vllm@*.service`.
    pub units: Vec<String>,
    /// What may be done to them; none: they may be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<Verb>,
    #[serde(default = "program", skip_serializing_if = "is_program")]
    pub program: String,
}

fn program() -> String {
    PROGRAM.to_owned()
}

fn is_program(program: &str) -> bool {
    program == PROGRAM
}

/// The grants of one plugin.
#[derive(Debug)]
pub(crate) struct Rules(Vec<Scope>);

impl Rules {
    /// The program of the first grant that lets this unit be changed so, or looked at.
    pub(super) fn program(&self, unit: &str, verb: Option<Verb>) -> Result<&str, Error> {
        let of_unit = |s: &&Scope| s.units.iter().any(|pattern| fits(pattern, unit));
        let found = self.0.iter().filter(of_unit).find(|s| verb.is_none_or(|v| s.verbs.contains(&v)));
        found.map(|s| s.program.as_str()).ok_or_else(|| {
            let unit: String = unit.chars().take(80).collect();
            match verb {
                Some(verb) => Error::Denied(format!("{verb} of the unit {unit}")),
                None => Error::Denied(format!("the unit {unit}")),
            }
        })
    }
}

/// `*` in the pattern is any run of characters, of the instance's name or whatever stands there.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part).and_then(|at| rest.get(at + part.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl Granted for Scope {
    type Compiled = Rules;

    fn compile(scopes: &[&Self]) -> Result<Rules, String> {
        for scope in scopes {
            if scope.units.is_empty() {
                return Err("`units` is empty: name the units".to_owned());
            }
            if let Some(unit) = scope.units.iter().find(|u| u.starts_with('*') || !u.contains('.')) {
                return Err(format!(
                    "`units`: {unit:?}: write whole names, as in \"vllm.service\"; a star may stand for a part behind the \
                     first letter"
                ));
            }
            if !scope.program.starts_with('/') {
                return Err(format!("`program`: {:?} is not an absolute path", scope.program));
            }
        }
        Ok(Rules(scopes.iter().map(|s| (*s).clone()).collect()))
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        // Which units is the operator's to say, and which verbs: fewer is no refusal.
        grants.is_empty().then(|| self.clone())
    }

    fn example() -> Self {
        Self { units: vec!["example.service".to_owned()], verbs: vec![Verb::Restart], program: program() }
    }

    fn lines(&self) -> String {
        let mut out = format!("units = {}\n", list(&self.units));
        if !self.verbs.is_empty() {
            let verbs: Vec<String> = self.verbs.iter().map(ToString::to_string).collect();
            out.push_str(&format!("verbs = {}\n", list(&verbs)));
        }
        if !is_program(&self.program) {
            out.push_str(&format!("program = {}\n", string(&self.program)));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, wanted) in [
            ("vllm.service", "vllm.service", true),
            ("vllm.service", "vllm.service2", false),
            ("vllm.service", "xvllm.service", false),
            ("vllm@*.service", "vllm@a.service", true),
            ("vllm@*.service", "vllm@.service", true),
            ("vllm@*.service", "vllm.service", false),
            ("vllm@*.service", "vllm@a.socket", false),
            ("a*b*c.service", "axbyc.service", true),
            ("a*b*c.service", "axc.service", false),
            ("a*.service", "a.service.d.timer", false),
        ] {
            assert_eq!(fits(pattern, name), wanted, "{pattern} {name}");
        }
    }
}
