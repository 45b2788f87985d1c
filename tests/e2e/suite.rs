//! The hostile suite: each plugin of `tests/hostile` on a real agent, beside a good one. What must happen to it stands
//! on top of its source:
//!
//! - `must: refused CODE …` it is not loaded, and one of the codes is said (none given: any);
//! - `must: stopped CODE …` it is loaded, stopped within its limits, and quarantined with one of the codes;
//! - `must: counted REASON` it goes on, and that reason of failure is counted;
//! - `must: says TEXT` the reason that is given for its state holds the text;
//! - `must: goes-on` it collects and does not fail;
//! - `must: exported WORD` the exposition has a series of that name, whatever became of the call that pushed it;
//! - `must: not-exported WORD` no line of the exposition begins with the word, or holds it as a label's value;
//! - `must: neighbour-kept` the good plugin's family is as it was.
//!
//! `|` stands between alternatives. `grant:` is a grant as TOML, `argument:` the plugin's setting of that name; `{folder}` and
//! `{silent}` in them are a folder of the test's with a pipe in it, and the port of a server that never answers.
//!
//! For all of them: no tick of the good plugin is late by more than 50 ms, the agent neither ends nor panics, what it exports
//! stays readable, its log short, and its memory grows by at most [`GROWTH`].
//!
//! The agent itself measures how late a tick is: from when it was planned to when the plugin ran, the wait for its turn in the
//! worker included. On a machine that is too busy everybody is late, so a thread of the test's own does nothing but sleep and
//! look how late it woke; as many late ticks are excused as it was late itself meanwhile, mostly none. A plugin that holds up
//! another does it at every collect.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Agent, AgentBuilder, Test, eventually, eventually_within, quoted, repository, run_within, target};
use futures_util::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio::net::TcpListener;

/// What the agent and its helpers may grow by, in bytes.
const GROWTH: u64 = 32 << 20;
/// Limits that make misbehaviour end soon.
const LIMITS: &str =
    "guest_time = \"300ms\"\ncall_time = \"1s\"\nrestarts = 2\nback_off = \"100ms\"\nseries = 500\n";
/// How many agents run side by side: one for two CPUs, for what the bad plugins burn is not to be missing to a good one elsewhere.
fn abreast() -> usize {
    std::thread::available_parallelism().map_or(1, |cpus| cpus.get().div_ceil(2))
}

/// When this machine itself was late.
struct Pulse {
    hiccups: Arc<Mutex<Vec<(Instant, Duration)>>>,
    over: Arc<AtomicBool>,
}

impl Pulse {
    const PERIOD: Duration = Duration::from_millis(10);
    /// A tick has other ways to be late than by the machine alone: half of what it may be is the machine's.
    const HICCUP: Duration = Duration::from_millis(25);

