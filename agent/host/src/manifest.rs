//! `plugin.toml`, as it stands in a component's custom section `picket:manifest`.

use picket_agent_services::grants::Need;
use picket_proto::model::PluginId;
use serde::Deserialize;

use crate::limits::AskedLimits;

/// The custom section's name, at the component's own level.
pub const SECTION: &str = "picket:manifest";
/// The longest manifest, in bytes.
const MAX_BYTES: usize = 64 << 10;
const MAX_TEXT: usize = 4096;

/// A plugin's own word of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The layout's version: 1.
    pub manifest: u32,
    pub id: PluginId,
    pub version: String,
    /// `picket:source/source-plugin@0.1.0` or `picket:source/controllable-source-plugin@0.1.0`.
    pub world: String,
    pub license: String,
    pub description: String,
    #[serde(default)]
    pub needs: Vec<Need>,
    #[serde(default)]
    pub limits: AskedLimits,
    /// A JSON Schema of the settings.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
}

impl Manifest {
    /// # Errors
    /// For a person: what is wrong with it, and where.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_BYTES {
            return Err(format!("it is {} bytes long, {MAX_BYTES} are allowed", bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| format!("it is not UTF-8: {e}"))?;
        let manifest: Self = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if manifest.manifest != 1 {
            return Err(format!("manifest = {}: this agent reads version 1", manifest.manifest));
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
                return Err(format!("`{name}` must be one line of text"));
            }
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        manifest = 1
        id = "node"
        version = "0.1.0"
        world = "picket:source/source-plugin@0.1.0"
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
        let manifest = Manifest::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(manifest.needs.len(), 1);
        assert_eq!(manifest.limits.memory, Some(8 << 20));
    }

    #[test]
    fn refuses() {
        for (from, to, word) in [
            ("manifest = 1", "manifest = 2", "version 1"),
            ("id = \"node\"", "id = \"no de\"", "plugin id"),
            ("id = \"node\"", "idd = \"node\"", "idd"),
            ("why = ", "whyy = ", "why"),
            ("read = ", "reed = ", "reed"),
            ("memory = ", "memry = ", "memry"),
            ("version = \"0.1.0\"", "version = \"\"", "version"),
            ("manifest = 1", "manifest = ", ""),
        ] {
            let text = GOOD.replacen(from, to, 1);
            let error = Manifest::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{to}: {error}");
        }
        assert!(Manifest::parse(&[0xff]).is_err());
        assert!(Manifest::parse(&vec![b'#'; MAX_BYTES + 1]).is_err());
    }
}
