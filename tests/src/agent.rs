//! A real `picket-agent`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{
    Aggregator, Api, Daemon, Output, Test, binary, eventually_within, free_port, plugins, quoted, repository,
    run_program_with,
};

/// What an agent is started with.
pub struct AgentBuilder<'a> {
    test: &'a Test,
    name: String,
    folder: PathBuf,
    http: u16,
    aggregator: Option<String>,
    /// Lines of `[uplink]` that name an identity which was not enrolled.
    own_identity: String,
    /// Lines of `[uplink]`: the waits between attempts to connect.
    waits: &'static str,
    plugin_dir: PathBuf,
    /// Lines of `[trust]`.
    trust: String,
    /// Sections of the config, in order.
    sections: Vec<String>,
    environment: Vec<(String, String)>,
}

impl<'a> AgentBuilder<'a> {
    /// One that stands alone, with no plugin.
    pub fn new(test: &'a Test, name: &str) -> Result<Self> {
        let folder = test.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            test,
            name: name.to_owned(),
            folder,
            http: free_port()?,
            aggregator: None,
            own_identity: String::new(),
            waits: "backoff_min = \"50ms\"\nbackoff_max = \"500ms\"",
            plugin_dir: plugins(),
            trust: "allow_unsigned = true".to_owned(),
            sections: Vec::new(),
            environment: Vec::new(),
        })
    }

    /// The aggregator to send to (`host:port`).
    pub fn aggregator(mut self, address: &str) -> Self {
        self.aggregator = Some(address.to_owned());
        self
    }

    /// The certificate, key and authorities of a CA of one's own, as config lines.
    pub fn own_identity(mut self, lines: &str) -> Self {
        self.own_identity = lines.to_owned();
        self
    }

    /// Waits between attempts to connect as long as what is shipped does, not as short as a test wants it.
    pub fn shipped_waits(mut self) -> Self {
        self.waits = "";
        self
    }

    /// The `node` plugin, granted what it asks for.
    pub fn node(self, interval: &str) -> Result<Self> {
        let section = format!(
            "[plugins.node]\nfile = \"node.wasm\"\ninterval = \"{interval}\"\n{}",
            grants_of("node")?
        );
        Ok(self.section(section))
    }

    /// The `mock` plugin, with settings as TOML lines.
    pub fn mock(self, interval: &str, settings: &str) -> Result<Self> {
        let section = format!(
            "[plugins.mock]\nfile = \"mock.wasm\"\ninterval = \"{interval}\"\n[plugins.mock.settings]\n{settings}\n{}",
            grants_of("mock")?
        );
        Ok(self.section(section))
    }

    /// A plugin made for the tests, with settings as TOML lines and nothing granted.
    pub fn guest(self, id: &str, file: &str, interval: &str, settings: &str) -> Self {
        self.section(guest_section(id, file, interval, settings))
    }

    /// Any TOML, appended.
    pub fn section(mut self, text: impl Into<String>) -> Self {
        self.sections.push(text.into());
        self
    }

    /// Where plugin files are looked for.
    pub fn plugin_dir(mut self, folder: &Path) -> Self {
        self.plugin_dir = folder.to_owned();
        self
    }

    /// Whose plugins run, as lines of `[trust]`, instead of anybody's.
    pub fn trust(mut self, lines: &str) -> Self {
        self.trust = lines.to_owned();
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the agent keeps its state: its identity and its spool.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Writes the config file and gives it.
    pub fn write(&self) -> Result<PathBuf> {
        // Compiled plugins are shared by all tests, so that each file is compiled once.
        let mut text = format!(
            "state_dir = {}\ncache_dir = {}\nplugin_dir = {}\n\n[http]\nlisten = \"127.0.0.1:{}\"\n\n[trust]\n{}\n\n",
            quoted(self.state()),
            quoted(crate::target().join("e2e-cache")),
            quoted(&self.plugin_dir),
            self.http,
            self.trust
        );
        if let Some(aggregator) = &self.aggregator {
            text.push_str(&format!(
                "[uplink]\naggregator = \"{aggregator}\"\n{}\n{}\n",
                self.waits, self.own_identity
            ));
        }
        text.push_str(&self.sections.join("\n"));
        let file = self.folder.join("agent.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Enrols it with a fresh token and starts it.
    pub async fn enrol_and_start(self, aggregator: &Aggregator) -> Result<Agent> {
        let token = aggregator.enrolment_token(&self.name).await?;
        self.enrol(&token).await?.ok()?;
        self.start().await
    }

    /// Enrols it with this token.
    pub async fn enrol(&self, token: &str) -> Result<Output> {
        self.enrol_with(&["--token", token]).await
    }

    /// The same with a token for a batch.
    pub async fn enrol_as(&self, token: &str, node: &str) -> Result<Output> {
        self.enrol_with(&["--token", token, "--node", node]).await
    }

    /// Runs `picket-agent enroll` with these arguments.
    pub async fn enrol_with(&self, arguments: &[&str]) -> Result<Output> {
        let config = self.write()?;
        let mut command = Command::new(binary("picket-agent")?);
        command.arg("enroll").args(arguments).arg("--config").arg(&config);
        command.envs(self.environment.iter().map(|(n, v)| (n, v)));
        run_program_with(&mut command).await
    }

    /// Starts it and waits until its HTTP server answers.
    pub async fn start(self) -> Result<Agent> {
        let mut agent = self.start_unready()?;
        agent.wait_until_up().await?;
        Ok(agent)
    }

    /// Starts it without waiting.
    pub fn start_unready(self) -> Result<Agent> {
        let config = self.write()?;
        let api = Api::new(&format!("http://127.0.0.1:{}", self.http), None, None)?;
        let daemon = start(self.test, &self.name, &config, &self.environment)?;
        Ok(Agent {
            daemon,
            api,
            name: self.name.clone(),
            state: self.state(),
            folder: self.folder,
            config,
            environment: self.environment,
        })
    }
}

/// A running agent.
pub struct Agent {
    pub daemon: Daemon,
    /// Its local HTTP server.
    pub api: Api,
    name: String,
    folder: PathBuf,
    state: PathBuf,
    config: PathBuf,
    environment: Vec<(String, String)>,
}

impl Agent {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Its enrolled identity: `key.pem`, `certificate.pem`, `authorities.pem`.
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity")
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Starts it again in the same folder, after it ended or was killed.
    pub async fn restart(&mut self, test: &Test) -> Result<()> {
        self.start_again(test)?;
        self.wait_until_up().await
    }

    /// [`Agent::restart`] without waiting.
    pub fn start_again(&mut self, test: &Test) -> Result<()> {
        self.daemon.kill()?;
        self.daemon = start(test, &self.name, &self.config, &self.environment)?;
        Ok(())
    }

    /// Until its HTTP server answers, or it ended.
    pub async fn wait_until_up(&mut self) -> Result<()> {
        let api = self.api.clone();
        loop {
            self.daemon.check_running()?;
            let ask = || async { api.text("/healthz").await.map(drop) };
            if eventually_within(Duration::from_secs(1), "up", ask).await.is_ok() {
                return Ok(());
            }
        }
    }

    /// Waits until a plugin is in this state; gives what `/api/v1/plugins` says of it.
    pub async fn plugin_state(&self, id: &str, wanted: &str) -> Result<serde_json::Value> {
        crate::eventually(&format!("plugin {id} of {} is {wanted}", self.name), || async {
            let all = self.api.json("/api/v1/plugins").await?;
            let list = all.as_array().or_else(|| all["plugins"].as_array()).context("no list of plugins")?;
            match list.iter().find(|plugin| plugin["id"] == id) {
                Some(plugin) if plugin["state"] == wanted => Ok(plugin.clone()),
                Some(plugin) => bail!("{plugin}"),
                None => bail!("no plugin {id}: {all}"),
            }
        })
        .await
    }
}

fn start(test: &Test, name: &str, config: &Path, environment: &[(String, String)]) -> Result<Daemon> {
    let mut command = Command::new(binary("picket-agent")?);
    command.arg("run").arg("--config").arg(config);
    command.envs(environment.iter().map(|(n, v)| (n, v)));
    Daemon::start(test, name, &mut command)
}

/// The config of a plugin of `tests/guests`.
pub fn guest_section(id: &str, file: &str, interval: &str, settings: &str) -> String {
    let file = quoted(crate::guests().join(file));
    format!("[plugins.{id}]\nfile = {file}\ninterval = \"{interval}\"\n[plugins.{id}.settings]\n{settings}\n")
}

/// The grants that a first-party plugin asks for in its manifest, as config lines.
pub fn grants_of(plugin: &str) -> Result<String> {
    let manifest = repository().join("plugins").join(plugin).join("plugin.toml");
    let text =
        std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let manifest: toml::Table = text.parse()?;
    let mut lines = String::new();
    for need in manifest.get("needs").and_then(toml::Value::as_array).into_iter().flatten() {
        let mut grant = need.as_table().context("a need is no table")?.clone();
        grant.remove("why");
        lines.push_str(&format!("[[plugins.{plugin}.grants]]\n{grant}\n"));
    }
    Ok(lines)
}