    fn start() -> Self {
        let (hiccups, over) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (list, ends) = (hiccups.clone(), over.clone());
        std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let due = Instant::now() + Self::PERIOD;
                std::thread::sleep(Self::PERIOD);
                let late = due.elapsed();
                if late > Self::HICCUP {
                    list.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), late));
                }
            }
        });
        Self { hiccups, over }
    }

    fn since(&self, began: Instant) -> Vec<Duration> {
        let list = self.hiccups.lock().unwrap_or_else(PoisonError::into_inner);
        list.iter().filter(|(at, _)| *at >= began).map(|(_, late)| *late).collect()
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// A plugin of the suite, as its source says.
struct Case {
    name: String,
    musts: Vec<String>,
    grants: Vec<String>,
    argument: String,
}

impl Case {
    fn read(source: &Path) -> Result<Self> {
        let name = source.file_stem().and_then(|name| name.to_str()).context("a file without a name")?;
        let text = std::fs::read_to_string(source)?;
        let said = |key: &str| {
            let lines = text.lines().map(|line| line.trim_start_matches(['/', '!', ';', ' ']));
            let key = format!("{key}: ");
            lines.filter_map(|line| line.strip_prefix(&key).map(str::to_owned)).collect::<Vec<_>>()
        };
        let musts = said("must");
        ensure!(!musts.is_empty(), "{} does not say what must happen", source.display());
        let argument = said("argument").pop().unwrap_or_default();
        Ok(Self { name: name.to_owned(), musts, grants: said("grant"), argument })
    }
}

fn cases() -> Result<Vec<Case>> {
    let folder = repository().join("tests/hostile/plugins");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let cases = files.iter().map(|file| Case::read(file)).collect::<Result<Vec<_>>>()?;
    ensure!(cases.len() >= 40, "only {} hostile plugins", cases.len());
    Ok(cases)
}

#[test]
fn every_hostile_plugin_meets_its_end_and_harms_nobody() {
    run_within(Duration::from_secs(600), async |test: &Test| {
        let cases = cases()?;
        let pulse = &Pulse::start();
        let wrong: Vec<String> = futures_util::stream::iter(&cases)
            .map(|case| async move {
                let failed =
                    play(test, case, pulse).await.err().map(|error| format!("{}: {error:#}", case.name));
                // At once: a suite that takes too long is to say what it got to.
                failed.iter().for_each(|failed| eprintln!("{failed}"));
                Ok::<_, anyhow::Error>(failed)
            })
            .buffer_unordered(abreast())
            .try_filter_map(|failed| async move { Ok(failed) })
            .try_collect()
            .await?;
        ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        Ok(())
    });
}

/// One plugin from its drop into a running agent to what it came to.
async fn play(test: &Test, case: &Case, pulse: &Pulse) -> Result<()> {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await?;
    let builder = AgentBuilder::new(test, &case.name)?.guest("neighbour", "count.wasm", "100ms", "");
    let folder = builder.folder().join("room");
    std::fs::create_dir_all(&folder)?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )?;
    let fill = |text: &str| {
        text.replace("{folder}", &folder.to_string_lossy())
            .replace("{silent}", &silent.local_addr().map(|a| a.port()).unwrap_or_default().to_string())
    };
    let mut agent = builder.start().await?;
    eventually("the good plugin's first sample", || ticks(&agent)).await?;
    let (calm, peak) = (agent.daemon.memory_of_all()?, agent.daemon.memory("VmHWM")?);

    let file = target().join("hostile").join(format!("{}.wasm", case.name));
    let grants: Vec<String> = case.grants.iter().map(|grant| format!("{{ {} }}", fill(grant))).collect();
    let section = format!(
        "[plugins.hostile]\nfile = {}\ninterval = \"200ms\"\ngrants = [{}]\n[plugins.hostile.settings]\n\
         argument = {}\n[plugins.hostile.limits]\n{LIMITS}",
        quoted(&file),
        grants.join(", "),
        quoted(fill(&case.argument))
    );
    let conf_d = agent.folder().join("conf.d");
    std::fs::create_dir_all(&conf_d)?;
    std::fs::write(conf_d.join("hostile.toml"), section)?;
    let (before, punctual) = (ticks(&agent).await?, Punctual::of(&agent).await?);
    let began = Instant::now();
    agent.daemon.signal(rustix::process::Signal::HUP)?;

    for must in &case.musts {
        meets(&agent, must).await?;
    }

    agent.daemon.check_running()?;
    let wanted = began.elapsed().as_secs_f64() * 10.0;
    let done = ticks(&agent).await? - before;
    let now = Punctual::of(&agent).await?;
    let (late, hiccups) = (now.late - punctual.late, pulse.since(began));
    ensure!(
        late <= hiccups.len() as u64,
        "{late} of the good plugin's {done} ticks were late by more than 50 ms, the worst by {:.3} s; the machine itself \
         was late {} times: {hiccups:?}",
        now.worst,
        hiccups.len()
    );
    // What is not late may still be left out.
    ensure!(done + 5.0 >= wanted * 0.6, "the good plugin collected {done} times, due were {wanted:.0}");
    let metrics = agent.api.metrics().await.context("what it exports")?;
    ensure!(metrics.types.get("test_ticks").map(String::as_str) == Some("gauge"), "the good plugin's type");
    let series = metrics.series("hostile_value");
    ensure!(series.len() <= 20_000, "{} series are exported", series.len());
    for (labels, value) in series {
        ensure!(!value.is_nan(), "a NaN is exported");
        ensure!(labels.values().all(|value| value.len() < 10_000), "a long label is exported");
    }
    let log = agent.daemon.log();
    ensure!(log.len() < 1 << 20, "the log has {} bytes", log.len());
    ensure!(!log.contains("panicked"), "it panicked: {log}");
    ensure!(!log.contains('\u{1b}'), "an escape sequence reached the log");
    let grown = agent.daemon.memory_of_all()?.saturating_sub(calm);
    ensure!(grown <= GROWTH, "the agent and its helpers grew by {} KiB", grown >> 10);
    let peak = agent.daemon.memory("VmHWM")?.saturating_sub(peak);
    ensure!(peak <= GROWTH, "the agent grew by {} KiB for a while", peak >> 10);
    println!(
        "{}: {done} ticks beside it, {late} late, the worst so far by {:.1} ms, {} hiccups; grown by {} KiB, at its peak by {} KiB",
        case.name,
        now.worst * 1000.0,
        hiccups.len(),
        grown >> 10,
        peak >> 10
    );
    let status = agent.daemon.stop(Duration::from_secs(10)).await?;
    ensure!(status.success(), "ended with {status}");
    Ok(())
}

