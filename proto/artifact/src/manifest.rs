//! `plugin.toml`, a plugin's own word of itself.

use std::time::Duration;

use picket_proto::model::PluginId;
use serde::{Deserialize, Serialize};

use crate::units::{bytes, duration};

/// The longest manifest, in bytes.
const MAX_BYTES: usize = 64 << 10;
const MAX_TEXT: usize = 4096;

/// What stands in the component's custom section. `N` is a need as the reader knows it: the agent reads the scopes that its
/// capabilities have, everybody else [`Need`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "N: Deserialize<'de>"))]
pub struct Manifest<N = Need> {
    /// The layout's version: 1.
    pub manifest: u32,
    pub id: PluginId,
    pub version: String,
    /// `picket:source/source-plugin@0.2.0` or `picket:source/controllable-source-plugin@0.2.0`.
    pub world: String,
    pub license: String,
    pub description: String,
    #[serde(default = "Vec::new")]
    pub needs: Vec<N>,
    #[serde(default)]
    pub limits: AskedLimits,
    /// A JSON Schema of the settings.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
}

/// A capability that the plugin wants, with its scope as it is written and the reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Need {
    pub capability: String,
    pub why: String,
    #[serde(flatten)]
    pub scope: serde_json::Map<String, serde_json::Value>,
}

/// What a manifest's `[limits]` asks for. Anything above the node's limit is cut down to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AskedLimits {
    #[serde(deserialize_with = "bytes::some")]
    pub memory: Option<u64>,
    #[serde(deserialize_with = "duration::some")]
    pub guest_time: Option<Duration>,
    #[serde(deserialize_with = "duration::some")]
    pub call_time: Option<Duration>,
    pub samples: Option<u32>,
    pub series: Option<u32>,
    pub families: Option<u32>,
    pub events: Option<u32>,
}

/// What is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("it is {len} bytes long, {MAX_BYTES} are allowed")]
    TooLong { len: usize },
    #[error("it is not UTF-8: {0}")]
    Encoding(#[from] std::str::Utf8Error),
    #[error("{0}")]
    Syntax(String),
    #[error("manifest = {0}: this program reads version 1")]
    Layout(u32),
    #[error("`{0}` must be one line of text")]
    Text(&'static str),
}

impl<N: for<'de> Deserialize<'de>> Manifest<N> {
    /// # Errors
    /// [`ManifestError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_BYTES {
            return Err(ManifestError::TooLong { len: bytes.len() });
        }
        let text = std::str::from_utf8(bytes)?;
        let manifest: Self =
            toml::from_str(text).map_err(|e| ManifestError::Syntax(e.to_string().trim_end().to_owned()))?;
        if manifest.manifest != 1 {
            return Err(ManifestError::Layout(manifest.manifest));
        }
        for (name, text) in [
            ("version", &manifest.version),
            ("world", &manifest.world),
            ("license", &manifest.license),
            ("description", &manifest.description),
        ] {
            if text.trim().is_empty()
                || text.len() > MAX_TEXT
                || text.chars().any(|c| c.is_control() && c != '\n')
            {
                return Err(ManifestError::Text(name));
            }
        }
        Ok(manifest)
    }
}

impl<'de> Deserialize<'de> for Need {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let mut scope = serde_json::Map::deserialize(d)?;
        let mut text = |key: &'static str| match scope.remove(key) {
            Some(serde_json::Value::String(text)) if !text.trim().is_empty() => Ok(text),
            Some(_) => Err(D::Error::custom(format!("`{key}` must be a text"))),
            None => Err(D::Error::missing_field(key)),
        };
        Ok(Self { capability: text("capability")?, why: text("why")?, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        manifest = 1
        id = "node"
        version = "0.1.0"
        world = "picket:source/source-plugin@0.2.0"
        license = "Apache-2.0"
        description = "The node itself"
        [[needs]]
        capability = "files"
        read = ["/proc/stat"]
        why = "the processors' times"
        [limits]
        memory = "8MiB"
        [config]
        type = "object"
    "#;

    #[test]
    fn reads() {
        let manifest = Manifest::<Need>::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(manifest.needs.len(), 1);
        assert_eq!(manifest.needs[0].capability, "files");
        assert_eq!(manifest.needs[0].scope["read"][0], "/proc/stat");
        assert_eq!(manifest.limits.memory, Some(8 << 20));
    }

    #[test]
    fn refuses() {
        for (from, to, word) in [
            ("manifest = 1", "manifest = 2", "version 1"),
            ("id = \"node\"", "id = \"no de\"", "plugin id"),
            ("id = \"node\"", "idd = \"node\"", "idd"),
            ("why = ", "whyy = ", "why"),
            ("capability = \"files\"", "capability = 1", "capability"),
            ("memory = ", "memry = ", "memry"),
            ("version = \"0.1.0\"", "version = \"\"", "version"),
            ("manifest = 1", "manifest = ", ""),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = Manifest::<Need>::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(word), "{to}: {error}");
        }
        assert!(Manifest::<Need>::parse(&[0xff]).is_err());
        assert!(Manifest::<Need>::parse(&vec![b'#'; MAX_BYTES + 1]).is_err());
    }
}
