//! What was acknowledged stays, what was lost is counted, nothing is there twice: through kills, full disks, flipped
//! bytes, a clock that steps back and a long outage.
//!
//! The `count` guest makes gaps visible: its one series is 1, 2, 3 … since its instance was made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::uplink::{self, Credentials, Stream, Token};
use e2e::{
    Agent, AgentBuilder, Aggregator, Dice, Row, Test, eventually, eventually_within, run, run_within, skip,
};
use picket_proto::columns::Encoder;
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, MetricType, Part};
use picket_proto::v1::uplink_message::Message as Up;
use picket_proto::v1::{self, downlink_message::Message as Down};

const SERIES: &str = "test_ticks";

fn counting<'a>(aggregator: &Aggregator, test: &'a Test) -> Result<AgentBuilder<'a>> {
    Ok(aggregator.agent(test, "counter")?.guest("count", "count.wasm", "100ms", ""))
}

async fn rows(aggregator: &Aggregator) -> Result<Vec<Row>> {
    let mut rows = aggregator.api.export(&format!("match={SERIES}&node=counter")).await?;
    rows.sort_by_key(|row| row.ts_ms);
    Ok(rows)
}

/// What a series of counts shows.
#[derive(Debug, Default)]
struct Runs {
    samples: usize,
    /// How often it began at 1 again.
    starts: usize,
    /// Numbers that are missing between others.
    missing: u64,
}

/// An error if a sample stands twice or a number is out of order.
fn check_runs(rows: &[Row]) -> Result<Runs> {
    let mut times = BTreeSet::new();
    for row in rows {
        ensure!(times.insert((&row.labels, row.ts_ms)), "the sample of {} stands twice", row.ts_ms);
    }
    let mut runs = Runs { samples: rows.len(), ..Runs::default() };
    let mut last = 0;
    for row in rows {
        let number = row.number().with_context(|| format!("no number: {row:?}"))? as u64;
        if number == 1 {
            runs.starts += 1;
        } else {
            ensure!(number > last, "after {last} comes {number} at {}", row.ts_ms);
            runs.missing += number - last - 1;
        }
        last = number;
    }
    Ok(runs)
}

/// Waits until new samples arrive, so that all that was before them has been handed in.
async fn caught_up(aggregator: &Aggregator) -> Result<Vec<Row>> {
    let since = uplink::now_ms();
    eventually("samples arrive again", || async {
        let rows = rows(aggregator).await?;
        ensure!(rows.last().is_some_and(|row| row.ts_ms > since), "the last is {:?}", rows.last());
        Ok(rows)
    })
    .await
}

#[test]
fn killed_a_hundred_times_nothing_is_missing_and_nothing_twice() {
    run_within(Duration::from_secs(420), async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let mut agent = counting(&aggregator, test)?.enrol_and_start(&aggregator).await?;
        aggregator.has(SERIES, &[("instance", "counter")]).await?;
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for _ in 0..50 {
            // Both at random points, each alone or the one while the other starts.
            tokio::time::sleep(Duration::from_millis(dice.below(700))).await;
            agent.start_again(test)?;
            tokio::time::sleep(Duration::from_millis(dice.below(700))).await;
            aggregator.start_again(test)?;
        }
        aggregator.wait_until_ready().await?;
        agent.wait_until_up().await?;
        let rows = caught_up(&aggregator).await?;
        let runs = check_runs(&rows)?;
        ensure!(runs.missing == 0, "{runs:?}");
        ensure!(runs.starts > 10 && runs.samples > 100, "too little came through to tell: {runs:?}");
        let metrics = agent.api.metrics().await?;
        let lost = metrics.sum("picket_spool_records_lost_total", &[]);
        ensure!(lost == 0.0, "{lost} records lost");
        Ok(())
    });
}

