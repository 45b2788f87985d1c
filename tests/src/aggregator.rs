//! A real `picket-aggregator`, and the `picket` CLI that talks to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    AgentBuilder, Api, Daemon, Output, Test, binary, eventually, free_port, quoted, run_program_with,
};

/// What an aggregator is started with.
pub struct AggregatorBuilder<'a> {
    test: &'a Test,
    folder: PathBuf,
    uplink: u16,
    http: u16,
    sections: Vec<(&'static str, String)>,
    environment: Vec<(String, String)>,
    initialise: bool,
}

impl<'a> AggregatorBuilder<'a> {
    pub fn new(test: &'a Test) -> Result<Self> {
        let folder = test.folder().join("aggregator");
        let (uplink, http) = (free_port()?, free_port()?);
        Ok(Self {
            test,
            folder,
            uplink,
            http,
            sections: Vec::new(),
            environment: Vec::new(),
            initialise: true,
        })
    }

    /// A line of a section, such as `("identity", "certificate_life = \"10s\"")`.
    pub fn set(mut self, section: &'static str, line: impl Into<String>) -> Self {
        self.sections.push((section, line.into()));
        self
    }

    /// In a folder of this name: a test that has two gives them two.
    pub fn named(mut self, name: &str) -> Self {
        self.folder = self.test.folder().join(name);
        self
    }

    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Doesn't run `init` first.
    pub fn without_init(mut self) -> Self {
        self.initialise = false;
        self
    }

    /// Writes the config file and gives it.
    pub fn write(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.folder)?;
        let mut text = format!("state_dir = {}\n", quoted(self.folder.join("state")));
        let own = [
            ("uplink", format!("listen = \"127.0.0.1:{0}\"\nadvertise = [\"127.0.0.1:{0}\"]", self.uplink)),
            ("http", format!("listen = \"127.0.0.1:{}\"", self.http)),
        ];
        let mut sections: std::collections::BTreeMap<&str, Vec<&str>> = std::collections::BTreeMap::new();
        for (section, line) in own.iter().chain(&self.sections) {
            sections.entry(section).or_default().push(line);
        }
        for (section, lines) in sections {
            text.push_str(&format!("\n[{section}]\n{}\n", lines.join("\n")));
        }
        let file = self.folder.join("aggregator.toml");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Runs `init` and starts it; waits until its API answers.
    pub async fn start(self) -> Result<Aggregator> {
        let authority = self.folder.join("state/ca.pem");
        self.start_trusting(&authority).await
    }

    /// [`AggregatorBuilder::start`] where its certificate is of another CA.
    pub async fn start_trusting(self, authority: &Path) -> Result<Aggregator> {
        let config = self.write()?;
        if self.initialise {
            let program = binary("picket-aggregator")?;
            run_program_with(Command::new(program).arg("init").arg("--config").arg(&config)).await?.ok()?;
        }
        let state = self.folder.join("state");
        let token = std::fs::read_to_string(state.join("admin.token")).context("no admin token")?;
        let api = Api::new(&format!("https://127.0.0.1:{}", self.http), Some(token.trim()), Some(authority))?;
        let daemon = start(self.test, &config, &self.environment)?;
        let mut aggregator = Aggregator {
            daemon,
            api,
            token: token.trim().to_owned(),
            config,
            state,
            authority: authority.to_owned(),
            uplink: self.uplink,
            environment: self.environment,
        };
        aggregator.wait_until_ready().await?;
        Ok(aggregator)
    }
}

fn start(test: &Test, config: &Path, environment: &[(String, String)]) -> Result<Daemon> {
    let mut command = Command::new(binary("picket-aggregator")?);
    command.arg("run").arg("--config").arg(config);
    command.envs(environment.iter().map(|(n, v)| (n, v)));
    Daemon::start(test, "aggregator", &mut command)
}

/// A running aggregator.
pub struct Aggregator {
    pub daemon: Daemon,
    /// Its API with the admin token.
    pub api: Api,
    token: String,
    config: PathBuf,
    state: PathBuf,
    authority: PathBuf,
    uplink: u16,
    environment: Vec<(String, String)>,
}

