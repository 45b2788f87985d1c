//! Which containers a plugin may change, and how.
//!
//! Filter and verbs belong together: of two grants each has its own containers for its own verbs.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::containers;
use crate::grants::{Granted, list};

/// What may be done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Restart,
    Stop,
    Start,
    Kill,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Kill => "kill",
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
    /// The engines' sockets.
    #[serde(default = "docker")]
    pub sockets: Vec<String>,
    /// `name` or `name=value`: a container may be changed that has one of these labels; `"*"`: every container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Or whose image is one of these; a trailing `*` stands for any rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    pub verbs: Vec<Verb>,
}

fn docker() -> Vec<String> {
    vec!["/run/docker.sock".to_owned()]
}

/// The grants of one plugin, ready for the check of each call.
#[derive(Debug)]
pub(crate) struct Rules(Vec<(BTreeSet<Verb>, Arc<containers::Permit>)>);

impl Rules {
    /// The filters of the grants that have this verb.
    pub(super) fn with(&self, verb: Verb) -> impl Iterator<Item = &containers::Permit> {
        self.0.iter().filter(move |(verbs, _)| verbs.contains(&verb)).map(|(_, permit)| permit.as_ref())
    }

    /// All that are granted, for a person.
    pub(super) fn verbs(&self) -> String {
        let verbs: BTreeSet<&str> = self.0.iter().flat_map(|(verbs, _)| verbs).map(|v| v.word()).collect();
        verbs.into_iter().collect::<Vec<_>>().join(", ")
    }
}

impl Granted for Scope {
    type Compiled = Rules;

    fn compile(scopes: &[&Self]) -> Result<Rules, String> {
        let mut rules = Vec::new();
        for scope in scopes {
            if scope.verbs.is_empty() {
                return Err(
                    "`verbs` is empty: write verbs = [\"restart\"], or leave the grant out".to_owned()
                );
            }
            let filter = containers::Scope {
                sockets: scope.sockets.clone(),
                labels: scope.labels.clone(),
                images: scope.images.clone(),
                env: Vec::new(),
            };
            rules.push((scope.verbs.iter().copied().collect(), containers::Scope::compile(&[&filter])?));
        }
        Ok(Rules(rules))
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        // Which containers is the operator's to say, and which verbs: fewer is no refusal.
        grants.is_empty().then(|| self.clone())
    }

    fn example() -> Self {
        Self {
            sockets: docker(),
            labels: vec!["picket.actions=true".to_owned()],
            images: Vec::new(),
            verbs: vec![Verb::Restart],
        }
    }

    fn lines(&self) -> String {
        let mut out = format!("sockets = {}\n", list(&self.sockets));
        for (key, words) in [("labels", &self.labels), ("images", &self.images)] {
            if !words.is_empty() {
                out.push_str(&format!("{key} = {}\n", list(words)));
            }
        }
        let verbs: Vec<String> = self.verbs.iter().map(ToString::to_string).collect();
        out.push_str(&format!("verbs = {}\n", list(&verbs)));
        out
    }
}
