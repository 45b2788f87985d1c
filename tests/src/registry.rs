//! A real OCI registry: Debian's `docker-registry`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{Api, Daemon, Keys, Test, eventually, free_port, picket, quoted, signature};

/// One of its own, on this machine, without TLS.
pub struct Registry {
    _daemon: Daemon,
    host: String,
    store: PathBuf,
}

impl Registry {
    /// None: the part is missing, and that is said.
    pub async fn start(test: &Test) -> Result<Option<Self>> {
        let Some(program) = test.part("docker-registry") else { return Ok(None) };
        let port = free_port()?;
        let (config, store) = (test.folder().join("registry.yml"), test.folder().join("registry"));
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
                quoted(&store)
            ),
        )?;
        let daemon = Daemon::start(test, "registry", Command::new(program).arg("serve").arg(&config))?;
        let host = format!("127.0.0.1:{port}");
        let api = Api::new(&format!("http://{host}"), None, None)?;
        eventually("the registry answers", || async { api.text("/v2/").await.map(drop) }).await?;
        Ok(Some(Self { _daemon: daemon, host, store }))
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// Where it keeps what it has.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Pushes a component, signed by these keys; gives the reference with its digest.
    pub async fn push(&self, test: &Test, bytes: &[u8], name: &str, keys: &[&Keys]) -> Result<String> {
        let file = test.folder().join("to-push.wasm");
        std::fs::write(&file, bytes)?;
        let _ = std::fs::remove_file(signature(&file));
        for keys in keys {
            keys.sign(&file).await?;
        }
        let place = format!("{}/plugins/{name}", self.host);
        let file = file.to_str().context("an odd folder")?;
        Ok(picket(&["plugin", "push", file, &place, "--plain-http"]).await?.trim().to_owned())
    }
}
