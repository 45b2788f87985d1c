//! Picket on one machine, for a person to look at: an aggregator, this machine as a node, and simulated GPU
//! nodes, enrolled by token over mutual TLS, all in a temporary folder that is gone afterwards.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{self, Daemon, Interrupted, free_port, host_name, quoted};
use crate::{build, command, setup};

/// How long every node may take until its metrics are there.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// What each simulated node must show in the aggregator's exposition.
const MOCK_METRIC: &str = "DCGM_FI_DEV_GPU_UTIL";
/// What this machine must show.
const NODE_METRIC: &str = "node_cpu_seconds_total";

/// What its nodes run.
const PLUGINS: [&str; 2] = ["mock", "node"];

#[derive(clap::Args)]
pub struct Args {
    /// Without a terminal: exit 0 once every node's metrics came through the aggregator, 1 after two minutes.
    #[arg(long)]
    check: bool,
    /// How many simulated GPU nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=50))]
    nodes: u16,
    /// A plugin of your own, built: this machine runs it too, with all that its manifest asks for
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
}

/// Builds, starts and shows it until it is interrupted; leaves nothing behind.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    let interrupted = Interrupted::install()?;
    setup::check(root)?;
    let built = build::demo(root, &PLUGINS)?;
    if interrupted.is_set() {
        return Ok(false);
    }
    let folder = tempfile::Builder::new().prefix("picket-demo-").tempdir().context("no temporary folder")?;
    let mut demo =
        Demo { built, root, folder: folder.path().to_owned(), daemons: Vec::new(), api: None, guest: None };
    let outcome = demo.play(args, &interrupted);
    if let Err(error) = &outcome
        && !interrupted.is_set()
    {
        demo.explain();
        eprintln!("error: {error:#}");
    }
    demo.stop();
    folder.close().context("the temporary folder could not be removed")?;
    Ok(interrupted.is_set() && !args.check || outcome.is_ok())
}

struct Demo<'a> {
    built: build::Built,
    root: &'a Path,
    folder: PathBuf,
    /// In the order in which they were started.
    daemons: Vec<Daemon>,
    api: Option<Api>,
    /// The section of the plugin that was named.
    guest: Option<String>,
}

/// How the aggregator's HTTP API is reached.
struct Api {
    url: String,
    token: String,
    authority: PathBuf,
}

struct Node {
    name: String,
    metric: &'static str,
    plugin: &'static str,
    settings: String,
}

