//! The fleet under soak: an aggregator and agents as they are shipped, and what is done to them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Agent, Aggregator, Test, eventually_every, quoted};
use rustix::process::Signal;
use serde_json::json;

use super::schedule::{End, Fault, Pace, node};
use super::watch::{PENDING, Watched};
use super::{AGENT, AGGREGATOR};

/// How long the fleet may take until it is well again.
const RECOVERY: Duration = Duration::from_secs(300);
/// How long a daemon may take to end by SIGTERM.
const END: Duration = Duration::from_secs(60);
/// A page costs more than a collect, so it is asked for seldom.
const ASK_EVERY: Duration = Duration::from_secs(1);

pub struct Fleet<'a> {
    test: &'a Test,
    aggregator: Aggregator,
    agents: Vec<Agent>,
    hostile: PathBuf,
    pace: Pace,
}

impl<'a> Fleet<'a> {
    /// Starts it; each agent has the plugins `node` and `mock` at the shipped interval.
    pub async fn start(
        test: &'a Test,
        agents: usize,
        pace: Pace,
        plugins: PathBuf,
        hostile: PathBuf,
    ) -> Result<Self> {
        let aggregator = test.aggregator().await?;
        let mut fleet = Self { test, aggregator, agents: Vec::new(), hostile, pace };
        for place in 0..agents {
            let name = node(place);
            let settings = format!("seed = {}\nhost = false\nhostname = \"{name}\"", place + 1);
            let builder = fleet.aggregator.agent(test, &name)?.plugin_dir(&plugins).shipped_waits();
            let agent =
                builder.node("15s")?.mock("15s", &settings)?.enrol_and_start(&fleet.aggregator).await?;
            fs::create_dir_all(agent.folder().join("conf.d"))?;
            fleet.agents.push(agent);
        }
        fleet.well().await?;
        Ok(fleet)
    }

    /// As who watches sees it.
    pub fn watched(&self) -> Vec<Watched> {
        let aggregator = Watched {
            name: "aggregator".to_owned(),
            kind: AGGREGATOR,
            pid: self.aggregator.daemon.pid().into(),
            api: self.aggregator.api.clone(),
            state: self.aggregator.state().to_owned(),
        };
        let agents = self.agents.iter().map(|agent| Watched {
            name: agent.name().to_owned(),
            kind: AGENT,
            pid: agent.daemon.pid().into(),
            api: agent.api.clone(),
            state: agent.state().to_owned(),
        });
        std::iter::once(aggregator).chain(agents).collect()
    }

    /// Does it and waits until the fleet is well again; a word about it.
    pub async fn play(&mut self, fault: Fault, watched: &[Watched]) -> Result<String> {
        let longest = self.pace.outage + RECOVERY * 2;
        let said = match tokio::time::timeout(longest, self.harm(fault, watched)).await {
            Ok(said) => said?,
            Err(_) => bail!("it took longer than {} s", longest.as_secs()),
        };
        self.well().await?;
        Ok(said)
    }

    async fn harm(&mut self, fault: Fault, watched: &[Watched]) -> Result<String> {
        match fault {
            Fault::Scenario { agent, name } => self.scenario(agent, name).await?,
            Fault::Reload { agent } => self.reload(agent).await?,
            Fault::Churn { agent } => self.churn(agent).await?,
            Fault::Hostile { agent, plugin, end } => self.hostile(agent, plugin, end).await?,
            Fault::Stall { agent } => {
                self.agent(agent)?.daemon.signal(Signal::STOP)?;
                tokio::time::sleep(self.pace.stall).await;
                self.agent(agent)?.daemon.signal(Signal::CONT)?;
            }
            Fault::Stop { agent } => {
                let status = self.agent_mut(agent)?.daemon.stop(END).await?;
                ensure!(status.success(), "{} ended with {status}", node(agent));
                self.start_agent(agent, watched)?;
            }
            Fault::Kill { agent } => {
                self.agent_mut(agent)?.daemon.kill()?;
                self.start_agent(agent, watched)?;
            }
            Fault::Outage => {
                let status = self.aggregator.daemon.stop(END).await?;
                ensure!(status.success(), "the aggregator ended with {status}");
                tokio::time::sleep(self.pace.outage).await;
                let mut waiting = 0.0;
                for agent in &self.agents {
                    let pending = pending(agent).await?;
                    ensure!(pending > 0.0, "{} has nothing in its spool", agent.name());
                    waiting += pending;
                }
                self.start_aggregator(watched)?;
                return Ok(format!("{waiting} records in the spools"));
            }
            Fault::AggregatorKill => {
                self.aggregator.daemon.kill()?;
                self.start_aggregator(watched)?;
            }
        }
        Ok(String::new())
    }

