//! Workers that are killed, that break the protocol, that stall: each costs the plugins in it a restart, and nobody else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use picket_agent_host::{Host, Isolation, Limits, Plugin, PluginSpec, PluginState, WallPart, WorkerOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// An example of this crate's, built with its tests.
pub fn example(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let path = me.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(path.is_file(), "{} is built with the tests", path.display());
    path
}

fn host_with(f: &Fixture, workers: WorkerOptions) -> Arc<Host> {
    // The same cache: what is compiled stays so.
    walled(Fixture::options(f.folder.path(), |_| {}), workers)
}

fn kill(host: &Host) -> u32 {
    let running = host.workers().unwrap().totals().running;
    let process = *running.last().expect("a worker runs");
    kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::KILL).unwrap();
    process
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !met() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ended(host: &Host) -> BTreeMap<&'static str, u64> {
    host.workers().unwrap().totals().ended
}

/// Lives long enough to be killed in the midst of it.
fn slow() -> Limits {
    Limits {
        guest_time: Duration::from_secs(20),
        call_time: Duration::from_secs(30),
        back_off: Duration::from_millis(20),
        ..limits()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_in_the_midst_of_a_collect() {
    let f = Fixture::new();
    let mut looping = f.load(PluginSpec { limits: slow(), ..f.hostile("loop") }).await;
    let mut idle = f.load(PluginSpec { limits: slow(), ..f.hostile("ok") }).await;
    let mut apart = f.load(PluginSpec { isolation: Isolation::Own, ..f.hostile("ok") }).await;
    let mut sink = Kept::default();
    idle.collect(&mut sink).await.unwrap();
    let totals = f.host.workers().unwrap().totals();
    assert_eq!((totals.started, totals.running.len()), (2, 2), "one for all, and one for the one apart");
    let shared = totals.running[0];

    let collecting = tokio::spawn(async move {
        let mut sink = Kept::default();
        let result = looping.collect(&mut sink).await.map_err(|e| (e.code, e.to_string()));
        (looping, sink, result)
    });
    // It has pushed its one point and loops.
    until("the worker works", || cpu(shared) > Duration::from_millis(100)).await;
    kill_process(Pid::from_raw(shared.cast_signed()).unwrap(), Signal::KILL).unwrap();
    let (mut looping, kept, result) = collecting.await.unwrap();
    let (code, text) = result.unwrap_err();
    assert_eq!(code, "PKT-0071", "{text}");
    assert!(text.contains("killed"), "{text}");
    // What it pushed before is there, once; the state says that it costs a restart.
    assert_eq!(kept.values.len(), 1);
    assert!(matches!(looping.state(), PluginState::BackingOff { .. }), "{:?}", looping.state());
    // The other one of the same worker pays nothing for it and goes on in another.
    let start = Instant::now();
    idle.collect(&mut sink).await.unwrap();
    assert_eq!(idle.state(), PluginState::Running);
    assert_eq!(sink.generations.len(), 2, "it begins anew");
    // The one apart was never touched.
    let mut own = Kept::default();
    for expected in 1..=3 {
        apart.collect(&mut own).await.unwrap();
        assert_eq!(own.value("hostile_value{}"), Some(f64::from(expected)));
    }
    assert_eq!(own.generations.len(), 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(ended(&f.host), BTreeMap::from([("killed", 1)]));
    // Once it may start again it runs away from the others, whom it may have brought down.
    if let PluginState::BackingOff { until, .. } = looping.state() {
        tokio::time::sleep_until(until).await;
    }
    looping.set_settings(serde_json::json!({ "mode": "ok" })).await.unwrap();
    looping.collect(&mut Kept::default()).await.unwrap();
    assert_eq!(f.host.workers().unwrap().totals().running.len(), 3);
    drop(looping);
    until("a worker that nobody needs ends", || f.host.workers().unwrap().totals().running.len() == 2).await;
    assert_eq!(ended(&f.host), BTreeMap::from([("killed", 1)]), "that is no failure");
}

fn cpu(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

#[tokio::test]
async fn quarantined_when_its_worker_ends_each_time() {
    let f = Fixture::new();
    let limits = Limits { restarts: 1, back_off: Duration::from_millis(5), ..slow() };
    let mut plugin = f.load(PluginSpec { limits, ..f.hostile("loop") }).await;
    for failure in 1..=2 {
        if let PluginState::BackingOff { until, .. } = plugin.state() {
            tokio::time::sleep_until(until).await;
        }
        let workers = f.host.workers().unwrap().clone();
        let killer = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let totals = workers.totals();
                let busy = totals.running.iter().find(|p| cpu(**p) > Duration::from_millis(100)).copied();
                if let Some(process) = busy {
                    return kill_process(Pid::from_raw(process.cast_signed()).unwrap(), Signal::KILL)
                        .unwrap();
                }
                assert!(Instant::now() < deadline, "no worker is busy");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let e = plugin.collect(&mut Kept::default()).await.unwrap_err();
        assert_eq!(e.code, "PKT-0071", "failure {failure}: {e}");
        killer.await.unwrap();
    }
    assert!(matches!(plugin.state(), PluginState::Quarantined { .. }), "{:?}", plugin.state());
    assert_eq!(ended(&f.host).get("killed"), Some(&2));
}

#[tokio::test]
async fn killed_between_two_collects() {
    let f = Fixture::new();
    let mut plugin = f.load(f.hostile("ok")).await;
    let mut sink = Kept::default();
    plugin.collect(&mut sink).await.unwrap();
    kill(&f.host);
    until("its end is seen", || ended(&f.host).contains_key("killed")).await;
    plugin.collect(&mut sink).await.unwrap();
    assert_eq!(plugin.state(), PluginState::Running);
    assert_eq!(sink.value("hostile_value{}"), Some(1.0), "a fresh instance");
    assert_eq!(sink.generations.len(), 2);
}

/// The example `rogue`, which reads from its own name what it is to do.
fn rogue(f: &Fixture, mode: &str) -> WorkerOptions {
    let program = f.path(&format!("rogue-{mode}"));
    if !program.exists() {
        std::os::unix::fs::symlink(example("rogue"), &program).unwrap();
    }
    WorkerOptions { program, ..worker_options() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_breaks_the_protocol_is_ended() {
    let f = Fixture::new();
    // So that the component is compiled.
    drop(f.load(f.hostile("ok")).await);
    for (mode, word) in [
        ("garbage", "protocol"),
        ("unknown-kind", "protocol"),
        ("huge", "protocol"),
        ("many-parts", "protocol"),
        ("another-instance", "protocol"),
        ("asks-twice", "protocol"),
        ("done-twice", "protocol"),
        ("pours", "protocol"),
        ("floods", "stalled"),
        ("stalls", "stalled"),
        ("dies", "crashed"),
    ] {
        let host = host_with(&f, rogue(&f, mode));
        let limits = Limits { call_time: Duration::from_millis(500), ..limits() };
        let mut plugin = host
            .load(PluginSpec { limits, ..f.hostile("ok") })
            .await
            .unwrap_or_else(|e| panic!("{mode}: {e}"));
        let (start, before) = (Instant::now(), resident());
        let mut sink = Kept::default();
        let collected = plugin.collect(&mut sink).await;
        if mode == "done-twice" {
            // The first of the two counts; the worker is gone all the same.
            collected.unwrap();
        } else {
            let e = collected.expect_err(mode);
            assert_eq!(e.code, "PKT-0071", "{mode}: {e}");
            assert!(matches!(plugin.state(), PluginState::BackingOff { .. }), "{mode}");
        }
        assert!(start.elapsed() < Duration::from_secs(8), "{mode}: {:?}", start.elapsed());
        assert_eq!(sink.values.len(), 0, "{mode}");
        until(mode, || ended(&host).contains_key(word)).await;
        assert_eq!(ended(&host), BTreeMap::from([(word, 1)]), "{mode}");
        let grown = resident().saturating_sub(before);
        assert!(grown < 32 << 20, "{mode}: {grown} bytes more");
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_worker_that_is_none_is_not_used() {
    let f = Fixture::new();
    for (mode, words) in [("gone", "before it was ready"), ("other-version", "another version")] {
        let options = rogue(&f, mode);
        let error = started(&f, options).unwrap_err();
        assert!(error.contains(words), "{mode}: {error}");
    }
    let options = WorkerOptions { program: "/no/such/worker".into(), ..worker_options() };
    let error = started(&f, options).unwrap_err();
    assert!(error.contains("/no/such/worker") && error.contains("No such file"), "{error}");
    // It never says that it is mapped what another said.
    let host = host_with(&f, rogue(&f, "loads-another"));
    let e = host.load(f.hostile("ok")).await.unwrap_err();
    assert_eq!(e.code, "PKT-0082", "{e}");
    let host = host_with(&f, rogue(&f, "at-once"));
    until("a word out of turn", || ended(&host).contains_key("protocol")).await;
}

fn started(f: &Fixture, workers: WorkerOptions) -> Result<(), String> {
    let options = Fixture::options(f.folder.path(), |_| {});
    let runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(Host::walled(options, workers)).map(drop).map_err(|e| e.to_string())
    });
    runtime.join().unwrap()
}

/// What this node has of the wall: all but the cgroup where that was not handed over. A node that has less says so.
#[tokio::test]
async fn the_wall_is_reported_and_can_be_required() {
    let f = Fixture::new();
    let wall = f.host.workers().unwrap().wall();
    let words: Vec<&str> = wall.parts.iter().map(|p| p.part.word()).collect();
    assert_eq!(words, WallPart::ALL.map(WallPart::word));
    assert!(wall.parts.iter().all(|p| !p.detail.is_empty()), "{wall:?}");
    assert_eq!(picket_agent_host::probe(&worker_options()).map(|w| up(&w)), Ok(up(&wall)));
    for part in &wall.parts {
        let options = WorkerOptions { require: vec![part.part], ..worker_options() };
        let probed = picket_agent_host::probe(&options).map(drop);
        for started in [started(&f, options), probed] {
            match started {
                Ok(()) => assert!(part.up, "{part}"),
                Err(error) => {
                    assert!(!part.up, "{error}");
                    assert!(error.contains("worker.require") && error.contains(part.part.word()), "{error}");
                }
            }
        }
    }
    if rustix::process::geteuid().is_root() {
        let up = |part: WallPart| wall.parts.iter().any(|p| p.part == part && p.up);
        assert!(up(WallPart::Seccomp) && up(WallPart::Capabilities), "{wall:?}");
    }
}

fn up(wall: &picket_agent_host::Wall) -> Vec<WallPart> {
    wall.parts.iter().filter(|p| p.up).map(|p| p.part).collect()
}

/// Two hundred instances one after the other leave nothing behind in the worker.
#[tokio::test]
async fn a_worker_keeps_nothing_of_what_has_ended() {
    let f = Fixture::new();
    let limits = Limits { recycle_after: 1, ..limits() };
    let mut plugin: Plugin = f.load(PluginSpec { limits, ..f.hostile("ok") }).await;
    let process = f.host.workers().unwrap().totals().running[0];
    let held = || memory_of(Path::new(&format!("/proc/{process}/statm")));
    let mut sink = Kept::default();
    for _ in 0..50 {
        plugin.collect(&mut sink).await.unwrap();
    }
    let before = held();
    for _ in 0..200 {
        plugin.collect(&mut sink).await.unwrap();
    }
    let after = held();
    assert!(after < before + (4 << 20), "{before} bytes, then {after}");
    assert_eq!(f.host.workers().unwrap().totals().started, 1);
}

fn memory_of(statm: &Path) -> u64 {
    let text = std::fs::read_to_string(statm).unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
