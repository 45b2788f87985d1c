//! What an operator may say, and the rules that come of it.

use picket_sdk::Failure;
use regex_lite::Regex;
use serde::Deserialize;

use crate::level::Level;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub files: Vec<String>,
    pub units: Vec<String>,
    pub from: From,
    pub job: String,
    pub container_labels: Vec<String>,
    pub max_line: usize,
    pub max_streams: usize,
    pub multiline: Multiline,
    pub redact: Redact,
    pub drop: Vec<DropRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    End,
    Beginning,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Multiline {
    pub enabled: bool,
    pub lines: usize,
    pub seconds: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redact {
    pub defaults: bool,
    pub rules: Vec<RedactRule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactRule {
    pub name: String,
    #[serde(rename = "match")]
    pub pattern: String,
    #[serde(default = "stars")]
    pub replace: String,
    #[serde(default)]
    pub contains: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRule {
    pub name: String,
    #[serde(default, rename = "match")]
    pub pattern: String,
    #[serde(default)]
    pub levels: Vec<String>,
    #[serde(default)]
    pub containers: Vec<String>,
    #[serde(default)]
    pub units: Vec<String>,
}

fn stars() -> String {
    "***".to_owned()
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            units: Vec::new(),
            from: From::End,
            job: "logs".to_owned(),
            container_labels: Vec::new(),
            max_line: 16 << 10,
            max_streams: 500,
            multiline: Multiline::default(),
            redact: Redact::default(),
            drop: Vec::new(),
        }
    }
}

impl Default for Multiline {
    fn default() -> Self {
        Self { enabled: true, lines: 200, seconds: 3.0 }
    }
}

impl Default for Redact {
    fn default() -> Self {
        Self { defaults: true, rules: Vec::new() }
    }
}

/// A drop rule made ready: all that it names must be so.
#[derive(Debug)]
pub struct Dropper {
    pub name: String,
    pattern: Option<Regex>,
    levels: Vec<Level>,
    containers: Vec<String>,
    units: Vec<String>,
}

impl Dropper {
    fn new(rule: &DropRule) -> Result<Self, Failure> {
        let bad = |what: String| Failure::new("settings", format!("drop rule {:?}: {what}", rule.name));
        let levels = rule
            .levels
            .iter()
            .map(|word| {
                Level::of_word(word)
                    .ok_or_else(|| bad(format!("{word:?} is no level; write for example \"debug\"")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (containers, units) = (rule.containers.clone(), rule.units.clone());
        if rule.pattern.is_empty() && levels.is_empty() && containers.is_empty() && units.is_empty() {
            return Err(bad("it names nothing, and would drop every line".to_owned()));
        }
        let pattern = match rule.pattern.as_str() {
            "" => None,
            text => Some(Regex::new(text).map_err(|e| bad(e.to_string()))?),
        };
        Ok(Self { name: rule.name.clone(), pattern, levels, containers, units })
    }

    pub fn drops(&self, text: &str, level: Level, container: &str, unit: &str) -> bool {
        let named = |list: &[String], word: &str| list.is_empty() || list.iter().any(|one| one == word);
        (self.levels.is_empty() || self.levels.contains(&level))
            && named(&self.containers, container)
            && named(&self.units, unit)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    }
}

impl Settings {
    /// # Errors
    /// The first rule that can't be used.
    pub fn droppers(&self) -> Result<Vec<Dropper>, Failure> {
        self.drop.iter().map(Dropper::new).collect()
    }

    /// # Errors
    /// A number that makes no sense.
    pub fn check(&self) -> Result<(), Failure> {
        let bad = |what: &str| Err(Failure::new("settings", what));
        if !(256..=65_536).contains(&self.max_line) {
            return bad("max_line must be from 256 to 65536 bytes");
        }
        if !(1..=10_000).contains(&self.max_streams) {
            return bad("max_streams must be from 1 to 10000");
        }
        if !(2..=1000).contains(&self.multiline.lines) || !(0.0..=60.0).contains(&self.multiline.seconds) {
            return bad("multiline.lines must be from 2 to 1000, and multiline.seconds from 0 to 60");
        }
        Ok(())
    }
}