/// Grows a spool while there is no aggregator, then stops everything. The aggregator is down, the agent too.
async fn with_backlog(test: &Test) -> Result<(Aggregator, Agent)> {
    let mut aggregator = test.aggregator().await?;
    let agent = counting(&aggregator, test)?.enrol_and_start(&aggregator).await?;
    // Not only seen: what was not written down is the spool's alone, and the spool may be lost next.
    eventually("a sample is in the log", || async {
        ensure!(!rows(&aggregator).await?.is_empty(), "none");
        Ok(())
    })
    .await?;
    aggregator.daemon.kill()?;
    let mut agent = agent;
    eventually("a backlog", || async {
        let pending = agent.api.metrics().await?.value("picket_spool_records_pending", &[])?;
        ensure!(pending >= 50.0, "{pending}");
        Ok(())
    })
    .await?;
    agent.daemon.kill()?;
    Ok((aggregator, agent))
}

/// The files of the spool, largest first.
fn spool_files(agent: &Agent) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![agent.state().join("spool")];
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push((entry.metadata()?.len(), entry.path()));
            }
        }
    }
    files.sort();
    Ok(files.into_iter().rev().map(|(_, file)| file).collect())
}

#[test]
fn flipped_bytes_lose_what_they_hit_and_it_is_counted() {
    run(async |test: &Test| {
        let (mut aggregator, mut agent) = with_backlog(test).await?;
        let file = spool_files(&agent)?.into_iter().next().context("no spool")?;
        let mut bytes = std::fs::read(&file)?;
        let middle = bytes.len() / 2;
        for byte in bytes.get_mut(middle..middle + 3).context("a short file")? {
            *byte ^= 0x5a;
        }
        std::fs::write(&file, bytes)?;
        aggregator.restart(test).await?;
        agent.restart(test).await?;
        let runs = check_runs(&caught_up(&aggregator).await?)?;
        let metrics = agent.api.metrics().await?;
        let lost = metrics.sum("picket_spool_records_lost_total", &[("reason", "corrupt")]);
        ensure!(lost > 0.0, "nothing was counted");
        ensure!(runs.missing as f64 <= lost, "{} are missing, {lost} were counted", runs.missing);
        ensure!(runs.starts == 2, "{runs:?}");
        Ok(())
    });
}

#[test]
fn a_torn_tail_is_cut() {
    run(async |test: &Test| {
        let (mut aggregator, mut agent) = with_backlog(test).await?;
        let file = spool_files(&agent)?.into_iter().next().context("no spool")?;
        let length = std::fs::metadata(&file)?.len();
        std::fs::OpenOptions::new().write(true).open(&file)?.set_len(length - 7)?;
        aggregator.restart(test).await?;
        agent.restart(test).await?;
        let runs = check_runs(&caught_up(&aggregator).await?)?;
        ensure!(runs.missing == 0 && runs.starts == 2, "{runs:?}");
        Ok(())
    });
}

#[test]
fn all_of_the_spool_is_garbage() {
    run(async |test: &Test| {
        let (mut aggregator, mut agent) = with_backlog(test).await?;
        for file in spool_files(&agent)? {
            let length = std::fs::metadata(&file)?.len() as usize;
            std::fs::write(&file, vec![0xa5; length])?;
        }
        aggregator.restart(test).await?;
        agent.restart(test).await?;
        let runs = check_runs(&caught_up(&aggregator).await?)?;
        ensure!(runs.starts == 2, "{runs:?}");
        Ok(())
    });
}

/// A file system of its own, that can be filled or made read-only. Needs root.
pub struct Disk {
    at: PathBuf,
}

impl Disk {
    pub fn mount(at: &Path, size: &str) -> Result<Option<Self>> {
        std::fs::create_dir_all(at)?;
        let options = format!("size={size},mode=0755");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "picket-e2e"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Some(Self { at: at.to_owned() })),
            _ => {
                skip("needs the right to mount a tmpfs (run it as root)");
                Ok(None)
            }
        }
    }

    pub fn remount(&self, option: &str) -> Result<()> {
        let option = format!("remount,{option}");
        let output = Command::new("mount").args(["-o", &option]).arg(&self.at).output()?;
        ensure!(output.status.success(), "cannot remount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Takes all room that is left.
    pub fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file = std::fs::File::create(self.at.join("ballast"))?;
        let block = vec![0; 4096];
        while file.write_all(&block).is_ok() {}
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.at.join("ballast"))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
    }
}