impl Demo<'_> {
    fn play(&mut self, args: &Args, interrupted: &Interrupted) -> Result<()> {
        let nodes = nodes(args.nodes);
        self.guest = args.plugin.as_deref().map(|file| guest(&self.built.cli, file)).transpose()?;
        let uplink = free_port()?;
        self.start_aggregator(uplink, interrupted)?;
        for node in &nodes {
            self.start_node(node)?;
        }
        let ready_at = Instant::now();
        self.wait_for_metrics(&nodes, interrupted)?;
        eprintln!(
            "all {} nodes' metrics are there after {:.1} s",
            nodes.len(),
            ready_at.elapsed().as_secs_f32()
        );
        if args.check {
            return Ok(());
        }
        self.print_how_to_look(&nodes)?;
        self.show(interrupted)
    }

    fn start_aggregator(&mut self, uplink: u16, interrupted: &Interrupted) -> Result<()> {
        let http = free_port()?;
        let state = self.folder.join("aggregator");
        let config = self.folder.join("aggregator.toml");
        let text = format!(
            "state_dir = {}\n\n[uplink]\nlisten = \"127.0.0.1:{uplink}\"\nadvertise = [\"127.0.0.1:{uplink}\"]\n\
             names = [\"localhost\", \"127.0.0.1\"]\n\n[http]\nlisten = \"127.0.0.1:{http}\"\n",
            quoted(&state)
        );
        std::fs::write(&config, text)?;
        command::output(Command::new(&self.built.aggregator).arg("init").arg("--config").arg(&config))?;
        let mut run = Command::new(&self.built.aggregator);
        let log = self.folder.join("aggregator.log");
        self.daemons.push(Daemon::start("aggregator", run.arg("run").arg("--config").arg(&config), log)?);
        let token = std::fs::read_to_string(state.join("admin.token")).context("no admin token was made")?;
        let authority = state.join("ca.pem");
        let api = Api { url: format!("https://127.0.0.1:{http}"), token: token.trim().to_owned(), authority };
        self.api = Some(api);
        let deadline = Instant::now() + READY_WITHIN;
        while self.cli(&["status"]).is_err() {
            self.still_running()?;
            if Instant::now() > deadline {
                bail!("the aggregator does not answer");
            }
            if !interrupted.sleep(Duration::from_millis(100)) {
                bail!("interrupted");
            }
        }
        Ok(())
    }

    fn start_node(&mut self, node: &Node) -> Result<()> {
        let folder = self.folder.join(&node.name);
        std::fs::create_dir(&folder)?;
        let config = folder.join("agent.toml");
        std::fs::write(&config, self.agent_config(node, &folder)?)?;
        let token =
            self.cli(&["token", "create", "--node", &node.name, "--ttl", "1h", "--output", "json"])?;
        let token: serde_json::Value = serde_json::from_str(&token).context("the new token")?;
        let token = token["token"].as_str().context("the CLI gave no token")?.to_owned();
        command::output(
            Command::new(&self.built.agent).args(["enroll", "--token", &token]).arg("--config").arg(&config),
        )?;
        let mut run = Command::new(&self.built.agent);
        let log = folder.join("agent.log");
        self.daemons.push(Daemon::start(&node.name, run.arg("run").arg("--config").arg(&config), log)?);
        Ok(())
    }

    /// The plugin is granted what its manifest asks for; a real operator writes the grants down by hand.
    fn agent_config(&self, node: &Node, folder: &Path) -> Result<String> {
        let manifest = self.root.join("plugins").join(node.plugin).join("plugin.toml");
        let manifest: toml::Table = std::fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?
            .parse()
            .with_context(|| format!("{} is no TOML", manifest.display()))?;
        let uplink = std::fs::read_to_string(self.folder.join("aggregator.toml"))?;
        let uplink: toml::Table = uplink.parse()?;
        let aggregator = uplink["uplink"]["listen"].as_str().unwrap_or_default();
        let mut text = format!(
            "state_dir = {}\ncache_dir = {}\nplugin_dir = {}\n\n[http]\nlisten = \"127.0.0.1:{}\"\n\n\
             [trust]\nallow_unsigned = true\n\n[uplink]\naggregator = \"{aggregator}\"\n\n[plugins.{plugin}]\nfile = \"{plugin}.wasm\"\n\
             interval = \"5s\"\n",
            quoted(&folder.join("state")),
            quoted(&self.folder.join("cache")),
            quoted(&self.built.plugins),
            free_port()?,
            plugin = node.plugin,
        );
        if !node.settings.is_empty() {
            write!(text, "\n[plugins.{}.settings]\n{}\n", node.plugin, node.settings)?;
        }
        for need in manifest.get("needs").and_then(toml::Value::as_array).into_iter().flatten() {
            let mut grant = need.as_table().context("a need is no table")?.clone();
            grant.remove("why");
            write!(text, "\n[[plugins.{}.grants]]\n{grant}", node.plugin)?;
        }
        if let Some(guest) = self.guest.as_ref().filter(|_| node.plugin == "node") {
            text.push_str(guest);
        }
        Ok(text)
    }

    fn wait_for_metrics(&mut self, nodes: &[Node], interrupted: &Interrupted) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let metrics = self.cli(&["metrics"]);
            let missing: Vec<&str> = nodes
                .iter()
                .filter(|node| !metrics.as_ref().is_ok_and(|text| shows(text, node)))
                .map(|node| node.name.as_str())
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            self.still_running()?;
            if Instant::now() > deadline {
                let why = metrics.err().map(|e| format!(" ({e:#})")).unwrap_or_default();
                bail!(
                    "after {} s nothing of {} came through the aggregator's /metrics{why}",
                    READY_WITHIN.as_secs(),
                    missing.join(", ")
                );
            }
            if !interrupted.sleep(Duration::from_millis(300)) {
                bail!("interrupted");
            }
        }
    }

    fn print_how_to_look(&self, nodes: &[Node]) -> Result<()> {
        let api = self.api.as_ref().context("no aggregator")?;
        let simulated = nodes.get(1).or(nodes.first()).map_or("", |node| node.name.as_str());
        let exports = self.folder.join("env");
        let text = format!(
            "export PICKET_URL={} PICKET_CA={} PICKET_TOKEN={}\n",
            api.url,
            api.authority.display(),
            api.token
        );
        write_private(&exports, &text)?;
        println!(
            "\nPicket runs: one aggregator, {} nodes. Look around from another terminal:\n\n  \
             . {exports}\n  \
             curl --cacert $PICKET_CA -H \"Authorization: Bearer $PICKET_TOKEN\" $PICKET_URL/metrics\n  \
             curl --cacert $PICKET_CA -H \"Authorization: Bearer $PICKET_TOKEN\" $PICKET_URL/api/v1/nodes\n  \
             {cli} nodes\n  \
             curl --cacert $PICKET_CA -H \"Authorization: Bearer $PICKET_TOKEN\" -X PUT \\\n    \
             -d '{{\"scenario\":\"high_load\"}}' $PICKET_URL/api/v1/nodes/{simulated}/scenario\n\n\
             Ctrl-C ends it and leaves nothing behind.\n",
            nodes.len(),
            exports = exports.display(),
            cli = self.built.cli.display(),
        );
        Ok(())
    }

    /// The live table: `picket top` in a terminal, else the same table printed again and again.
    fn show(&mut self, interrupted: &Interrupted) -> Result<()> {
        if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
            // Time to read how to look around, before the table takes the screen.
            if !interrupted.sleep(Duration::from_secs(3)) {
                return Ok(());
            }
            let mut top = self.cli_command(&["top"])?.spawn().context("cannot start picket top")?;
            let mut outcome = Ok(());
            while !interrupted.is_set() && outcome.is_ok() {
                if top.try_wait()?.is_some() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(100));
                outcome = self.still_running();
            }
            process::stop(&mut top, Duration::from_secs(3));
            restore_terminal();
            return outcome;
        }
        while !interrupted.is_set() {
            let table = self.cli(&["top", "--once"])?;
            let mut out = std::io::stdout();
            // A reader that went away ends the demo.
            if writeln!(out, "{table}").and_then(|()| out.flush()).is_err() {
                return Ok(());
            }
            self.still_running()?;
            interrupted.sleep(Duration::from_secs(5));
        }
        Ok(())
    }

    fn still_running(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if let Some(status) = daemon.ended() {
                bail!("{} ended ({status})", daemon.name());
            }
        }
        Ok(())
    }

    fn cli_command(&self, args: &[&str]) -> Result<Command> {
        let api = self.api.as_ref().context("no aggregator")?;
        let mut command = Command::new(&self.built.cli);
        command
            .args(args)
            .env("PICKET_URL", &api.url)
            .env("PICKET_TOKEN", &api.token)
            .env("PICKET_CA", &api.authority);
        Ok(command)
    }

    fn cli(&self, args: &[&str]) -> Result<String> {
        command::output(&mut self.cli_command(args)?)
    }

    /// The ends of all logs.
    fn explain(&self) {
        for daemon in &self.daemons {
            eprintln!("--- the log of {} ends with\n{}", daemon.name(), daemon.log_tail(15));
        }
    }

    /// Agents first, so that they can hand in what they hold.
    fn stop(&mut self) {
        while let Some(daemon) = self.daemons.pop() {
            drop(daemon);
        }
    }
}

