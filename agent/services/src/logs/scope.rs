//! Which logs a plugin may read.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::containers::{self, Permit};
use crate::grants::{Granted, PathSet, list, path_covers, string};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Patterns of files, as in the grant `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Units of the journal; `"*"`: all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// The folder of the journal's files, where it is not this system's own. The operator's to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// Containers whose output is asked of their engine where it keeps no file that the patterns match: which ones, as in the grant
    /// `containers`. The operator's to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<containers::Scope>,
}

/// A scope made ready for the check of each call.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub patterns: Vec<String>,
    pub units: Vec<String>,
    pub journal: Option<String>,
    pub containers: Option<Arc<Permit>>,
}

impl Compiled {
    /// Everything that `pattern` matches is granted.
    pub fn grants_files(&self, pattern: &str) -> bool {
        self.patterns.iter().any(|granted| path_covers(granted, pattern))
    }

    pub fn grants_unit(&self, unit: &str) -> bool {
        self.units.iter().any(|granted| granted == "*" || granted == unit)
    }
}

impl Granted for Scope {
    type Compiled = Compiled;

    fn compile(scopes: &[&Self]) -> Result<Compiled, String> {
        let patterns: Vec<String> = scopes.iter().flat_map(|s| s.files.iter().cloned()).collect();
        let units: Vec<String> = scopes.iter().flat_map(|s| s.units.iter().cloned()).collect();
        if let Some(unit) = units.iter().find(|unit| !usable_unit(unit)) {
            return Err(format!("{unit:?} is no unit's name; write \"docker.service\", or \"*\" for all"));
        }
        let mut journals = scopes.iter().filter_map(|s| s.journal.as_ref());
        let journal = journals.next().cloned();
        if let (Some(one), Some(other)) = (&journal, journals.next()) {
            return Err(format!("`journal` is given twice, {one:?} and {other:?}; one is possible"));
        }
        if journal.as_ref().is_some_and(|folder| !folder.starts_with('/')) {
            return Err("`journal` is relative; write a path that begins with /".to_owned());
        }
        PathSet::new(&patterns).map_err(|e| e.to_string())?;
        let engines: Vec<&containers::Scope> = scopes.iter().filter_map(|s| s.containers.as_ref()).collect();
        let containers = if engines.is_empty() {
            None
        } else {
            Some(containers::Scope::compile(&engines).map_err(|e| format!("`containers`: {e}"))?)
        };
        Ok(Compiled { patterns, units, journal, containers })
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let file = |path: &String| grants.iter().flat_map(|g| &g.files).any(|g| path_covers(g, path));
        let unit = |unit: &String| grants.iter().flat_map(|g| &g.units).any(|g| g == "*" || g == unit);
        let rest = Self {
            files: self.files.iter().filter(|p| !file(p)).cloned().collect(),
            units: self.units.iter().filter(|u| !unit(u)).cloned().collect(),
            journal: None,
            containers: None,
        };
        (!rest.files.is_empty() || !rest.units.is_empty()).then_some(rest)
    }

    fn example() -> Self {
        Self {
            files: vec!["/var/log/app/*.log".to_owned()],
            units: Vec::new(),
            journal: None,
            containers: None,
        }
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        if !self.files.is_empty() {
            out.push_str(&format!("files = {}\n", list(&self.files)));
        }
        if !self.units.is_empty() {
            out.push_str(&format!("units = {}\n", list(&self.units)));
        }
        if let Some(journal) = &self.journal {
            out.push_str(&format!("journal = {}\n", string(journal)));
        }
        if let Some(containers) = &self.containers {
            let keys: Vec<String> = containers.lines().lines().map(str::to_owned).collect();
            out.push_str(&format!("containers = {{ {} }}\n", keys.join(", ")));
        }
        out
    }
}

/// It can stand in an argument of journalctl and mean a unit there, not an option or a pattern.
fn usable_unit(unit: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@' | b':' | b'\\');
    unit == "*"
        || (!unit.is_empty() && unit.len() <= 255 && !unit.starts_with('-') && unit.bytes().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_that_would_be_options_are_refused() {
        for (unit, good) in [
            ("docker.service", true),
            ("getty@tty1.service", true),
            ("*", true),
            ("--file=/etc/shadow", false),
            ("a b", false),
            ("vllm*", false),
            ("", false),
        ] {
            let scope =
                Scope { files: Vec::new(), units: vec![unit.to_owned()], journal: None, containers: None };
            assert_eq!(Scope::compile(&[&scope]).is_ok(), good, "{unit:?}");
        }
    }

    #[test]
    fn what_is_not_covered_is_told() {
        let need = Scope {
            files: vec!["/var/log/*.log".into(), "/srv/x.log".into()],
            units: vec!["a.service".into()],
            journal: None,
            containers: None,
        };
        let grant = Scope {
            files: vec!["/var/log/**".into()],
            units: vec!["*".into()],
            journal: None,
            containers: None,
        };
        let rest = need.uncovered(&[&grant]).unwrap();
        assert_eq!((rest.files, rest.units), (vec!["/srv/x.log".to_owned()], Vec::new()));
    }

    #[test]
    fn containers_are_granted_as_the_grant_of_that_name_does() {
        let of = |value: serde_json::Value| serde_json::from_value::<Scope>(value).unwrap();
        let scope =
            of(serde_json::json!({ "containers": { "labels": ["*"], "sockets": ["/run/podman.sock"] } }));
        assert_eq!(scope.lines(), "containers = { sockets = [\"/run/podman.sock\"], labels = [\"*\"] }\n");
        let compiled =
            Scope::compile(&[&scope, &of(serde_json::json!({ "files": ["/var/log/*.log"] }))]).unwrap();
        assert_eq!(compiled.containers.map(|permit| permit.sockets.len()), Some(1));
        assert!(Scope::compile(&[&of(serde_json::json!({ "containers": {} }))]).is_err(), "which ones?");
        assert!(Scope::compile(&[&of(serde_json::json!({}))]).unwrap().containers.is_none());
    }
}
