//! A real LiteLLM proxy, its models answered by itself (`mock_response`). Half a gigabyte, so it is opt-in:
//! `cargo xtask parts litellm`, or the folder of such an environment in `PICKET_TEST_LITELLM`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Api, Daemon, Test, eventually_within, free_port, skip, target};

/// On a machine with little to spare.
const START: Duration = Duration::from_secs(240);

pub struct LiteLlm {
    pub daemon: Daemon,
    pub api: Api,
    pub port: u16,
}

impl LiteLlm {
    /// The key that it asks for.
    pub const KEY: &str = "sk-of-the-test";

    /// Its program; none, said by name, where it is not installed.
    pub fn program() -> Option<PathBuf> {
        let folder = std::env::var_os("PICKET_TEST_LITELLM")
            .map_or_else(|| target().join("parts/litellm"), PathBuf::from);
        let file = folder.join("bin/litellm");
        if file.exists() {
            return Some(file);
        }
        skip("needs a LiteLLM proxy (550 MB): run `cargo xtask parts litellm`");
        None
    }

    /// Starts it with the models `llama`, `embed` and `dead`, whose server is not there.
    pub async fn start(test: &Test, program: &Path, port: u16) -> Result<Self> {
        let folder = test.folder().join("litellm");
        std::fs::create_dir_all(&folder)?;
        let config = folder.join("config.yaml");
        std::fs::write(
            &config,
            format!(
                "model_list:\n\
                 - model_name: llama\n  litellm_params:\n    model: openai/meta-llama/Llama-3.1-8B\n    api_key: none\n    \
                 mock_response: hello from a model\n  model_info:\n    id: dep-llama\n    mode: chat\n\
                 - model_name: embed\n  litellm_params:\n    model: openai/embed\n    api_key: none\n  \
                 model_info:\n    id: dep-embed\n    mode: embedding\n\
                 - model_name: dead\n  litellm_params:\n    model: hosted_vllm/dead\n    api_base: http://127.0.0.1:{}/v1\n    \
                 num_retries: 0\n  model_info:\n    id: dep-dead\n\
                 router_settings:\n  num_retries: 0\n\
                 litellm_settings:\n  callbacks: [prometheus]\n  num_retries: 0\n\
                 general_settings:\n  master_key: {}\n",
                free_port()?,
                Self::KEY
            ),
        )?;
        let mut command = Command::new(program);
        command
            .args(["--config", config.to_str().context("no UTF-8")?, "--host", "127.0.0.1"])
            .args(["--port", &port.to_string(), "--telemetry", "False"])
            .env("HOME", &folder)
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .current_dir(&folder);
        let mut daemon = Daemon::start(test, "litellm", &mut command)?;
        let api = Api::new(&format!("http://127.0.0.1:{port}"), Some(Self::KEY), None)?;
        eventually_within(START, "LiteLLM answers", || {
            let running = daemon.check_running();
            let api = api.clone();
            async move {
                running?;
                api.text("/health/readiness").await.map(drop)
            }
        })
        .await?;
        Ok(Self { daemon, api, port })
    }

    /// Asks a model something; the status of the answer.
    pub async fn chat(&self, model: &str) -> Result<u16> {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "how are you" }] });
        Ok(self.api.request("POST", "/v1/chat/completions", Some(&body)).await?.0)
    }

    /// The plugin `litellm` with what it needs of this proxy, whose key is in the file `key`; `settings` are further lines.
    pub fn section(&self, interval: &str, key: &Path, settings: &str) -> String {
        let (port, key) = (self.port, crate::quoted(key));
        let secret = format!("secret = {{ name = \"litellm\", file = {key}, prefix = \"Bearer \" }}");
        format!(
            "[plugins.litellm]\nfile = \"litellm.wasm\"\ninterval = \"{interval}\"\n[plugins.litellm.settings]\nurl = \"{}\"\n\
             secret = \"litellm\"\n{settings}\n[[plugins.litellm.grants]]\ncapability = \"http\"\nurls = [\n\
             {{ host = \"127.0.0.1\", port = {port}, path_prefix = \"/metrics\", {secret} }},\n\
             {{ host = \"127.0.0.1\", port = {port}, path_prefix = \"/model/info\", {secret} }},\n\
             {{ host = \"127.0.0.1\", port = {port}, path_prefix = \"/health/readiness\" }},\n\
             {{ host = \"127.0.0.1\", port = {port}, path_prefix = \"/health/liveliness\" }},\n\
             {{ host = \"127.0.0.1\", ports = \"1024-65535\", path_prefix = \"/api/models\" }},\n]\n\
             [[plugins.litellm.grants]]\ncapability = \"store\"\nbytes = 262144\n",
            self.api.url()
        )
    }
}
