//! Which commands a plugin may run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, list, string};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub commands: Vec<CommandRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandRule {
    /// What the plugin calls it.
    pub name: String,
    /// Absolute. In a manifest's needs: where it usually is.
    pub program: String,
    /// `{slot}` stands for a slot's value, always within one argument.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// What each slot takes: `word` (letters, digits, `_`, `.`, `-`, not at the start), `number`, `words` (a list of
    /// words with commas).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slots: BTreeMap<String, String>,
}

impl Granted for Scope {
    type Compiled = Vec<CommandRule>;

    fn compile(scopes: &[&Self]) -> Result<Vec<CommandRule>, String> {
        let rules: Vec<CommandRule> = scopes.iter().flat_map(|s| s.commands.iter().cloned()).collect();
        for rule in &rules {
            if !rule.program.starts_with('/') {
                return Err(format!(
                    "command {:?}: `program` {:?} is not an absolute path",
                    rule.name, rule.program
                ));
            }
        }
        Ok(rules)
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        // The operator's own words for a name count, whatever the author thought of.
        let granted = |name: &str| grants.iter().flat_map(|g| &g.commands).any(|g| g.name == name);
        let rest: Vec<CommandRule> = self.commands.iter().filter(|n| !granted(&n.name)).cloned().collect();
        (!rest.is_empty()).then_some(Self { commands: rest })
    }

    fn example() -> Self {
        let rule = CommandRule {
            name: "sinfo".to_owned(),
            program: "/usr/bin/sinfo".to_owned(),
            arguments: vec!["--json".to_owned()],
            slots: BTreeMap::new(),
        };
        Self { commands: vec![rule] }
    }

    fn lines(&self) -> String {
        let rules: Vec<String> = self
            .commands
            .iter()
            .map(|r| {
                let mut parts =
                    vec![format!("name = {}", string(&r.name)), format!("program = {}", string(&r.program))];
                if !r.arguments.is_empty() {
                    parts.push(format!("arguments = {}", list(&r.arguments)));
                }
                if !r.slots.is_empty() {
                    let slots: Vec<String> =
                        r.slots.iter().map(|(k, v)| format!("{} = {}", string(k), string(v))).collect();
                    parts.push(format!("slots = {{ {} }}", slots.join(", ")));
                }
                format!("  {{ {} }}", parts.join(", "))
            })
            .collect();
        format!("commands = [\n{},\n]\n", rules.join(",\n"))
    }
}
