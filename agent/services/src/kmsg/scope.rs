//! Which kernel messages a plugin may see.

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, list};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// A message is seen that contains one of these; `"*"`: all.
    pub containing: Vec<String>,
}

/// The words of which a message must contain one; none: any message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter(Option<Vec<String>>);

impl Filter {
    pub(crate) fn admits(&self, text: &str) -> bool {
        self.0.as_ref().is_none_or(|words| words.iter().any(|w| text.contains(w.as_str())))
    }

    /// Whatever the other one admits, this one does too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(mine), Some(its)) => its.iter().all(|word| mine.iter().any(|m| word.contains(m.as_str()))),
        }
    }
}

impl Granted for Scope {
    type Compiled = Filter;

    fn compile(scopes: &[&Self]) -> Result<Filter, String> {
        let words: Vec<String> = scopes.iter().flat_map(|s| s.containing.iter().cloned()).collect();
        if words.iter().any(String::is_empty) {
            return Err(
                "`containing`: an empty word admits every message; write \"*\" if that is meant".to_owned()
            );
        }
        Ok(Filter((!words.iter().any(|w| w == "*")).then_some(words)))
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let granted = |word: &String| {
            grants
                .iter()
                .flat_map(|g| &g.containing)
                .any(|g| g == "*" || word != "*" && word.contains(g.as_str()))
        };
        let rest: Vec<String> = self.containing.iter().filter(|w| !granted(w)).cloned().collect();
        (!rest.is_empty()).then_some(Self { containing: rest })
    }

    fn example() -> Self {
        Self { containing: vec!["NVRM: Xid".to_owned()] }
    }

    fn lines(&self) -> String {
        format!("containing = {}\n", list(&self.containing))
    }
}
