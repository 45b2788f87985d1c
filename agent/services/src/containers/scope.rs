//! Which containers a plugin may see.
//!
//! In a manifest's needs labels and images are a proposal: which containers it is to be the operator says, as he says
//! where the engines listen. A narrower grant is no refusal; the plugin sees fewer.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Desk;
use crate::grants::{Granted, list};

/// Environment variables that hold no secret and say which GPUs a container has.
const ENV: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];

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
    /// Environment variables that may be seen, beside those that name GPUs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
}

fn docker() -> Vec<String> {
    vec!["/run/docker.sock".to_owned()]
}

/// The grants of one plugin, ready for the check of each call.
#[derive(Debug)]
pub(crate) struct Permit {
    pub sockets: Vec<Place>,
    pub desk: Desk,
}

/// A socket and what may be seen through it.
#[derive(Debug)]
pub(crate) struct Place {
    pub path: String,
    pub filter: Filter,
    /// Variables that the grants of this socket name.
    env: BTreeSet<String>,
}

impl Permit {
    pub(super) fn path(&self, socket: usize) -> &str {
        self.sockets.get(socket).map_or("", |p| p.path.as_str())
    }

    pub(super) fn visible_env(&self, socket: usize) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        self.sockets.get(socket).map_or(&NONE, |p| &p.env)
    }
}

/// Which containers.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    every: bool,
    /// A name, and a value where one is wanted.
    labels: Vec<(String, Option<String>)>,
    images: Vec<String>,
}

impl Filter {
    fn add(&mut self, scope: &Scope) {
        for label in &scope.labels {
            match label.split_once('=') {
                Some((name, value)) => self.labels.push((name.to_owned(), Some(value.to_owned()))),
                None if label == "*" => self.every = true,
                None => self.labels.push((label.clone(), None)),
            }
        }
        self.images.extend(scope.images.iter().cloned());
    }

    /// Holds a container's labels, as the engine's JSON has them, and the name of its image against the filter.
    pub(super) fn allows(&self, labels: Option<&Value>, image: &str) -> bool {
        let label = |name: &str| labels.and_then(|l| l.get(name)).and_then(Value::as_str);
        self.every
            || self.labels.iter().any(|(name, wanted)| {
                label(name).is_some_and(|found| wanted.as_ref().is_none_or(|w| w == found))
            })
            || self.images.iter().any(|pattern| image_fits(pattern, image))
    }

    pub(super) fn knows_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// The same for the engine, percent-encoded, where it knows how to say it: what comes is fewer, not safer.
    pub(super) fn for_engine(&self) -> Option<String> {
        // Several labels must all be there for an engine; here one is enough.
        let [(name, value)] = self.labels.as_slice() else { return None };
        if self.every || !self.images.is_empty() {
            return None;
        }
        let label = value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}={v}"));
        Some(percent(&serde_json::json!({ "label": [label] }).to_string()))
    }
}

fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// `docker.io/` is the registry that Docker leaves out of a name and Podman writes.
fn image_fits(pattern: &str, image: &str) -> bool {
    fn bare(name: &str) -> &str {
        let name = name.strip_prefix("docker.io/").unwrap_or(name);
        name.strip_prefix("library/").unwrap_or(name)
    }
    if image.is_empty() {
        return false;
    }
    match pattern.strip_suffix('*') {
        Some(start) => bare(image).starts_with(bare(start)) || image.starts_with(start),
        None => bare(image) == bare(pattern),
    }
}

impl Granted for Scope {
    type Compiled = Arc<Permit>;

    fn compile(scopes: &[&Self]) -> Result<Arc<Permit>, String> {
        let mut sockets: Vec<Place> = Vec::new();
        let standard = || ENV.iter().map(|name| (*name).to_owned());
        for scope in scopes {
            if let Some(socket) = scope.sockets.iter().find(|s| !s.starts_with('/')) {
                return Err(format!("`sockets`: {socket:?} is not an absolute path"));
            }
            let words = scope.labels.iter().chain(&scope.images).chain(&scope.env);
            if words.clone().any(|w| w.is_empty() || w.starts_with('=')) {
                return Err(
                    "`labels`, `images` and `env`: an empty word; write labels = [\"*\"] if every container \
                            is meant"
                        .to_owned(),
                );
            }
            if scope.labels.is_empty() && scope.images.is_empty() {
                return Err("neither `labels` nor `images`: no container could be seen".to_owned());
            }
            if let Some(image) =
                scope.images.iter().find(|i| i.strip_suffix('*').unwrap_or(i).contains('*') || *i == "*")
            {
                return Err(format!(
                    "`images`: {image:?}: a star may stand at the end of a name; for every container write \
                     labels = [\"*\"]"
                ));
            }
            for path in &scope.sockets {
                let place = match sockets.iter_mut().position(|p| p.path == *path) {
                    Some(i) => sockets.get_mut(i),
                    None => {
                        let (path, filter) = (path.clone(), Filter::default());
                        sockets.push(Place { path, filter, env: standard().collect() });
                        sockets.last_mut()
                    }
                };
                if let Some(place) = place {
                    place.filter.add(scope);
                    place.env.extend(scope.env.iter().cloned());
                }
            }
        }
        Ok(Arc::new(Permit { sockets, desk: Desk::default() }))
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let env =
            |wanted: &String| ENV.contains(&wanted.as_str()) || grants.iter().any(|g| g.env.contains(wanted));
        let rest = Self { env: self.env.iter().filter(|e| !env(e)).cloned().collect(), ..self.clone() };
        (grants.is_empty() || !rest.env.is_empty()).then_some(rest)
    }