async fn meets(agent: &Agent, must: &str) -> Result<()> {
    let met = async || -> Result<()> {
        let mut why = Vec::new();
        for one in must.split(" | ") {
            match meets_one(agent, one).await {
                Ok(()) => return Ok(()),
                Err(error) => why.push(format!("{error:#}")),
            }
        }
        bail!("{}", why.join("; "))
    };
    eventually_within(Duration::from_secs(40), must, met).await
}

async fn meets_one(agent: &Agent, must: &str) -> Result<()> {
    let (verb, rest) = must.split_once(' ').unwrap_or((must, ""));
    let plugin = plugin(agent, "hostile").await?;
    let state = plugin["state"].as_str().unwrap_or_default();
    let code = plugin["code"].as_str().unwrap_or_default();
    let named = |wanted: &str| -> Result<()> {
        ensure!(state == wanted, "it is {state}: {plugin}");
        let codes: Vec<&str> = rest.split_whitespace().collect();
        ensure!(codes.is_empty() || codes.contains(&code), "{code} instead: {plugin}");
        ensure!(!plugin["reason"].as_str().unwrap_or_default().is_empty(), "no reason is given: {plugin}");
        ensure!(agent.daemon.log().contains("hostile"), "the log does not name it");
        Ok(())
    };
    match verb {
        "refused" => named("refused"),
        "stopped" => named("quarantined"),
        "counted" => {
            ensure!(state == "running", "it is {state}: {plugin}");
            let metrics = agent.api.metrics().await?;
            let labels = [("plugin", "hostile"), ("reason", rest)];
            ensure!(metrics.sum("picket_source_errors_total", &labels) > 0.0, "not counted: {plugin}");
            Ok(())
        }
        "says" => {
            let reason = plugin["reason"].as_str().unwrap_or_default();
            ensure!(reason.contains(rest), "it is said of it: {reason}");
            Ok(())
        }
        "goes-on" => {
            ensure!(state == "running", "it is {state}: {plugin}");
            let collects = &plugin["collects"];
            ensure!(collects["ok"].as_u64() >= Some(3), "not three times yet: {plugin}");
            ensure!(collects["failed"] == 0, "it failed: {plugin}");
            Ok(())
        }
        "exported" => {
            ensure!(!agent.api.metrics().await?.series(rest).is_empty(), "not exported: {plugin}");
            Ok(())
        }
        "not-exported" => {
            ensure!(
                ["running", "quarantined"].contains(&state) && plugin["last"].is_object(),
                "it has not collected yet"
            );
            let text = agent.api.text("/metrics").await?;
            let value = format!("=\"{rest}\"");
            let line = text.lines().find(|l| {
                l.starts_with(rest) || l.starts_with(&format!("# TYPE {rest}")) || l.contains(&value)
            });
            line.map_or(Ok(()), |line| bail!("exported: {line}"))
        }
        "neighbour-kept" => {
            let metrics = agent.api.metrics().await?;
            ensure!(metrics.series("test_ticks").iter().all(|(_, value)| *value >= 0.0), "its value changed");
            Ok(())
        }
        _ => bail!("the suite does not know {verb:?}"),
    }
}

/// How the good plugin's ticks came.
struct Punctual {
    /// By more than 50 ms.
    late: u64,
    /// Since the agent began, in seconds.
    worst: f64,
}

impl Punctual {
    async fn of(agent: &Agent) -> Result<Self> {
        let late = plugin(agent, "neighbour").await?["collects"]["late"].clone();
        let number = |value: &Value| value.as_u64().with_context(|| format!("no lateness: {late}"));
        // The second bound is 50 ms.
        let (ticks, within) = (number(&late["ticks"])?, number(&late["within"][1])?);
        let worst = late["worst_seconds"].as_f64().context("no worst")?;
        Ok(Self { late: ticks - within, worst })
    }
}

/// How often the good plugin has collected, once it has.
async fn ticks(agent: &Agent) -> Result<f64> {
    let collects = plugin(agent, "neighbour").await?["collects"].clone();
    let ok = collects["ok"].as_f64().context("no count")?;
    ensure!(ok > 0.0, "not once");
    ensure!(collects["failed"] == 0, "the good plugin failed: {collects}");
    Ok(ok)
}

/// What the API says of a plugin.
async fn plugin(agent: &Agent, id: &str) -> Result<Value> {
    let all = agent.api.json("/api/v1/plugins").await?;
    let list = all["plugins"].as_array().context("no list of plugins")?;
    list.iter().find(|plugin| plugin["id"] == id).cloned().with_context(|| format!("no {id}: {all}"))
}
