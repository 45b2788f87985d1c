//! The proxy's models: `/model/info` has an entry a deployment, several of which may share a model's name.

use std::collections::BTreeMap;

use picket_sdk::Failure;
use serde::Deserialize;

use crate::rates::Rates;

/// Deployments that are taken from one answer.
const MOST: usize = 2_000;

/// What stands before a model's own name in LiteLLM's settings. A first segment that is none of these is an
/// organisation's name on the hub.
const PROVIDERS: &[&str] = &[
    "anthropic",
    "azure",
    "azure_ai",
    "bedrock",
    "cerebras",
    "cohere",
    "custom",
    "custom_openai",
    "databricks",
    "deepinfra",
    "deepseek",
    "featherless_ai",
    "fireworks_ai",
    "friendliai",
    "gemini",
    "github",
    "groq",
    "hosted_vllm",
    "huggingface",
    "hyperbolic",
    "infinity",
    "jina_ai",
    "litellm_proxy",
    "llamafile",
    "lm_studio",
    "mistral",
    "nebius",
    "novita",
    "nscale",
    "nvidia_nim",
    "ollama",
    "ollama_chat",
    "openai",
    "openai_like",
    "openrouter",
    "perplexity",
    "petals",
    "predibase",
    "replicate",
    "sagemaker",
    "sagemaker_chat",
    "sambanova",
    "text-completion-openai",
    "together_ai",
    "triton",
    "vertex_ai",
    "vllm",
    "voyage",
    "watsonx",
    "xai",
    "xinference",
];

/// What a model is good for.
pub type Kind = &'static str;

/// Whether a model can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Available,
    Error,
}

impl Status {
    /// The words of `picket_model_state`.
    pub const ALL: [&'static str; 3] = ["available", "loading", "error"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Available => "available",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    data: Vec<Deployment>,
}

#[derive(Debug, Deserialize)]
struct Deployment {
    model_name: String,
    #[serde(default)]
    litellm_params: Params,
    #[serde(default)]
    model_info: Info,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Params {
    model: Option<String>,
    api_base: Option<String>,
    custom_llm_provider: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info {
    id: Option<String>,
    mode: Option<String>,
    base_model: Option<String>,
}

/// A model as people ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    pub name: String,
    pub kind: Kind,
    /// The ids of its deployments.
    pub deployments: Vec<String>,
    /// Where the first of them that says so is served.
    pub api_base: String,
    /// What the hub may know it as.
    hub: Option<String>,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Models {
    pub list: Vec<Model>,
}

impl Models {
    /// Reads what `/model/info` says.
    ///
    /// # Errors
    /// `malformed`: it is another document.
    pub fn read(body: &[u8]) -> Result<Self, Failure> {
        let answer: Answer = serde_json::from_slice(body).map_err(|e| {
            Failure::new("malformed", format!("/model/info is not what LiteLLM answers there: {e}"))
        })?;
        let mut list: BTreeMap<String, Model> = BTreeMap::new();
        for deployment in answer.data.into_iter().take(MOST) {
            let hub = deployment.hub_name();
            let Deployment { model_name, litellm_params, model_info } = deployment;
            if model_name.is_empty() {
                continue;
            }
            let model = list.entry(model_name.clone()).or_insert_with(|| Model {
                name: model_name,
                kind: kind(model_info.mode.as_deref()),
                deployments: Vec::new(),
                api_base: String::new(),
                hub: None,
            });
            model.deployments.extend(model_info.id);
            model.hub = model.hub.take().or(hub);
            if model.api_base.is_empty() {
                model.api_base = litellm_params.api_base.unwrap_or_default();
            }
        }
        Ok(Self { list: list.into_values().collect() })
    }

    /// What a model of that name is, if the proxy has one, by name or by a pattern (`openai/*`).
    pub fn kind_of(&self, name: &str) -> Option<Kind> {
        let fits = |model: &&Model| match model.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => model.name == name,
        };
        self.list.iter().find(fits).map(|model| model.kind)
    }
}

fn kind(mode: Option<&str>) -> Kind {
    match mode {
        Some("embedding") => "embedding",
        Some("rerank") => "reranker",
        Some("image_generation" | "image_edit") => "image",
        Some("audio_transcription" | "audio_speech") => "audio",
        Some("moderation") => "moderation",
        Some("video_generation") => "video",
        _ => "llm",
    }
}

impl Deployment {
    /// `ORGANISATION/NAME`, where the settings of the proxy say so.
    fn hub_name(&self) -> Option<String> {
        let params = &self.litellm_params;
        let model =
            self.model_info.base_model.as_ref().filter(|m| m.contains('/')).or(params.model.as_ref())?;
        let own = match (model.split_once('/'), &params.custom_llm_provider) {
            (Some((first, rest)), _) if PROVIDERS.contains(&first) => rest,
            _ => model.as_str(),
        };
        is_hub_name(own).then(|| own.to_owned())
    }
}

/// An organisation and a name, as the hub allows them.
pub fn is_hub_name(text: &str) -> bool {
    let good = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && !part.contains("..")
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    text.split_once('/').is_some_and(|(organisation, name)| good(organisation) && good(name))
}

impl Model {
    /// The hub's name of it: the operator's word first.
    pub fn hub_id(&self, said: &BTreeMap<String, String>) -> Option<String> {
        match said.get(&self.name) {
            Some(name) => is_hub_name(name).then(|| name.clone()),
            None => self.hub.clone(),
        }
    }

