//! Which logs a plugin may read.

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, PathSet, list};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Patterns of files, as in the grant `files`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Units of the journal; `"*"`: all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
}

/// A scope made ready for the check of each call.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub files: PathSet,
    pub units: Vec<String>,
}

impl Granted for Scope {
    type Compiled = Compiled;

    fn compile(scopes: &[&Self]) -> Result<Compiled, String> {
        let files: Vec<String> = scopes.iter().flat_map(|s| s.files.iter().cloned()).collect();
        let units = scopes.iter().flat_map(|s| s.units.iter().cloned()).collect();
        Ok(Compiled { files: PathSet::new(&files).map_err(|e| e.to_string())?, units })
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let file =
            |path: &String| grants.iter().flat_map(|g| &g.files).any(|g| crate::grants::path_covers(g, path));
        let unit = |unit: &String| grants.iter().flat_map(|g| &g.units).any(|g| g == "*" || g == unit);
        let rest = Self {
            files: self.files.iter().filter(|p| !file(p)).cloned().collect(),
            units: self.units.iter().filter(|u| !unit(u)).cloned().collect(),
        };
        (!rest.files.is_empty() || !rest.units.is_empty()).then_some(rest)
    }

    fn example() -> Self {
        Self { files: vec!["/var/log/app/*.log".to_owned()], units: Vec::new() }
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        if !self.files.is_empty() {
            out.push_str(&format!("files = {}\n", list(&self.files)));
        }
        if !self.units.is_empty() {
            out.push_str(&format!("units = {}\n", list(&self.units)));
        }
        out
    }
}
