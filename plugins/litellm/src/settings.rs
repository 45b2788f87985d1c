//! `[plugins.litellm.settings]`

use std::collections::BTreeMap;

use picket_sdk::exposition::Relabel;
use picket_sdk::{Failure, upstream};
use serde::Deserialize;

/// What the operator says.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The proxy.
    pub url: String,
    /// The name of the granted secret with its key.
    pub secret: Option<String>,
    pub timeout_ms: u64,
    /// Families that are passed through; a trailing star stands for any rest.
    pub families: Vec<String>,
    pub models_every_seconds: u64,
    pub hub: HubSettings,
}

/// Of the Hugging Face hub.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubSettings {
    pub enabled: bool,
    pub url: String,
    pub secret: Option<String>,
    pub requests_per_hour: u32,
    pub timeout_ms: u64,
    /// The hub's name of a model, where the proxy's settings don't tell; empty: it has none.
    pub models: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:4000".to_owned(),
            secret: None,
            timeout_ms: 2000,
            families: vec!["litellm_*".to_owned()],
            models_every_seconds: 60,
            hub: HubSettings::default(),
        }
    }
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            url: "https://huggingface.co".to_owned(),
            secret: None,
            requests_per_hour: 1000,
            timeout_ms: 2000,
            models: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Says what can't be used.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        for (what, url) in [("url", &self.url), ("hub.url", &self.hub.url)] {
            if upstream::origin(url).is_none() {
                let message = format!("{what} is {url:?}; it must look like http://127.0.0.1:4000");
                return Err(Failure::new("settings", message));
            }
        }
        if self.hub.requests_per_hour < 2 {
            return Err(Failure::new("settings", "hub.requests_per_hour is at least 2: a model takes two"));
        }
        Ok(())
    }

    /// Rules that keep the families to be passed through.
    pub(crate) fn passed_rules(&self) -> Result<Vec<Relabel>, Failure> {
        let words: Vec<String> = self
            .families
            .iter()
            .map(|pattern| {
                let (start, rest) = match pattern.strip_suffix('*') {
                    Some(start) => (start, ".*"),
                    None => (pattern.as_str(), ""),
                };
                if start.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':')) {
                    Ok(format!("{start}{rest}"))
                } else {
                    Err(Failure::new(
                        "settings",
                        format!("families: {pattern:?} is no metric name with a * at its end"),
                    ))
                }
            })
            .collect::<Result<_, _>>()?;
        let rule = serde_json::json!({
            "source_labels": ["__name__"], "regex": words.join("|"), "action": "keep"
        });
        let rule =
            serde_json::from_value(rule).map_err(|e| Failure::new("settings", format!("families: {e}")))?;
        Ok(vec![rule])
    }
}
