//! Which sockets a plugin may speak HTTP to.

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, list, string};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub sockets: Vec<SocketRule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketRule {
    /// The socket's absolute path; in a manifest's needs `*`: whatever socket its settings name.
    pub path: String,
    /// Whole segments, as in the grant `http`.
    #[serde(default = "slash")]
    pub path_prefix: String,
    #[serde(default = "get_only")]
    pub methods: Vec<String>,
}

fn slash() -> String {
    "/".to_owned()
}

fn get_only() -> Vec<String> {
    vec!["GET".to_owned()]
}

impl SocketRule {
    fn covers(&self, need: &Self) -> bool {
        let prefix = self.path_prefix.trim_end_matches('/');
        let below = need.path_prefix.strip_prefix(prefix).is_some_and(|r| r.is_empty() || r.starts_with('/'));
        (need.path == "*" || self.path == need.path)
            && below
            && need.methods.iter().all(|m| self.methods.contains(m))
    }
}

impl Granted for Scope {
    type Compiled = Vec<SocketRule>;

    fn compile(scopes: &[&Self]) -> Result<Vec<SocketRule>, String> {
        let rules: Vec<SocketRule> = scopes.iter().flat_map(|s| s.sockets.iter().cloned()).collect();
        for rule in &rules {
            if rule.path != "*" && !rule.path.starts_with('/') {
                return Err(format!("`sockets`: {:?} is not an absolute path", rule.path));
            }
            if !rule.path_prefix.starts_with('/') {
                return Err(format!("`path_prefix`: {:?} does not begin with /", rule.path_prefix));
            }
        }
        Ok(rules)
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let rest: Vec<SocketRule> = self
            .sockets
            .iter()
            .filter(|n| !grants.iter().flat_map(|g| &g.sockets).any(|g| g.covers(n)))
            .cloned()
            .collect();
        (!rest.is_empty()).then_some(Self { sockets: rest })
    }

    fn example() -> Self {
        let rule =
            SocketRule { path: "/run/service.sock".to_owned(), path_prefix: slash(), methods: get_only() };
        Self { sockets: vec![rule] }
    }

    fn lines(&self) -> String {
        let rules: Vec<String> = self
            .sockets
            .iter()
            .map(|r| {
                format!(
                    "  {{ path = {}, path_prefix = {}, methods = {} }}",
                    string(&r.path),
                    string(&r.path_prefix),
                    list(&r.methods)
                )
            })
            .collect();
        format!("sockets = [\n{},\n]\n", rules.join(",\n"))
    }
}