impl Aggregator {
    /// Where agents find it.
    pub fn uplink(&self) -> String {
        format!("127.0.0.1:{}", self.uplink)
    }

    pub fn uplink_port(&self) -> u16 {
        self.uplink
    }

    /// The certificate of the CA to trust.
    pub fn authority(&self) -> PathBuf {
        self.authority.clone()
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    pub fn config(&self) -> &Path {
        &self.config
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Until its API answers, or it ended.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let api = self.api.clone();
        let daemon = &mut self.daemon;
        loop {
            daemon.check_running()?;
            let ask = || async { api.text("/readyz").await.map(drop) };
            if crate::eventually_within(Duration::from_secs(1), "ready", ask).await.is_ok() {
                return Ok(());
            }
        }
    }

    /// Starts it again in the same folder, after it ended or was killed.
    pub async fn restart(&mut self, test: &Test) -> Result<()> {
        self.start_again(test)?;
        self.wait_until_ready().await
    }

    /// [`Aggregator::restart`] without waiting.
    pub fn start_again(&mut self, test: &Test) -> Result<()> {
        self.daemon.kill()?;
        self.daemon = start(test, &self.config, &self.environment)?;
        Ok(())
    }

    /// An agent that will be enrolled here.
    pub fn agent<'a>(&self, test: &'a Test, name: &str) -> Result<AgentBuilder<'a>> {
        Ok(AgentBuilder::new(test, name)?.aggregator(&self.uplink()))
    }

    /// Runs the `picket` CLI with the admin token.
    pub async fn cli(&self, args: &[&str]) -> Result<Output> {
        run_program_with(&mut self.cli_command(args)?).await
    }

    /// What [`Self::cli`] runs.
    pub fn cli_command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary("picket")?);
        command
            .args(args)
            .env("PICKET_URL", self.api.url())
            .env("PICKET_TOKEN", &self.token)
            .env("PICKET_CA", self.authority());
        Ok(command)
    }

    /// The CLI's `--output json`.
    pub async fn cli_json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["--output", "json"]);
        let text = self.cli(&all).await?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("picket {args:?} gave no JSON: {text}"))
    }

    /// A one-time token that enrols a node.
    pub async fn enrolment_token(&self, node: &str) -> Result<String> {
        self.enrolment_token_for(node, "1h").await
    }

    pub async fn enrolment_token_for(&self, node: &str, life: &str) -> Result<String> {
        let answer = self.cli_json(&["token", "create", "--node", node, "--ttl", life]).await?;
        Ok(answer["token"].as_str().with_context(|| format!("no token in {answer}"))?.to_owned())
    }

    /// A token for the API, by role.
    pub async fn api_token(&self, role: &str) -> Result<String> {
        let answer = self.cli_json(&["token", "create", "--role", role, "--name", role]).await?;
        Ok(answer["token"].as_str().with_context(|| format!("no token in {answer}"))?.to_owned())
    }

    /// Waits until a series with these labels is exported.
    pub async fn has(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        eventually(&format!("{name}{labels:?} in the aggregator's /metrics"), || async {
            let metrics = self.api.metrics().await?;
            let found = metrics
                .series(name)
                .iter()
                .find(|(have, _)| labels.iter().all(|(n, v)| have.get(*n).is_some_and(|have| have == v)));
            match found {
                Some((_, value)) => Ok(*value),
                None => bail!("instances are {:?}", metrics.instances()),
            }
        })
        .await
    }

    /// Waits until the node is connected, or isn't.
    pub async fn connected(&self, node: &str, wanted: bool) -> Result<()> {
        let path = format!("/api/v1/nodes/{node}");
        eventually(&format!("node {node} connected: {wanted}"), || async {
            let answer = self.api.json(&path).await?;
            match answer["connected"].as_bool() {
                Some(connected) if connected == wanted => Ok(()),
                _ => bail!("{answer}"),
            }
        })
        .await
    }
}