impl Drop for Demo<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The section of a plugin that is not ours, as its operator would write it after `picket plugin grants`.
fn guest(cli: &Path, file: &Path) -> Result<String> {
    let file = std::path::absolute(file)?;
    let told = command::output(Command::new(cli).args(["plugin", "grants"]).arg(&file).args(["-o", "json"]))?;
    let told: serde_json::Value = serde_json::from_str(&told).context("what the CLI says of the plugin")?;
    let id = told["plugin"].as_str().context("the plugin has no id")?;
    let grants = told["toml"].as_str().unwrap_or_default();
    Ok(format!("\n[plugins.{id}]\nfile = {}\ninterval = \"2s\"\n\n{grants}", quoted(&file)))
}

fn nodes(simulated: u16) -> Vec<Node> {
    let this = Node { name: host_name(), metric: NODE_METRIC, plugin: "node", settings: String::new() };
    let gpu = (1..=simulated).map(|number| Node {
        name: format!("gpu-node-{number}"),
        metric: MOCK_METRIC,
        plugin: "mock",
        settings: format!("seed = {number}"),
    });
    std::iter::once(this).chain(gpu).collect()
}

fn shows(metrics: &str, node: &Node) -> bool {
    let instance = format!("instance=\"{}\"", node.name);
    metrics.lines().any(|line| line.starts_with(node.metric) && line.contains(&instance))
}

/// After a table that was stopped from outside: the usual screen, the cursor, line mode.
fn restore_terminal() {
    let mut out = std::io::stdout();
    let _ = out.write_all(b"\x1b[?1049l\x1b[?25h").and_then(|()| out.flush());
    let _ = Command::new("stty").arg("sane").status();
}

/// Holds a token: for this user's eyes alone.
fn write_private(file: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    Ok(file.write_all(text.as_bytes())?)
}
