//! Whether anything grows while a fleet lives as fleets do: load that changes, daemons that end and come back, connections that
//! stall, plugins that mean harm. An aggregator and agents as they are shipped, scraped each 15 seconds, read each minute.
//!
//! A fault that the fleet does not recover from is recorded, mended and fails the whole at its end.

mod fleet;
mod plot;
mod report;
mod schedule;
mod watch;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use e2e::Test;
use tokio::signal::unix::{SignalKind, signal};

use self::fleet::Fleet;
use self::report::Done;
use self::schedule::{Pace, Planned, schedule};
use self::watch::{Traffic, Watched};
use crate::report::{Figure, table};

const AGGREGATOR: &str = "picket-aggregator";
const AGENT: &str = "picket-agent";

#[derive(clap::Args)]
pub struct Soak {
    /// How long the row `soak` takes; 0.1 is six minutes.
    #[arg(long, default_value_t = 2.0, value_parser = hours)]
    hours: f64,
    /// How many agents the row `soak` has.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=50))]
    agents: u16,
    /// Which faults of the row `soak` come when.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The hostile plugins of the row `soak`.
    #[arg(long, default_value = "target/hostile")]
    hostile: PathBuf,
    /// Where the row `soak` leaves its samples, its report and its plot, in a folder of its own.
    #[arg(long, default_value = "target/soak")]
    into: PathBuf,
}

fn hours(text: &str) -> Result<f64> {
    let hours: f64 = text.parse()?;
    ensure!((0.05..=1000.0).contains(&hours), "must be 0.05 to 1000");
    Ok(hours)
}

/// Gives the figures, and whether the fleet recovered from all and lost nothing.
pub async fn measure(binaries: &Path, plugins: &Path, args: &Soak) -> Result<(Vec<Figure>, bool)> {
    let pace = Pace::of(Duration::from_secs_f64(args.hours * 3600.0));
    let agents = usize::from(args.agents);
    let plan = schedule(&pace, agents, args.seed);
    let began =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("the clock is before 1970")?;
    let folder = args.into.join(began.as_secs().to_string());
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let text = said(&plan, args);
    eprint!("{text}");
    write(&folder, "schedule.txt", &text)?;

    let real = |path: &Path| std::fs::canonicalize(path).with_context(|| format!("no {}", path.display()));
    e2e::use_binaries_of(&real(binaries)?);
    let test = Test::new()?;
    let (samples, done, traffic) = (RefCell::default(), RefCell::default(), Traffic::default());
    let whole = async {
        let mut fleet = Fleet::start(&test, agents, pace, real(plugins)?, real(&args.hostile)?).await?;
        let watched = fleet.watched();
        let aggregator = watched.first().context("no aggregator")?.api.clone();
        let begun = Instant::now();
        let file = folder.join("samples.jsonl");
        tokio::select! {
            read = watch::watch(&watched, &traffic, begun, pace.step, &file, &samples) => read,
            () = watch::ask(&aggregator, &traffic) => Ok(()),
            played = play(&mut fleet, &watched, plan, begun, &pace, &folder, &done) => played,
        }
    };
    let ended = tokio::select! {
        ended = Box::pin(whole) => ended,
        asked = asked_to_end() => {
            eprintln!("soak: asked to end; what there is so far:");
            asked
        }
    };
    keep_logs(test.folder(), &folder.join("logs"))?;
    ended?;
    conclude(&folder, &pace, &samples.take(), &done.take(), &traffic)
}

fn said(plan: &[Planned], args: &Soak) -> String {
    let mut text = format!("soak: {} hours, {} agents, seed {}\n", args.hours, args.agents, args.seed);
    for one in plan {
        let _ = writeln!(text, "soak: minute {:.1}: {}", one.at.as_secs_f64() / 60.0, one.fault);
    }
    text
}

/// Does what is planned, one after the other, and waits for the end.
async fn play(
    fleet: &mut Fleet<'_>,
    watched: &[Watched],
    plan: Vec<Planned>,
    begun: Instant,
    pace: &Pace,
    folder: &Path,
    done: &RefCell<Vec<Done>>,
) -> Result<()> {
    let file = folder.join("faults.jsonl");
    let mut out = std::fs::File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut record = |what: String, at_s: f64, outcome: Result<String>| -> Result<()> {
        let took_s = begun.elapsed().as_secs_f64() - at_s;
        let (said, error) = match outcome {
            Ok(said) => (said, None),
            Err(error) => (String::new(), Some(format!("{error:#}"))),
        };
        let one = Done { at_s, what, took_s, said, error };
        let word = one.error.as_ref().map_or("well again", String::as_str);
        eprintln!("soak: {:.1} min: {}: after {took_s:.0} s: {word}", at_s / 60.0, one.what);
        serde_json::to_writer(&mut out, &one)?;
        writeln!(out).with_context(|| format!("cannot write {}", file.display()))?;
        done.borrow_mut().push(one);
        Ok(())
    };
    for Planned { at, fault } in plan {
        tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
        let at_s = begun.elapsed().as_secs_f64();
        let outcome = fleet.play(fault, watched).await;
        let failed = outcome.is_err();
        record(fault.to_string(), at_s, outcome)?;
        if failed {
            fleet.mend(watched)?;
        }
    }
    tokio::time::sleep(pace.total.saturating_sub(begun.elapsed())).await;
    let at_s = begun.elapsed().as_secs_f64();
    let outcome = fleet.well().await;
    record("the end".to_owned(), at_s, outcome.map(|()| String::new()))
}

fn conclude(
    folder: &Path,
    pace: &Pace,
    samples: &[watch::Sample],
    done: &[Done],
    traffic: &Traffic,
) -> Result<(Vec<Figure>, bool)> {
    let figures = report::figures(samples, done, pace);
    let text = format!(
        "{}\n{}\n{} requests to the aggregator, {} without an answer.\n\n",
        report::hours(samples),
        report::faults(done),
        traffic.asked.get(),
        traffic.failed.get()
    );
    print!("{text}");
    write(folder, "report.md", &(text + &table(&figures)))?;
    write(folder, "plot.svg", &plot::svg(samples, done))?;
    eprintln!("soak: samples, report and plot are in {}", folder.display());
    let well = done.iter().all(|one| one.error.is_none()) && report::lost(samples) == 0.0;
    Ok((figures, well))
}

/// The daemons' logs, which say why a recovery failed, outlive their folder.
fn keep_logs(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(from)?.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().ends_with(".log") {
            let (file, copy) = (entry.path(), to.join(name));
            std::fs::copy(&file, copy).with_context(|| format!("cannot copy {}", file.display()))?;
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
}

async fn asked_to_end() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
        _ = terminated.recv() => Ok(()),
    }
}
