//! Which sockets a plugin may speak HTTP to.

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, SecretRule, check_secret, list, path_fits, secret_line, string, tables};

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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretRule>,
}

impl SocketRule {
    /// `GET` of everything there.
    pub fn get(path: &str) -> Self {
        Self { path: path.to_owned(), path_prefix: slash(), methods: get_only(), secret: None }
    }
}

/// The rules of a grant.
#[derive(Debug)]
pub(crate) struct Rules(Vec<SocketRule>);

impl Rules {
    /// The first rule that allows the request; else which part none allows.
    pub(crate) fn find(
        &self,
        socket: &str,
        path: &str,
        method: &str,
        secret: Option<&str>,
    ) -> Result<&SocketRule, String> {
        let shown = |text: &str| text.chars().take(256).collect::<String>();
        let mut left: Vec<&SocketRule> = self.0.iter().filter(|r| r.path == socket).collect();
        if left.is_empty() {
            return Err(format!("no granted rule allows the socket {:?}", shown(socket)));
        }
        left.retain(|r| path_fits(&r.path_prefix, path));
        if left.is_empty() {
            return Err(format!("no granted rule allows the path {:?} of {socket}", shown(path)));
        }
        left.retain(|r| r.methods.iter().any(|m| m == method));
        if left.is_empty() {
            return Err(format!("no granted rule allows the method {method} for {socket}"));
        }
        if let Some(name) = secret {
            left.retain(|r| r.secret.as_ref().is_some_and(|s| s.name == name && s.file.is_some()));
        }
        let named = secret.unwrap_or_default();
        left.first()
            .copied()
            .ok_or_else(|| format!("no granted rule gives the secret {:?} to {socket}", shown(named)))
    }
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
            && need
                .secret
                .as_ref()
                .is_none_or(|n| self.secret.as_ref().is_some_and(|g| g.name == n.name && g.file.is_some()))
    }
}

impl Granted for Scope {
    type Compiled = Rules;

    fn compile(scopes: &[&Self]) -> Result<Rules, String> {
        let rules: Vec<SocketRule> = scopes.iter().flat_map(|s| s.sockets.iter().cloned()).collect();
        for rule in &rules {
            if rule.path != "*" && !rule.path.starts_with('/') {
                return Err(format!("`sockets`: {:?} is not an absolute path", rule.path));
            }
            if !rule.path_prefix.starts_with('/') {
                return Err(format!("`path_prefix`: {:?} does not begin with /", rule.path_prefix));
            }
            if rule.methods.is_empty()
                || rule.methods.iter().any(|m| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase()))
            {
                return Err(format!("`methods` of {:?}: words in capitals are wanted", rule.path));
            }
            if let Some(secret) = &rule.secret {
                check_secret(&rule.path, secret)?;
            }
        }
        Ok(Rules(rules))
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
        Self { sockets: vec![SocketRule::get("/run/service.sock")] }
    }

    fn lines(&self) -> String {
        let rules: Vec<String> = self
            .sockets
            .iter()
            .map(|r| {
                let secret = r.secret.as_ref().map(|s| format!(", {}", secret_line(s))).unwrap_or_default();
                format!(
                    "  {{ path = {}, path_prefix = {}, methods = {}{secret} }}",
                    string(&r.path),
                    string(&r.path_prefix),
                    list(&r.methods)
                )
            })
            .collect();
        tables("sockets", &rules)
    }
}
