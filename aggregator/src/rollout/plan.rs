//! How a rollout goes: onto which nodes, in which stages, and what stops it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Stages of one rollout.
const MAX_STAGES: usize = 16;
/// Conditions of one selector.
const MAX_TERMS: usize = 16;
/// The longest label, name or value.
const MAX_TEXT: usize = 253;

/// What the operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub stages: Vec<Stage>,
    /// All of a stage's nodes must be well for so long before the next one begins.
    pub soak_ms: i64,
    /// A node that has not come to run it by then, or is not well for so long, has failed.
    pub timeout_ms: i64,
    /// With more failures it halts.
    pub max_failures: usize,
}

/// How many nodes have it when a stage is full, those of the stages before included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Nodes(usize),
    /// Of those that the selector matches; one at least.
    Percent(u8),
    All,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("{0:?} is no stage: write a number of nodes, a percentage such as 10%, or all")]
    Stage(String),
    #[error("there are {0} stages; 1 to {MAX_STAGES} are allowed")]
    Count(usize),
    #[error("the stage {after} comes after {before} and is not larger: stages grow")]
    Order { before: Stage, after: Stage },
    #[error("{0:?} is no selector: write label=value or label!=value, more of them with commas between")]
    Selector(String),
}

impl Stage {
    /// Nodes that have it when this stage is full.
    pub fn of(self, matching: usize) -> usize {
        match self {
            Self::Nodes(nodes) => nodes.min(matching),
            Self::Percent(percent) => (matching * usize::from(percent)).div_ceil(100),
            Self::All => matching,
        }
    }

    /// `1,10%,all`
    ///
    /// # Errors
    /// [`PlanError`]
    pub fn list(text: &str) -> Result<Vec<Self>, PlanError> {
        let stages = text.split(',').map(str::parse).collect::<Result<Vec<Self>, _>>()?;
        Self::check(&stages)?;
        Ok(stages)
    }

    /// # Errors
    /// [`PlanError`]
    pub fn check(stages: &[Self]) -> Result<(), PlanError> {
        if !(1..=MAX_STAGES).contains(&stages.len()) {
            return Err(PlanError::Count(stages.len()));
        }
        for pair in stages.windows(2) {
            let [before, after] = pair else { continue };
            let grows = match (before, after) {
                (Self::Nodes(a), Self::Nodes(b)) => a < b,
                (Self::Percent(a), Self::Percent(b)) => a < b,
                (Self::All, _) => false,
                // How many those are the fleet says.
                _ => true,
            };
            if !grows {
                return Err(PlanError::Order { before: *before, after: *after });
            }
        }
        Ok(())
    }
}

impl FromStr for Stage {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let invalid = || PlanError::Stage(text.chars().take(40).collect());
        let word = text.trim();
        if word == "all" {
            return Ok(Self::All);
        }
        match word.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.trim().parse::<u8>().ok().filter(|p| (1..=100).contains(p));
                percent.map(Self::Percent).ok_or_else(invalid)
            }
            None => word.parse().ok().filter(|nodes| *nodes > 0).map(Self::Nodes).ok_or_else(invalid),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::All => f.write_str("all"),
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which nodes, by their labels; `node` is a node's name. Empty: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSelector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    label: String,
    equal: bool,
    value: String,
}

impl NodeSelector {
    pub fn matches(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|term| {
            let value = match term.label.as_str() {
                "node" => Some(node),
                label => labels.get(label).map(String::as_str),
            };
            (value == Some(term.value.as_str())) == term.equal
        })
    }
}

impl FromStr for NodeSelector {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let invalid = || PlanError::Selector(text.chars().take(200).collect());
        let mut terms = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (label, equal, value) = match (word.split_once("!="), word.split_once('=')) {
                (Some((label, value)), _) => (label, false, value),
                (None, Some((label, value))) => (label, true, value),
                (None, None) => return Err(invalid()),
            };
            let (label, value) = (label.trim(), value.trim());
            let good = picket_proto::model::check_label_name(label).is_ok()
                && !value.is_empty()
                && !value.contains(['=', '"', '~'])
                && label.len().max(value.len()) <= MAX_TEXT;
            if !good || terms.len() >= MAX_TERMS {
                return Err(invalid());
            }
            terms.push(Term { label: label.to_owned(), equal, value: value.to_owned() });
        }
        Ok(Self(terms))
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{}{}{}", term.label, if term.equal { "=" } else { "!=" }, term.value)?;
        }
        Ok(())
    }
}

impl Serialize for NodeSelector {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NodeSelector {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stages() {
        let list = Stage::list("1, 10 %,all").unwrap();
        assert_eq!(list, [Stage::Nodes(1), Stage::Percent(10), Stage::All]);
        let sizes = |matching| list.iter().map(|stage| stage.of(matching)).collect::<Vec<_>>();
        assert_eq!((sizes(3), sizes(101), sizes(0)), (vec![1, 1, 3], vec![1, 11, 101], vec![0, 0, 0]));
        for bad in ["", "0", "1,,2", "101%", "0%", "-1", "2,1", "all,1", "10%,5%", "1,1", "some", "1e3"] {
            assert!(Stage::list(bad).is_err(), "{bad}");
        }
        assert!(Stage::list(&vec!["1"; 17].join(",")).is_err());
    }

    #[test]
    fn selectors() {
        let labels = BTreeMap::from([("rack".to_owned(), "r1".to_owned())]);
        for (text, wanted) in [
            ("", true),
            ("rack=r1", true),
            ("rack=r2", false),
            ("rack!=r2", true),
            ("gpu!=h100", true),
            ("gpu=h100", false),
            ("node=n1, rack=r1", true),
            ("node=n2,rack=r1", false),
        ] {
            assert_eq!(text.parse::<NodeSelector>().unwrap().matches("n1", &labels), wanted, "{text}");
        }
        for bad in ["rack", "=x", "rack=", "rack==r1", "rack=~r", "__name__=x", "a b=c"] {
            assert!(bad.parse::<NodeSelector>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(text in "[a-z0-9=!,% ]{0,40}") {
            if let Ok(selector) = text.parse::<NodeSelector>() {
                prop_assert_eq!(selector.to_string().parse::<NodeSelector>().unwrap(), selector);
            }
            if let Ok(stage) = text.parse::<Stage>() {
                prop_assert_eq!(stage.to_string().parse::<Stage>().unwrap(), stage);
            }
        }
    }
}