#[test]
fn the_agents_disk_is_full() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let builder = counting(&aggregator, test)?;
        let Some(disk) = Disk::mount(&builder.state(), "4m")? else { return Ok(()) };
        let mut aggregator = aggregator;
        let mut agent = builder.enrol_and_start(&aggregator).await?;
        aggregator.has(SERIES, &[("instance", "counter")]).await?;
        aggregator.daemon.kill()?;
        disk.fill()?;
        // Records wait in memory, up to a bound.
        eventually("records pile up", || async {
            let pending = agent.api.metrics().await?.value("picket_spool_records_pending", &[])?;
            ensure!(pending > 100.0, "{pending}");
            Ok(())
        })
        .await?;
        // It goes on collecting, and goes on delivering once it can.
        agent.daemon.check_running()?;
        agent.plugin_state("count", "running").await?;
        disk.free()?;
        aggregator.restart(test).await?;
        let runs = check_runs(&caught_up(&aggregator).await?)?;
        let lost = agent.api.metrics().await?.sum("picket_spool_records_lost_total", &[]);
        ensure!(runs.missing as f64 <= lost, "{} are missing, {lost} were counted", runs.missing);
        ensure!(runs.starts == 1, "{runs:?}");
        // So that the disk outlives who writes to it.
        agent.daemon.kill()?;
        drop(disk);
        Ok(())
    });
}

#[test]
fn the_aggregators_disk_is_full() {
    run(async |test: &Test| {
        let folder = test.folder().join("aggregator/state");
        let Some(disk) = Disk::mount(&folder, "16m")? else { return Ok(()) };
        let mut aggregator = test.aggregator().await?;
        let mut agent = counting(&aggregator, test)?.enrol_and_start(&aggregator).await?;
        aggregator.has(SERIES, &[("instance", "counter")]).await?;
        disk.fill()?;
        // Nothing is acknowledged that isn't durable: the agent keeps it.
        eventually("the agent keeps what can't be stored", || async {
            let pending = agent.api.metrics().await?.value("picket_spool_records_pending", &[])?;
            ensure!(pending > 30.0, "{pending}");
            Ok(())
        })
        .await?;
        aggregator.daemon.check_running()?;
        aggregator.api.metrics().await?;
        disk.free()?;
        let runs = check_runs(&caught_up(&aggregator).await?)?;
        ensure!(runs.missing == 0 && runs.starts == 1, "{runs:?}");
        agent.daemon.kill()?;
        aggregator.daemon.kill()?;
        drop(disk);
        Ok(())
    });
}

#[test]
fn the_agents_state_is_read_only() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let builder = counting(&aggregator, test)?;
        let Some(disk) = Disk::mount(&builder.state(), "4m")? else { return Ok(()) };
        builder.enrol(&aggregator.enrolment_token("counter").await?).await?.ok()?;
        disk.remount("ro")?;
        let mut agent = builder.start().await?;
        aggregator.has(SERIES, &[("instance", "counter")]).await?;
        let durable = agent.api.metrics().await?.value("picket_spool_durable", &[])?;
        ensure!(durable == 0.0, "it says that its spool is durable");
        agent.daemon.kill()?;
        drop(disk);
        Ok(())
    });
}

