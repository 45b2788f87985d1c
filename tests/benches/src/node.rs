//! An agent with the plugins of a row's choosing, and what it and the processes that it starts take.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use e2e::exposition::Exposition;
use e2e::{Api, grants_of, quoted};

use crate::process::{Server, free_port};
use crate::setup::Places;
use crate::usage::{Usage, children};

/// The process that plugins run in.
pub const WORKER: &str = "picket-worker";
/// The one that asks the driver.
pub const NVML: &str = "picket-nvml";
/// Eight GPUs of the fake driver.
const GPUS: &str = "tests/fake-nvml/scenarios/8xh100.toml";

pub struct Node {
    pub server: Server,
    pub api: Api,
}

impl Node {
    /// Starts one in the folder `dir` and waits until each of `plugins` has collected. `sections` is TOML.
    pub async fn start(places: &Places, dir: &Path, sections: &str, plugins: &[&str]) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let port = free_port()?;
        let real = |path: &Path| {
            fs::canonicalize(path)
                .with_context(|| format!("{}: `cargo xtask bench` builds it", path.display()))
        };
        let config = format!(
            "state_dir = {}\ncache_dir = {}\nplugin_dir = {}\ncompiler = {}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[trust]\nallow_unsigned = true\n{sections}",
            quoted(dir.join("state")),
            quoted(dir.join("cache")),
            quoted(real(&places.plugins)?),
            quoted(real(&places.ours("picket-compile")?)?),
        );
        let file = dir.join("agent.toml");
        fs::write(&file, config)?;
        // env(1) becomes the agent, so that what is measured is the agent alone.
        let args = [
            format!("FAKE_NVML_SCENARIO={}", real(Path::new(GPUS))?.display()),
            real(&places.ours("picket-agent")?)?.display().to_string(),
            "run".to_owned(),
            "--config".to_owned(),
            file.display().to_string(),
        ];
        let log = dir.join("agent.log");
        let server = Server::start("picket-agent", Path::new("env"), &args, &log)?;
        let api = Api::new(&format!("http://127.0.0.1:{port}"), None, None)?;
        let node = Self { server, api };
        let ready = e2e::eventually_within(Duration::from_secs(180), "each plugin has collected", || async {
            let page = node.api.metrics().await?;
            for plugin in plugins {
                ensure!(collects(&page, plugin) > 0.0, "{plugin} has not");
            }
            Ok(())
        });
        tokio::select! {
            ready = ready => ready,
            () = node.ended() => Err(anyhow!("the agent ended")),
        }
        .with_context(|| e2e::tail(&log, 30))?;
        Ok(node)
    }

    /// What the agent itself takes.
    pub fn agent(&self) -> Result<Usage> {
        Usage::of(self.server.pid())
    }

    /// What its children of this name take together: the worker that its plugins run in, the helper that asks the driver.
    pub fn helper(&self, name: &str) -> Result<Usage> {
        let mut children = children(self.server.pid());
        children.retain(|child| child.name == name);
        ensure!(!children.is_empty(), "no {name} runs");
        let all = children.into_iter().map(|child| Usage::of(child.pid)).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().fold(Usage::default(), Usage::with))
    }

    /// What the agent and the worker take together.
    pub fn both(&self) -> Result<Usage> {
        Ok(self.agent()?.with(self.helper(WORKER)?))
    }

    /// Until its process is no more.
    async fn ended(&self) {
        // What has ended and was not waited for has no memory to tell of.
        while Usage::of(self.server.pid()).is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the agent tells of so many collects of a plugin more than on `before`; the page.
    pub async fn after(&self, before: &Exposition, plugin: &str, more: f64) -> Result<Exposition> {
        let begun = collects(before, plugin);
        self.page(|page| {
            let now = collects(page, plugin) - begun;
            ensure!(now >= more, "{now} of {more} collects of {plugin}");
            Ok(())
        })
        .await
    }

    /// Waits for a page of which `is_it` holds. Asked for seldom: a scrape costs more than a collect.
    pub async fn page(&self, is_it: impl Fn(&Exposition) -> Result<()>) -> Result<Exposition> {
        let until = Instant::now() + Duration::from_secs(300);
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let page = self.api.metrics().await?;
            match is_it(&page) {
                Ok(()) => return Ok(page),
                Err(error) if Instant::now() > until => return Err(error.context("after 300 s")),
                Err(_) => {}
            }
        }
    }
}

/// How often a plugin has collected.
pub fn collects(page: &Exposition, plugin: &str) -> f64 {
    page.sum("picket_plugin_collects_total", &[("plugin", plugin), ("result", "ok")])
}

/// CPU seconds inside a plugin.
pub fn guest_seconds(page: &Exposition, plugin: &str) -> f64 {
    page.sum("picket_plugin_guest_seconds_total", &[("plugin", plugin)])
}

/// The plugin `gpu`, its driver the fake one.
pub fn gpu(places: &Places, interval: &str) -> Result<String> {
    let library = places.binaries.join("libfake_nvml.so");
    let helper = places.agent.with_file_name("picket-nvml");
    for file in [&library, &helper] {
        ensure!(file.is_file(), "{} is not there: `cargo xtask bench` builds it", file.display());
    }
    Ok(format!(
        "[nvml]\nlibrary = {}\nhelper = {}\n[plugins.gpu]\nfile = \"gpu.wasm\"\ninterval = \"{interval}\"\n{}",
        quoted(fs::canonicalize(library)?),
        quoted(fs::canonicalize(helper)?),
        grants_of("gpu")?
    ))
}

/// The plugin `vllm` with servers by URL; `sockets` are engines'.
pub fn vllm(interval: &str, endpoints: &[String], sockets: &[&Path]) -> String {
    let endpoints: Vec<String> = endpoints.iter().map(|url| format!("{{ url = \"{url}\" }}")).collect();
    let sockets: Vec<String> = sockets.iter().map(quoted).collect();
    format!(
        "[plugins.vllm]\nfile = \"vllm.wasm\"\ninterval = \"{interval}\"\n[plugins.vllm.settings]\nendpoints = [{}]\n\
         [[plugins.vllm.grants]]\ncapability = \"containers\"\nsockets = [{}]\nlabels = [\"vllm=true\"]\n\
         [[plugins.vllm.grants]]\ncapability = \"http\"\nurls = [{{ host = \"127.0.0.1\", ports = \"1024-65535\" }}]\n\
         [[plugins.vllm.grants]]\ncapability = \"store\"\nbytes = 65536\n",
        endpoints.join(", "),
        sockets.join(", ")
    )
}

/// The plugin `logs` on these files, read from their beginning.
pub fn logs(interval: &str, files: &[&Path]) -> String {
    let files: Vec<String> = files.iter().map(quoted).collect();
    format!(
        "[plugins.logs]\nfile = \"logs.wasm\"\ninterval = \"{interval}\"\n[plugins.logs.settings]\nfrom = \"beginning\"\n\
         [[plugins.logs.grants]]\ncapability = \"logs\"\nfiles = [{}]\n",
        files.join(", ")
    )
}
