//! The operator's settings.

use picket_sdk::Failure;
use picket_sdk::exposition::{Alias, Options, Relabel};
use serde::Deserialize;

/// Names that newer servers dropped, and those that took their place.
const ALIASES: [(&str, &str); 4] = [
    ("gpu_cache_usage_perc", "kv_cache_usage_perc"),
    ("gpu_prefix_cache_hits_total", "prefix_cache_hits_total"),
    ("gpu_prefix_cache_queries_total", "prefix_cache_queries_total"),
    ("time_per_output_token_seconds", "inter_token_latency_seconds"),
];

const fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// All of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    pub labels: Vec<String>,
    pub images: Vec<String>,
    pub endpoints: Vec<Endpoint>,
    pub families: Vec<String>,
    pub aliases: bool,
    pub container_metrics: bool,
    pub timeout_ms: u32,
    pub stuck_after_seconds: u32,
    pub loading_limit_seconds: u32,
    pub secret: Option<String>,
}

/// A server that no engine knows of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Endpoint {
    pub url: String,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub model: String,
    #[serde(default)]
    pub gpu: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            labels: vec!["vllm=true".to_owned()],
            images: vec!["vllm/vllm-openai*".to_owned()],
            endpoints: Vec::new(),
            families: vec!["vllm:*".to_owned()],
            aliases: false,
            container_metrics: true,
            timeout_ms: 2000,
            stuck_after_seconds: 30,
            loading_limit_seconds: 3600,
            secret: None,
        }
    }
}

impl Settings {
    /// What can't be meant; fills in the endpoints' names.
    ///
    /// # Errors
    /// `settings`, with what is wrong.
    pub fn check(&mut self) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::new("settings", what));
        if self.timeout_ms < 100 || self.timeout_ms > 10_000 {
            return wrong(format!("timeout_ms = {}: 100 to 10000 are allowed", self.timeout_ms));
        }
        if self.stuck_after_seconds < 5 {
            return wrong(format!("stuck_after_seconds = {}: at least 5", self.stuck_after_seconds));
        }
        for endpoint in &mut self.endpoints {
            let url = endpoint.url.trim_end_matches('/').to_owned();
            let Some(place) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
                return wrong(format!("endpoints: {url:?} begins with neither http:// nor https://"));
            };
            if endpoint.name.is_empty() {
                endpoint.name = place.to_owned();
            }
            endpoint.url = url;
        }
        let mut names: Vec<&str> = self.endpoints.iter().map(|e| e.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return wrong(format!("endpoints: the name {:?} stands twice", pair.first().unwrap_or(&"")));
        }
        self.page_options().map(|_| ())?;
        Ok(())
    }

    /// What is done with the servers' pages.
    ///
    /// # Errors
    /// `settings`: no pattern of a family's name.
    pub fn page_options(&self) -> Result<Options, Failure> {
        let mut patterns = Vec::new();
        for pattern in &self.families {
            let start = pattern.strip_suffix('*').unwrap_or(pattern);
            if start.is_empty() && pattern != "*" || start.contains(|c: char| !is_name(c)) {
                return Err(Failure::new("settings", format!("families: {pattern:?} is no family's name")));
            }
            // A histogram's lines have names of their own.
            patterns.push(if start == pattern {
                format!("{start}(_bucket|_sum|_count)?")
            } else {
                format!("{start}.*")
            });
        }
        let keep = serde_json::json!({
            "source_labels": ["__name__"], "regex": patterns.join("|"), "action": "keep",
        });
        let keep: Relabel =
            serde_json::from_value(keep).map_err(|e| Failure::new("settings", format!("families: {e}")))?;
        let aliases = if self.aliases { &ALIASES[..] } else { &[] };
        let aliases = aliases
            .iter()
            .map(|(name, of)| Alias { of: format!("vllm:{of}"), name: format!("vllm:{name}") })
            .collect();
        Ok(Options { relabel: vec![keep], aliases, ..Options::default() })
    }

    /// Whether a granted container serves a model.
    pub fn is_engine(&self, labels: &std::collections::BTreeMap<String, String>, image: &str) -> bool {
        self.labels.iter().any(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
            None => labels.contains_key(wanted),
        }) || self.images.iter().any(|pattern| fits(pattern, crate::image::familiar(image)))
    }
}

/// A trailing star stands for any rest.
fn fits(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(text == pattern, |start| text.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings() {
        let parse = |value: serde_json::Value| {
            let mut settings: Settings = serde_json::from_value(value).unwrap();
            settings.check().map(|()| settings)
        };
        let settings = parse(json!({ "endpoints": [{ "url": "http://10.0.0.1:8000/" }] })).unwrap();
        assert_eq!(settings.endpoints[0].url, "http://10.0.0.1:8000");
        assert_eq!(settings.endpoints[0].name, "10.0.0.1:8000");
        for (bad, word) in [
            (json!({ "timeout_ms": 1 }), "timeout_ms"),
            (json!({ "stuck_after_seconds": 0 }), "stuck_after_seconds"),
            (json!({ "endpoints": [{ "url": "10.0.0.1:8000" }] }), "endpoints"),
            (json!({ "endpoints": [{ "url": "http://a" }, { "url": "http://a/" }] }), "twice"),
            (json!({ "families": ["vllm:.*"] }), "families"),
            (json!({ "families": [""] }), "families"),
        ] {
            let failure = parse(bad.clone()).unwrap_err();
            assert!(failure.reason == "settings" && failure.message.contains(word), "{bad}: {failure}");
        }
        assert!(serde_json::from_value::<Settings>(json!({ "label": [] })).is_err());
    }

    #[test]
    fn engines() {
        let settings = Settings::default();
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        assert!(settings.is_engine(&labels(&[("vllm", "true")]), "busybox"));
        assert!(!settings.is_engine(&labels(&[("vllm", "false")]), "busybox"));
        assert!(settings.is_engine(&labels(&[]), "docker.io/vllm/vllm-openai:v1"));
        assert!(!settings.is_engine(&labels(&[]), "evil.example/vllm/vllm-openai:v1"));
    }
}