    /// By `litellm_deployment_state` of its deployments: one that works is enough. Without any word it is there.
    pub fn status(&self, rates: &Rates) -> Status {
        let states: Vec<f64> = self.deployments.iter().filter_map(|id| rates.deployment_state(id)).collect();
        let outage = |state: &f64| *state >= 2.0;
        if !states.is_empty() && states.iter().all(outage) { Status::Error } else { Status::Available }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hub_may_know() {
        for (model, provider, wanted) in [
            ("hosted_vllm/meta-llama/Llama-3.1-8B-Instruct", None, Some("meta-llama/Llama-3.1-8B-Instruct")),
            ("huggingface/BAAI/bge-m3", None, Some("BAAI/bge-m3")),
            (
                "meta-llama/Llama-3.1-8B-Instruct",
                Some("hosted_vllm"),
                Some("meta-llama/Llama-3.1-8B-Instruct"),
            ),
            ("openai/llama-3-70b", None, None),
            ("gpt-4o", None, None),
            ("hosted_vllm/dead", None, None),
            ("hosted_vllm/../../etc/passwd", None, None),
            ("hosted_vllm/a/..", None, None),
            ("hosted_vllm/a/b?x=1", None, None),
            ("bedrock/us-east-1/anthropic.claude/x", None, None),
        ] {
            let deployment = Deployment {
                model_name: "m".to_owned(),
                litellm_params: Params {
                    model: Some(model.to_owned()),
                    custom_llm_provider: provider.map(str::to_owned),
                    ..Params::default()
                },
                model_info: Info::default(),
            };
            assert_eq!(deployment.hub_name().as_deref(), wanted, "{model}");
        }
    }

    #[test]
    fn deployments_of_one_name_are_one_model() {
        let answer = r#"{"data":[
            {"model_name":"a","litellm_params":{"model":"hosted_vllm/x"},"model_info":{"id":"1","mode":"chat"}},
            {"model_name":"a","litellm_params":{"model":"hosted_vllm/o/n","api_base":"http://h/v1"},"model_info":{"id":"2"}},
            {"model_name":"e","model_info":{"mode":"embedding"}},
            {"model_name":"r","model_info":{"mode":"rerank"}},
            {"model_name":"openai/*","model_info":{}}]}"#;
        let models = Models::read(answer.as_bytes()).unwrap();
        let a = models.list.iter().find(|m| m.name == "a").unwrap();
        assert_eq!((a.deployments.len(), a.api_base.as_str()), (2, "http://h/v1"));
        assert_eq!(a.hub_id(&BTreeMap::new()).as_deref(), Some("o/n"));
        assert_eq!(a.hub_id(&[("a".to_owned(), "p/q".to_owned())].into()).as_deref(), Some("p/q"));
        assert_eq!(a.hub_id(&[("a".to_owned(), String::new())].into()), None);
        assert_eq!(models.kind_of("e"), Some("embedding"));
        assert_eq!(models.kind_of("r"), Some("reranker"));
        assert_eq!(models.kind_of("openai/gpt-4o"), Some("llm"));
        assert_eq!(models.kind_of("other"), None);
        assert!(Models::read(b"<html>").is_err());
    }
}