    async fn scenario(&self, agent: usize, name: &str) -> Result<()> {
        let path = format!("/api/v1/nodes/{}/scenario", node(agent));
        let (status, answer) =
            self.aggregator.api.request("PUT", &path, Some(&json!({ "scenario": name }))).await?;
        ensure!(status == 200, "PUT {path}: {status} {answer}");
        let now = self.agent(agent)?.api.text("/api/v1/scenario").await?;
        ensure!(now.contains(name), "{} has another scenario than {name}: {now}", node(agent));
        Ok(())
    }

    async fn reload(&self, agent: usize) -> Result<()> {
        let before = self.collects(agent).await?;
        self.configure(agent, Some("[plugins.mock]\ninterval = \"2s\"\n"))?;
        // More than the shipped interval gives in that time.
        let soon = tokio::time::sleep(Duration::from_secs(30));
        let more = until("mock collects more often", async || {
            let more = self.collects(agent).await? - before;
            ensure!(more >= 6.0, "{more} of 6 collects more");
            Ok(())
        });
        tokio::select! {
            done = more => done?,
            () = soon => bail!("{} does not collect more often after a reload", node(agent)),
        }
        self.configure(agent, None)
    }

    async fn churn(&self, agent: usize) -> Result<()> {
        for round in 0..self.pace.churns {
            let host = format!("churn-{round}");
            self.configure(agent, Some(&format!("[plugins.mock.settings]\nhostname = \"{host}\"\n")))?;
            let select = format!(
                "/api/v1/series?match=DCGM_FI_DEV_GPU_UTIL%7Binstance%3D%22{}%22%2CHostname%3D%22{host}%22%7D",
                node(agent)
            );
            until("the new series are there", async || {
                let found = self.aggregator.api.text(&select).await?;
                ensure!(found.contains(&host), "none of {host}");
                Ok(())
            })
            .await?;
        }
        self.configure(agent, None)
    }

    async fn hostile(&self, agent: usize, plugin: &str, end: End) -> Result<()> {
        let file = self.hostile.join(format!("{plugin}.wasm"));
        ensure!(file.is_file(), "{} is not there: `cargo xtask build-guests`", file.display());
        let section = format!("[plugins.hostile]\nfile = {}\ninterval = \"1s\"\n", quoted(&file));
        self.configure(agent, Some(&section))?;
        let api = &self.agent(agent)?.api;
        until("the agent has dealt with it", async || {
            match end {
                End::Quarantined => {
                    let all = api.json("/api/v1/plugins").await?;
                    let list = all["plugins"].as_array().or_else(|| all.as_array()).context("no list")?;
                    let state = list.iter().find(|one| one["id"] == "hostile").map(|one| &one["state"]);
                    ensure!(state.is_some_and(|state| state == "quarantined"), "it is {state:?}");
                }
                End::Refused => {
                    let labels = [("plugin", "hostile"), ("reason", "refused")];
                    let refused = api.metrics().await?.sum("picket_source_errors_total", &labels);
                    ensure!(refused > 0.0, "nothing was refused");
                }
            }
            Ok(())
        })
        .await?;
        self.configure(agent, None)?;
        until("it is gone", async || {
            ensure!(!api.text("/api/v1/plugins").await?.contains("\"hostile\""), "still there");
            Ok(())
        })
        .await
    }

    /// More configuration for an agent, or no more, taken over at once.
    fn configure(&self, agent: usize, more: Option<&str>) -> Result<()> {
        let agent = self.agent(agent)?;
        let file = agent.folder().join("conf.d/soak.toml");
        match more {
            Some(text) => fs::write(&file, text),
            None => fs::remove_file(&file),
        }
        .with_context(|| format!("cannot change {}", file.display()))?;
        agent.daemon.signal(Signal::HUP)
    }

