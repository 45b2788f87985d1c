//! What the Docker engine says of a container beside its log file: name, image and labels, and nothing else of a file
//! that holds the container's environment too.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::files::{Place, regular};
use crate::grants::PathSet;

/// The longest description that is read.
const MAX_BYTES: u64 = 4 << 20;
/// Labels that are taken of it.
pub(super) const MAX_LABELS: usize = 64;

#[derive(Deserialize)]
struct Description {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Config", default)]
    config: Config,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Labels", default)]
    labels: Option<std::collections::BTreeMap<String, String>>,
}

/// Of `…/<id>/<id>-json.log`: `container`, `id`, `image`, and `label.NAME` for each label. Nothing where it is no such
/// file, or has no readable description.
pub(super) fn facts(path: &str) -> Vec<(String, String)> {
    let Some((folder, id)) = container(path) else { return Vec::new() };
    let mut facts = vec![("id".to_owned(), id.to_owned())];
    let Some(description) = read(folder) else { return facts };
    let name = description.name.trim_start_matches('/');
    for (key, value) in [("container", name), ("image", description.config.image.as_str())] {
        if !value.is_empty() {
            facts.push((key.to_owned(), value.to_owned()));
        }
    }
    let labels = description.config.labels.unwrap_or_default().into_iter().take(MAX_LABELS);
    facts.extend(labels.map(|(name, value)| (format!("label.{name}"), value)));
    facts
}

/// The folder and the id of a container whose log file this is.
pub(super) fn container(path: &str) -> Option<(&str, &str)> {
    let (folder, name) = path.rsplit_once('/')?;
    let id = name.strip_suffix("-json.log")?;
    let hex = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (hex && folder.ends_with(id)).then_some((folder, id))
}

fn read(folder: &str) -> Option<Description> {
    let path = format!("{folder}/config.v2.json");
    let granted = PathSet::new(std::slice::from_ref(&path)).ok()?;
    let file = regular(&Place { root: Path::new(folder).to_owned(), granted }, &path).ok()?;
    let mut text = Vec::new();
    std::fs::File::from(file).take(MAX_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_image_and_labels_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let id = "ab".repeat(32);
        let own = folder.path().join(&id);
        std::fs::create_dir(&own).unwrap();
        let path = own.join(format!("{id}-json.log"));
        let text = path.to_str().unwrap();
        assert_eq!(facts(text), [("id".to_owned(), id.clone())]);
        let description =
            r#"{"Name":"/vllm-a","Config":{"Env":["TOKEN=x"],"Image":"vllm:1","Labels":{"vllm":"true"}}}"#;
        std::fs::write(own.join("config.v2.json"), description).unwrap();
        let expected =
            [("id", id.as_str()), ("container", "vllm-a"), ("image", "vllm:1"), ("label.vllm", "true")];
        let got = facts(text);
        assert!(got.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected), "{got:?}");
        assert!(facts("/var/log/x-json.log").is_empty());
    }
}