#[test]
fn the_agents_clock_steps_back() {
    run(async |test: &Test| {
        let Some(library) = test.part("libfaketime.so") else { return Ok(()) };
        let aggregator = test.aggregator().await?;
        let offset = test.folder().join("offset");
        std::fs::write(&offset, "+0\n")?;
        let mut agent = counting(&aggregator, test)?
            .environment("LD_PRELOAD", &library.to_string_lossy())
            .environment("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .enrol_and_start(&aggregator)
            .await?;
        aggregator.has(SERIES, &[("instance", "counter")]).await?;
        for step in ["-120", "+0", "-30", "-200"] {
            let before = rows(&aggregator).await?.len();
            std::fs::write(&offset, format!("{step}\n"))?;
            eventually(&format!("samples go on arriving after a step to {step} s"), || async {
                let now = rows(&aggregator).await?.len();
                ensure!(now > before + 20, "{} more", now - before);
                Ok(())
            })
            .await?;
        }
        agent.daemon.check_running()?;
        let mut times = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for row in rows(&aggregator).await? {
            ensure!(times.insert(row.ts_ms, row.clone()).is_none(), "two samples at {}", row.ts_ms);
            let number = row.number().context("no number")? as u64;
            ensure!(numbers.insert(number, row.ts_ms).is_none(), "the sample {number} stands twice");
        }
        let (first, last) = (numbers.keys().next().copied(), numbers.keys().last().copied());
        let all = last.unwrap_or_default() - first.unwrap_or_default() + 1;
        let lost = agent.api.metrics().await?.sum("picket_spool_records_lost_total", &[]);
        ensure!(all - numbers.len() as u64 <= lost as u64, "{} of {all} arrived", numbers.len());
        Ok(())
    });
}

/// A day passes for an agent that is alone, ten minutes at a time; then it hands in all of it.
#[test]
fn an_agent_that_was_alone_for_a_day_hands_in_all_of_it() {
    const DAY: i64 = 86_400;
    const STEP: i64 = 600;
    run_within(Duration::from_secs(240), async |test: &Test| {
        let Some(library) = test.part("libfaketime.so") else { return Ok(()) };
        let mut aggregator = test.aggregator().await?;
        let offset = test.folder().join("offset");
        std::fs::write(&offset, "+0\n")?;
        let away = counting(&aggregator, test)?
            .environment("LD_PRELOAD", &library.to_string_lossy())
            .environment("FAKETIME_TIMESTAMP_FILE", &offset.to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        away.enrol(&aggregator.enrolment_token("counter").await?).await?.ok()?;
        aggregator.daemon.kill()?;
        std::fs::write(&offset, format!("-{DAY}\n"))?;
        let agent = away.start().await?;
        let count = async || -> Result<f64> { agent.api.metrics().await?.value(SERIES, &[]) };
        for ago in (0..DAY).step_by(STEP as usize).map(|passed| DAY - passed) {
            let before = count().await.unwrap_or_default();
            std::fs::write(&offset, format!("-{ago}\n"))?;
            eventually(&format!("it collects {ago} s ago"), || async {
                ensure!(count().await? > before, "still at {before}");
                Ok(())
            })
            .await?;
        }
        std::fs::write(&offset, "+0\n")?;
        aggregator.restart(test).await?;
        let last = count().await?;
        eventually_within(Duration::from_secs(60), "all of it is in the log", || async {
            let rows = rows(&aggregator).await?;
            let newest = rows.last().and_then(Row::number).unwrap_or_default();
            ensure!(newest > last, "{} samples up to {newest} of {last}", rows.len());
            Ok(())
        })
        .await?;
        let rows = rows(&aggregator).await?;
        let runs = check_runs(&rows)?;
        let lost = agent.api.metrics().await?.sum("picket_spool_records_lost_total", &[]);
        ensure!(runs.starts == 1 && runs.missing as f64 <= lost, "{runs:?}, {lost} lost");
        let span = rows.last().zip(rows.first()).map_or(0, |(last, first)| last.ts_ms - first.ts_ms);
        ensure!(span >= (DAY - STEP) * 1000, "the samples span {} s", span / 1000);
        Ok(())
    });
}

/// The same at full size, by a hand-made agent: a batch every 15 seconds, and the aggregator killed in the middle.
#[test]
fn a_day_of_backlog_is_replayed() {
    const BATCHES: u64 = 24 * 3600 / 15;
    const SERIES_OF_A_NODE: u32 = 500;
    run_within(Duration::from_secs(420), async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let token = Token::parse(&aggregator.enrolment_token("long-away").await?)?;
        let (_, credentials) =
            uplink::enrol(&aggregator.uplink(), &aggregator.authority(), &token.secret, "long-away").await?;
        let start = uplink::now_ms() - BATCHES as i64 * 15_000;
        // In the middle the aggregator is killed: the second stream goes on from its watermark.
        let half = BATCHES / 2;
        let first = replay(&aggregator, &credentials, start, SERIES_OF_A_NODE, half).await?;
        ensure!(first == 0, "a fresh aggregator has a watermark of {first}");
        aggregator.restart(test).await?;
        let from = replay(&aggregator, &credentials, start, SERIES_OF_A_NODE, BATCHES).await?;
        ensure!(from >= half, "acknowledged were {half}, the watermark is {from}");
        eventually_within(Duration::from_secs(120), "all of it is in the log", || async {
            let rows = aggregator.api.export("match=test_backlog_7&node=long-away").await?;
            let times: BTreeSet<i64> = rows.iter().map(|row| row.ts_ms).collect();
            ensure!(times.len() == rows.len(), "{} samples at {} times", rows.len(), times.len());
            ensure!(rows.len() as u64 == BATCHES, "{} of {BATCHES}", rows.len());
            Ok(())
        })
        .await
    });
}

/// Sends batches up to `last` as a reconnecting agent does; gives the watermark that it began from.
async fn replay(
    aggregator: &Aggregator,
    credentials: &Credentials,
    start_ms: i64,
    series: u32,
    last: u64,
) -> Result<u64> {
    const LIFE: u64 = 42;
    let channel = uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(credentials)).await?;
    let (mut stream, welcome) = Stream::hello(channel).await?;
    let watermark = welcome.watermarks.iter().find(|w| w.life == LIFE).map_or(0, |w| w.sequence);
    stream.send(Up::Life(v1::Life { life: LIFE })).await?;
    let mut builder = Builder::new();
    for number in 0..series {
        let family = Family::new(format!("test_backlog_{number}"), MetricType::Gauge, "", "")?;
        builder.family(number, "test", &family);
        builder.series(number, number, Part::Value, std::iter::once(("kind", "replayed")));
    }
    stream.send(Up::Definitions(builder.finish())).await?;
    let mut encoder = Encoder::new();
    let numbers: Vec<u32> = (0..series).collect();
    let window = u64::from(welcome.window.max(1));
    let mut acknowledged = watermark;
    for sequence in watermark + 1..=last {
        while sequence > acknowledged + window {
            acknowledged = next_ack(&mut stream, LIFE).await?;
        }
        let values: Vec<f64> = numbers.iter().map(|n| f64::from(*n) + sequence as f64).collect();
        let mut columns = Vec::new();
        encoder.encode(start_ms + sequence as i64 * 15_000, &numbers, &values, None, &mut columns)?;
        stream
            .send(Up::Batch(v1::Batch { sequence, columns: vec![columns.into()], ..v1::Batch::default() }))
            .await?;
    }
    while acknowledged < last {
        acknowledged = next_ack(&mut stream, LIFE).await?;
    }
    Ok(watermark)
}