    async fn collects(&self, agent: usize) -> Result<f64> {
        let page = self.agent(agent)?.api.metrics().await?;
        Ok(crate::node::collects(&page, "mock"))
    }

    /// Until all run, every node is up and what its spool held then is acknowledged.
    pub async fn well(&mut self) -> Result<()> {
        let deadline = Instant::now() + RECOVERY;
        let mut begun = vec![None; self.agents.len()];
        loop {
            self.aggregator.daemon.check_running()?;
            for agent in &mut self.agents {
                agent.daemon.check_running()?;
            }
            match self.is_well(&mut begun).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("not well after {} s", RECOVERY.as_secs())));
                }
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }

    /// Of all agents, so that their times run side by side; the first trouble counts.
    async fn is_well(&self, begun: &mut [Option<f64>]) -> Result<()> {
        self.aggregator.api.text("/readyz").await?;
        let mut outcome = Ok(());
        for (agent, begun) in self.agents.iter().zip(begun) {
            outcome = outcome.and(self.agent_is_well(agent, begun).await);
        }
        outcome
    }

    /// `begun` keeps what the agent had appended to its spool when it was first seen up. It counts its spool only now and then,
    /// so that what it tells before the next record may be of the time before the fault.
    async fn agent_is_well(&self, agent: &Agent, begun: &mut Option<f64>) -> Result<()> {
        let node = self.aggregator.api.json(&format!("/api/v1/nodes/{}", agent.name())).await?;
        ensure!(node["state"] == "up", "{} is {}", agent.name(), node["state"]);
        agent.api.text("/readyz").await?;
        let page = agent.api.metrics().await?;
        let appended = page.value("picket_spool_records_appended_total", &[])?;
        let before = *begun.get_or_insert(appended);
        ensure!(appended > before, "{} has not told of its spool since it is up", agent.name());
        let pending = page.value(PENDING, &[])?;
        // What was appended since may be on its way.
        ensure!(pending <= appended - before, "{} has {pending} records in its spool", agent.name());
        Ok(())
    }

    /// After a fault that failed: what was changed is taken back, what ended is started again.
    pub fn mend(&mut self, watched: &[Watched]) -> Result<()> {
        for place in 0..self.agents.len() {
            let _ = fs::remove_file(self.agent(place)?.folder().join("conf.d/soak.toml"));
            if self.agent_mut(place)?.daemon.ended().is_some() {
                self.start_agent(place, watched)?;
                continue;
            }
            self.agent(place)?.daemon.signal(Signal::CONT)?;
            self.agent(place)?.daemon.signal(Signal::HUP)?;
        }
        if self.aggregator.daemon.ended().is_some() {
            self.start_aggregator(watched)?;
        }
        Ok(())
    }

    fn start_agent(&mut self, place: usize, watched: &[Watched]) -> Result<()> {
        let test = self.test;
        let agent = self.agent_mut(place)?;
        agent.start_again(test)?;
        note(watched, agent.name(), agent.daemon.pid());
        Ok(())
    }

    fn start_aggregator(&mut self, watched: &[Watched]) -> Result<()> {
        self.aggregator.start_again(self.test)?;
        note(watched, "aggregator", self.aggregator.daemon.pid());
        Ok(())
    }

    fn agent(&self, place: usize) -> Result<&Agent> {
        self.agents.get(place).with_context(|| format!("no agent {}", node(place)))
    }

    fn agent_mut(&mut self, place: usize) -> Result<&mut Agent> {
        self.agents.get_mut(place).with_context(|| format!("no agent {}", node(place)))
    }
}

fn note(watched: &[Watched], name: &str, pid: u32) {
    for one in watched.iter().filter(|one| one.name == name) {
        one.pid.set(pid);
    }
}

async fn pending(agent: &Agent) -> Result<f64> {
    agent.api.metrics().await?.value(PENDING, &[])
}

/// Asks again and again until the answer is `Ok`, as [`Fleet::well`] does.
async fn until(what: &str, ask: impl AsyncFn() -> Result<()>) -> Result<()> {
    eventually_every(ASK_EVERY, RECOVERY, what, || ask()).await
}
