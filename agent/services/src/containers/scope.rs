//! Which containers a plugin may see.

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, list};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// The engines' sockets.
    #[serde(default = "docker")]
    pub sockets: Vec<String>,
    /// `name` or `name=value`: a container is seen that has one of these labels; `"*"`: every container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Or whose image is one of these; a trailing `*` stands for any rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
}

fn docker() -> Vec<String> {
    vec!["/run/docker.sock".to_owned()]
}

impl Granted for Scope {
    type Compiled = Vec<Scope>;

    fn compile(scopes: &[&Self]) -> Result<Vec<Scope>, String> {
        for scope in scopes {
            if let Some(socket) = scope.sockets.iter().find(|s| !s.starts_with('/')) {
                return Err(format!("`sockets`: {socket:?} is not an absolute path"));
            }
            if scope.labels.iter().chain(&scope.images).any(String::is_empty) {
                return Err("`labels` and `images`: an empty word; write \"*\" if every container is meant"
                    .to_owned());
            }
        }
        Ok(scopes.iter().map(|s| (*s).clone()).collect())
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let any = |list: fn(&Scope) -> &Vec<String>, wanted: &String| {
            grants.iter().any(|g| {
                list(g).iter().any(|have| {
                    have == "*"
                        || have == wanted
                        || have.strip_suffix('*').is_some_and(|p| wanted.starts_with(p))
                        || !have.contains('=') && wanted.split_once('=').is_some_and(|(name, _)| name == have)
                })
            })
        };
        // Where the engine listens is the operator's to say.
        let rest = Self {
            sockets: self.sockets.clone(),
            labels: self.labels.iter().filter(|l| !any(|g| &g.labels, l)).cloned().collect(),
            images: self.images.iter().filter(|i| !any(|g| &g.images, i)).cloned().collect(),
        };
        (grants.is_empty() || !rest.labels.is_empty() || !rest.images.is_empty()).then_some(rest)
    }

    fn example() -> Self {
        Self { sockets: docker(), labels: vec!["vllm=true".to_owned()], images: Vec::new() }
    }

    fn lines(&self) -> String {
        let mut out = format!("sockets = {}\n", list(&self.sockets));
        if !self.labels.is_empty() {
            out.push_str(&format!("labels = {}\n", list(&self.labels)));
        }
        if !self.images.is_empty() {
            out.push_str(&format!("images = {}\n", list(&self.images)));
        }
        out
    }
}