    fn example() -> Self {
        Self { sockets: docker(), labels: vec!["vllm=true".to_owned()], images: Vec::new(), env: Vec::new() }
    }

    fn lines(&self) -> String {
        let mut out = format!("sockets = {}\n", list(&self.sockets));
        for (key, words) in [("labels", &self.labels), ("images", &self.images), ("env", &self.env)] {
            if !words.is_empty() {
                out.push_str(&format!("{key} = {}\n", list(words)));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scope(value: Value) -> Scope {
        serde_json::from_value(value).unwrap()
    }

    fn filter(value: Value) -> Filter {
        let mut filter = Filter::default();
        filter.add(&scope(value));
        filter
    }

    #[test]
    fn what_a_filter_lets_through() {
        let f =
            filter(json!({ "labels": ["vllm=true", "team"], "images": ["vllm/vllm-openai:*", "busybox:1"] }));
        for (labels, image, seen) in [
            (json!({ "vllm": "true" }), "x", true),
            (json!({ "vllm": "True" }), "x", false),
            (json!({ "vllm": "true " }), "x", false),
            (json!({ "vllm": "" }), "x", false),
            // A label whose name has the whole of it, as an engine's API lets one write it.
            (json!({ "vllm=true": "" }), "x", false),
            (json!({ "vllm=true": "true" }), "x", false),
            (json!({ "Vllm": "true" }), "x", false),
            (json!({ "team": "" }), "x", true),
            (json!({ "team=x": "y" }), "x", false),
            (json!(null), "x", false),
            (json!(["vllm=true"]), "x", false),
            (json!({}), "vllm/vllm-openai:v0.12.0", true),
            (json!({}), "docker.io/vllm/vllm-openai:v0.12.0", true),
            (json!({}), "vllm/vllm-openai-evil:1", false),
            (json!({}), "evil.example/vllm/vllm-openai:v0.12.0", false),
            (json!({}), "docker.io/library/busybox:1", true),
            (json!({}), "busybox:12", false),
            (json!({}), "", false),
        ] {
            assert_eq!(f.allows(Some(&labels), image), seen, "{labels} {image}");
        }
        assert!(filter(json!({ "labels": ["*"] })).allows(None, ""));
    }

    #[test]
    fn what_the_engine_is_asked_for() {
        let one = filter(json!({ "labels": ["vllm=true"] })).for_engine().unwrap();
        assert_eq!(one, "%7B%22label%22%3A%5B%22vllm%3Dtrue%22%5D%7D");
        for more in [
            json!({ "labels": ["a", "b"] }),
            json!({ "labels": ["*"] }),
            json!({ "labels": ["a"], "images": ["b"] }),
        ] {
            assert_eq!(filter(more).for_engine(), None);
        }
        let odd = filter(json!({ "labels": ["a\"&b=c d"] })).for_engine().unwrap();
        assert!(!odd.contains(['&', ' ', '"']), "{odd}");
    }

    #[test]
    fn grants_that_make_no_sense() {
        for value in [
            json!({}),
            json!({ "labels": [] }),
            json!({ "labels": [""] }),
            json!({ "labels": ["=x"] }),
            json!({ "images": ["*"] }),
            json!({ "images": ["a*b"] }),
            json!({ "labels": ["a"], "sockets": ["docker.sock"] }),
            json!({ "labels": ["a"], "env": [""] }),
        ] {
            assert!(Scope::compile(&[&scope(value.clone())]).is_err(), "{value}");
        }
        assert!(serde_json::from_value::<Scope>(json!({ "label": ["a"] })).is_err());
    }

    #[test]
    fn grants_of_one_socket_are_one() {
        let permit = Scope::compile(&[
            &scope(json!({ "labels": ["a"], "sockets": ["/x", "/y"], "env": ["PORT"] })),
            &scope(json!({ "images": ["b"], "sockets": ["/y"] })),
        ])
        .unwrap();
        let places: Vec<(&str, bool)> =
            permit.sockets.iter().map(|p| (p.path.as_str(), p.filter.allows(None, "b"))).collect();
        assert_eq!(places, [("/x", false), ("/y", true)]);
        assert!(
            permit.visible_env(0).contains("PORT") && permit.visible_env(0).contains("CUDA_VISIBLE_DEVICES")
        );
    }

    #[test]
    fn a_need_is_a_proposal() {
        let need = scope(json!({ "labels": ["vllm=true"] }));
        assert!(need.uncovered(&[]).is_some());
        assert!(need.uncovered(&[&scope(json!({ "labels": ["app=llm"] }))]).is_none());
        let more = scope(json!({ "labels": ["vllm=true"], "env": ["PORT"] }));
        assert!(more.uncovered(&[&scope(json!({ "labels": ["vllm=true"] }))]).is_some());
        assert_eq!(need.lines(), "sockets = [\"/run/docker.sock\"]\nlabels = [\"vllm=true\"]\n");
    }
}