async fn next_ack(stream: &mut Stream, life: u64) -> Result<u64> {
    loop {
        match stream.next().await? {
            Down::Ack(ack) if ack.life == life => return Ok(ack.sequence),
            Down::Goodbye(goodbye) => bail!("{goodbye:?}"),
            _ => {}
        }
    }
}

/// An aggregator that hangs costs its agents bounded memory.
#[test]
fn a_stopped_aggregator_costs_the_agent_little() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let mut agent = aggregator
            .agent(test, "gpu-1")?
            .mock("100ms", "seed = 1\ngpus = 64")?
            .section("[spool]\nmax_size = \"1MiB\"\n")
            .enrol_and_start(&aggregator)
            .await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        aggregator.daemon.signal(rustix::process::Signal::STOP)?;
        let before = agent.daemon.memory("VmRSS")?;
        eventually("the spool is at its cap and says what it loses", || async {
            let metrics = agent.api.metrics().await?;
            let bytes = metrics.value("picket_spool_size_bytes", &[])?;
            ensure!(bytes <= f64::from(2 << 20), "the spool holds {bytes} bytes");
            let lost = metrics.sum("picket_spool_records_lost_total", &[("reason", "cap")]);
            ensure!(lost > 0.0, "nothing lost at {bytes} bytes");
            Ok(())
        })
        .await?;
        let after = agent.daemon.memory("VmRSS")?;
        ensure!(after < before + (24 << 20), "memory went from {before} to {after}");
        aggregator.daemon.signal(rustix::process::Signal::CONT)?;
        agent.daemon.check_running()?;
        let since = uplink::now_ms();
        eventually("samples arrive again", || async {
            let rows = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL&node=gpu-1").await?;
            ensure!(rows.iter().any(|row| row.ts_ms > since), "none");
            Ok(())
        })
        .await
    });
}
