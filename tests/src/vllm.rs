//! A real vLLM on this machine's processors, with a tiny model of random weights. 6.5 GB and 4 GB of memory, so it is
//! opt-in: `cargo xtask parts vllm`, or a folder with `bin/vllm` and `model/` in `PICKET_TEST_VLLM`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{skip, target};

/// Where one is installed.
pub struct Vllm {
    folder: PathBuf,
}

impl Vllm {
    /// None, said by name, where it is not installed.
    pub fn find() -> Option<Self> {
        let folder =
            std::env::var_os("PICKET_TEST_VLLM").map_or_else(|| target().join("parts/vllm"), PathBuf::from);
        if folder.join("bin/vllm").exists() && folder.join("model/config.json").exists() {
            return Some(Self { folder });
        }
        skip("needs a real vLLM (6.5 GB): run `cargo xtask parts vllm`");
        None
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What to run to serve the model as `tiny-llama` on a port of loopback.
    pub fn arguments(&self, port: u16) -> Result<Vec<String>> {
        let path = |file: PathBuf| file.to_str().map(str::to_owned).context("a path that is no UTF-8");
        let mut all = vec![
            path(self.folder.join("bin/vllm"))?,
            "serve".to_owned(),
            path(self.folder.join("model"))?,
            "--port".to_owned(),
            port.to_string(),
        ];
        let fixed = "--load-format dummy --host 127.0.0.1 --served-model-name tiny-llama --max-model-len 512 \
                     --dtype bfloat16 --enforce-eager --max-num-seqs 4";
        all.extend(fixed.split(' ').map(str::to_owned));
        Ok(all)
    }

    /// It asks no hub and reports to nobody.
    pub fn environment() -> [(&'static str, &'static str); 4] {
        [
            ("HF_HUB_OFFLINE", "1"),
            ("VLLM_NO_USAGE_STATS", "1"),
            ("DO_NOT_TRACK", "1"),
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
        ]
    }

    /// The server, as a process of the host.
    pub fn command(&self, port: u16) -> Result<Command> {
        let arguments = self.arguments(port)?;
        let (program, rest) = arguments.split_first().context("no program")?;
        let mut command = Command::new(program);
        command.args(rest).envs(Self::environment());
        Ok(command)
    }
}
