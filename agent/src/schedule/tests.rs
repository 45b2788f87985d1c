use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU32, Ordering};

use picket_agent_host::SampleSink;
use picket_proto::model::{Family, Labels, MetricType, Part};

use super::*;
use crate::clock::TestClock;
use crate::collector::Format;

const SECOND: Duration = Duration::from_secs(1);
const WALL: i64 = 1_700_000_000_000;

/// What the scripted plugins do, by file name; changed while they run.
#[derive(Default)]
struct Script {
    /// How long a collect takes.
    slow: BTreeMap<String, Duration>,
    refuse: BTreeMap<String, String>,
    /// The code of the first collect's failure of each instance that is made.
    stumble: Option<&'static str>,
    state: Option<State>,
    panic: bool,
}

#[derive(Clone, Default)]
struct Twin {
    script: Arc<StdMutex<Script>>,
    loads: Arc<AtomicU32>,
    /// Plugin and wall time of each collect.
    collects: Arc<StdMutex<Vec<(String, tokio::time::Instant)>>>,
}

struct Fake {
    twin: Twin,
    spec: SourceSpec,
    begun: bool,
}

impl Loader for Twin {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Source>, SourceError>> {
        let twin = self.clone();
        Box::pin(async move {
            twin.loads.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SECOND / 10).await;
            match twin.script.lock().unwrap().refuse.get(spec.id.as_str()) {
                Some(why) => {
                    Err(SourceError { code: "PKT-0001".to_owned(), message: why.clone(), reason: "plugin" })
                }
                None => Ok(Box::new(Fake { twin: twin.clone(), spec, begun: false }) as Box<dyn Source>),
            }
        })
    }
}

impl Source for Fake {
    fn about(&self) -> About {
        About {
            version: self.spec.settings["version"].as_str().unwrap_or("1").to_owned(),
            controllable: self.spec.settings["controllable"].as_bool().unwrap_or(false),
            ..About::default()
        }
    }

    fn condition(&self) -> Condition {
        let state = self.twin.script.lock().unwrap().state.unwrap_or(State::Running);
        let enterable = state == State::Running;
        let reason = if enterable { "" } else { "scripted" };
        Condition { state, reason: reason.to_owned(), enterable }
    }

    fn collect<'a>(&'a mut self, sink: &'a mut dyn SampleSink) -> BoxFuture<'a, Result<Took, SourceError>> {
        Box::pin(async move {
            let id = self.spec.id.as_str().to_owned();
            self.twin.collects.lock().unwrap().push((id.clone(), tokio::time::Instant::now()));
            let (slow, panics) = {
                let script = self.twin.script.lock().unwrap();
                (script.slow.get(&id).copied(), script.panic)
            };
            assert!(!panics, "scripted");
            if let Some(slow) = slow {
                tokio::time::sleep(slow).await;
            }
            let stumble = self.twin.script.lock().unwrap().stumble;
            if let Some(code) = stumble.filter(|_| !self.begun) {
                let message = "it stumbled".to_owned();
                return Err(SourceError { code: code.to_owned(), message, reason: "plugin" });
            }
            if !self.begun {
                sink.begin(0);
                sink.family(0, &Family::new(format!("of_{id}"), MetricType::Gauge, "", "").unwrap());
                sink.series(0, 0, Part::Value, &Labels::default()).unwrap();
                self.begun = true;
            }
            sink.points(&[(0, 1.0)]);
            Ok(Took::default())
        })
    }

    fn control(&mut self, request: Control) -> BoxFuture<'_, Result<String, ControlError>> {
        Box::pin(async move {
            match request {
                Control::Set(text) if text.contains("bad") => {
                    Err(ControlError::Refused(vec!["scenario: normal, failure".to_owned()]))
                }
                Control::Set(text) => Ok(text),
                Control::Get | Control::Schema => Ok("{}".to_owned()),
            }
        })
    }
}

fn planned(id: &str, interval: Duration) -> Planned {
    Planned {
        spec: SourceSpec {
            id: PluginId::new(id).unwrap(),
            file: crate::shelf::tests::file(id),
            settings: serde_json::json!({ "controllable": id == "c" }),
            grants: Vec::new(),
            limits: Default::default(),
            isolation: Default::default(),
        },
        interval,
    }
}

struct Bench {
    twin: Twin,
    clock: Arc<TestClock>,
    schedule: Schedule,
    wakes: Wakes,
}

impl Bench {
    fn new() -> Self {
        let twin = Twin::default();
        let clock = TestClock::new(WALL);
        let wakes = Wakes::default();
        let schedule = Schedule::new(ScheduleOptions {
            loader: Arc::new(twin.clone()),
            shelf: crate::shelf::tests::shelf(),
            clock: clock.clone(),
            collector: Collector::new(clock.clone(), None),
            node: "n".to_owned(),
            wakes: wakes.clone(),
        });
        Self { twin, clock, schedule, wakes }
    }

    fn line(&self, id: &str) -> PluginStatus {
        self.schedule.board().all().into_iter().find(|line| line.id == id).unwrap_or_default()
    }

    fn collects(&self, id: &str) -> Vec<tokio::time::Instant> {
        let all = self.twin.collects.lock().unwrap();
        all.iter().filter(|(plugin, _)| plugin == id).map(|(_, at)| *at).collect()
    }

    fn page(&self) -> String {
        self.schedule.options.collector.exposition(Format::Prometheus).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn first_at_once_then_by_the_clock() {
    let bench = Bench::new();
    bench.schedule.apply(vec![planned("a", 15 * SECOND)]).await;
    tokio::time::sleep(100 * SECOND).await;
    let at = bench.collects("a");
    // One at the start, then every 15 s from somewhere within an interval and a half.
    assert!((6..=8).contains(&at.len()), "{at:?}");
    for pair in at.windows(2).skip(1) {
        // The test clock's walls are whole milliseconds.
        let gap = (pair[1] - pair[0]).as_millis();
        assert!((14_998..=15_002).contains(&gap), "{gap}");
    }
    let line = bench.line("a");
    assert_eq!((line.state, line.series), (State::Running, 1));
    assert_eq!(line.collects.ok, at.len() as u64);
    assert_eq!(line.collects.skipped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_plugin_skips_its_ticks_and_makes_no_other_late() {
    let bench = Bench::new();
    bench.twin.script.lock().unwrap().slow.insert("slow".to_owned(), Duration::from_millis(3_300));
    bench.schedule.apply(vec![planned("slow", SECOND), planned("quick", SECOND)]).await;
    tokio::time::sleep(60 * SECOND).await;
    assert!(bench.collects("quick").len() >= 59);
    assert_eq!(bench.line("quick").collects.skipped, 0);
    let slow = bench.line("slow").collects;
    assert!((14..=18).contains(&slow.ok), "{slow:?}");
    // What was not collected was skipped.
    assert!((56..=61).contains(&(slow.ok + slow.skipped)), "{slow:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stepped_wall_clock_makes_no_stall_and_no_burst() {
    for step in [-86_400_000, -700, 700, 86_400_000] {
        let bench = Bench::new();
        bench.schedule.apply(vec![planned("a", 10 * SECOND)]).await;
        tokio::time::sleep(95 * SECOND).await;
        bench.clock.step(step);
        tokio::time::sleep(105 * SECOND).await;
        let at = bench.collects("a");
        assert!((19..=22).contains(&at.len()), "step {step}: {}", at.len());
        // The second collect ends the first, odd gap.
        for pair in at.windows(2).skip(1) {
            let gap = pair[1] - pair[0];
            assert!((5 * SECOND..=15 * SECOND).contains(&gap), "step {step}: {gap:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_plugin_stops_no_other_and_is_tried_again_at_a_reload() {
    let bench = Bench::new();
    bench.twin.script.lock().unwrap().refuse.insert("bad".to_owned(), "it is a text file".to_owned());
    let plan = vec![planned("bad", SECOND), planned("good", SECOND)];
    bench.schedule.apply(plan.clone()).await;
    tokio::time::sleep(5 * SECOND).await;
    let line = bench.line("bad");
    assert_eq!((line.state, line.code.as_str()), (State::Refused, "PKT-0001"));
    assert_eq!(line.reason, "it is a text file");
    assert_eq!(bench.line("good").state, State::Running);
    assert_eq!(bench.twin.loads.load(Ordering::Relaxed), 2);

    bench.twin.script.lock().unwrap().refuse.clear();
    bench.schedule.apply(plan).await;
    tokio::time::sleep(5 * SECOND).await;
    let line = bench.line("bad");
    assert_eq!((line.state, line.reason.as_str(), line.code.as_str()), (State::Running, "", ""));
    // The good one had not changed and was left alone.
    assert_eq!(bench.twin.loads.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_version_that_is_refused_leaves_the_old_one_running() {
    let bench = Bench::new();
    bench.schedule.apply(vec![planned("a", SECOND)]).await;
    tokio::time::sleep(3 * SECOND).await;
    bench.twin.script.lock().unwrap().refuse.insert("a".to_owned(), "no grant".to_owned());
    let mut next = planned("a", SECOND);
    next.spec.settings = serde_json::json!({ "version": "2" });
    bench.schedule.apply(vec![next.clone()]).await;
    tokio::time::sleep(3 * SECOND).await;
    let line = bench.line("a");
    assert_eq!((line.state, line.version.as_str()), (State::Running, "1"));
    assert!(line.reason.contains("no grant"), "{}", line.reason);
    let before = bench.collects("a").len();
    bench.twin.script.lock().unwrap().refuse.clear();
    // The same again: it did not come to run as it should, so it is tried again.
    bench.schedule.apply(vec![next]).await;
    tokio::time::sleep(3 * SECOND).await;
    let line = bench.line("a");
    assert_eq!((line.version.as_str(), line.reason.as_str()), ("2", ""));
    assert!(bench.collects("a").len() > before);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_no_longer_configured_leaves_nothing() {
    let bench = Bench::new();
    bench.schedule.apply(vec![planned("a", SECOND), planned("b", SECOND)]).await;
    tokio::time::sleep(3 * SECOND).await;
    assert!(bench.page().contains("of_a 1"));
    bench.schedule.apply(vec![planned("b", SECOND)]).await;
    tokio::time::sleep(2 * SECOND).await;
    assert!(!bench.page().contains("of_a"));
    assert!(bench.page().contains("of_b 1"));
    assert_eq!(bench.schedule.board().all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_quarantined_plugin_is_not_entered() {
    let bench = Bench::new();
    bench.schedule.apply(vec![planned("a", SECOND)]).await;
    tokio::time::sleep(3 * SECOND).await;
    bench.twin.script.lock().unwrap().state = Some(State::Quarantined);
    tokio::time::sleep(3 * SECOND).await;
    let entered = bench.collects("a").len();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(bench.collects("a").len(), entered);
    assert_eq!((bench.line("a").state, bench.line("a").reason.as_str()), (State::Quarantined, "scripted"));
    let errors = bench.schedule.options.collector.errors().totals();
    assert!(errors.iter().any(|(_, reason, n)| reason == "quarantined" && *n >= 9), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_told_and_started_again_by_a_reload() {
    let bench = Bench::new();
    bench.twin.script.lock().unwrap().panic = true;
    bench.schedule.apply(vec![planned("a", SECOND), planned("b", SECOND)]).await;
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(bench.line("a").state, State::Quarantined);
    assert!(bench.line("a").reason.contains("report"), "{}", bench.line("a").reason);
    bench.twin.script.lock().unwrap().panic = false;
    bench.schedule.apply(vec![planned("a", SECOND), planned("b", SECOND)]).await;
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(bench.line("a").state, State::Running);
}

#[tokio::test(start_paused = true)]
async fn control_reaches_the_plugin_that_has_it() {
    let bench = Bench::new();
    let set = |text: &str| Control::Set(text.to_owned());
    assert_eq!(bench.schedule.control(None, Control::Get).await, Err(ControlError::NothingToControl));
    bench.schedule.apply(vec![planned("a", SECOND), planned("c", SECOND)]).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.schedule.control(None, set("{\"x\":1}")).await, Ok("{\"x\":1}".to_owned()));
    assert_eq!(bench.schedule.control(Some("c"), Control::Get).await, Ok("{}".to_owned()));
    assert!(matches!(bench.schedule.control(None, set("bad")).await, Err(ControlError::Refused(_))));
    assert_eq!(
        bench.schedule.control(Some("x"), Control::Get).await,
        Err(ControlError::NoSuchPlugin("x".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn control_of_a_busy_plugin_is_bounded() {
    let bench = Bench::new();
    bench.twin.script.lock().unwrap().slow.insert("c".to_owned(), 3600 * SECOND);
    bench.schedule.apply(vec![planned("c", SECOND)]).await;
    tokio::time::sleep(2 * SECOND).await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let schedule = bench.schedule.clone();
            tokio::spawn(async move { schedule.control(None, Control::Get).await })
        })
        .collect();
    let mut busy = 0;
    let mut late = 0;
    for call in calls {
        match call.await.unwrap() {
            Err(ControlError::Busy(_)) => busy += 1,
            Err(ControlError::Timeout { .. }) => late += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((busy, late), (12, 8));
    // And the stop does not wait for ever.
    let began = tokio::time::Instant::now();
    bench.schedule.stop(5 * SECOND).await;
    assert!(began.elapsed() <= 6 * SECOND);
}

/// A plugin `a` whose file a test changes.
struct Dropped {
    dir: tempfile::TempDir,
    id: PluginId,
}

impl Dropped {
    fn new() -> Self {
        let dropped = Self { dir: tempfile::tempdir().unwrap(), id: PluginId::new("a").unwrap() };
        dropped.write("1.0.0");
        dropped
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("a.wasm")
    }

    fn write(&self, version: &str) {
        std::fs::write(self.file(), crate::shelf::tests::component("a", version)).unwrap();
    }

    fn planned(&self) -> Planned {
        let mut planned = planned("a", SECOND);
        planned.spec.file = self.file();
        planned
    }

    /// What the watcher would see.
    async fn look(&self, bench: &Bench) {
        let stamp = Stamp::of(&self.file());
        let revision = bench.schedule.options.shelf.trust().revision();
        let seen = if stamp.is_there() { Seen::There { stamp, revision } } else { Seen::Gone };
        bench.schedule.see(&self.id, seen).await;
    }

    async fn drop_in(&self, bench: &Bench, version: &str) {
        self.write(version);
        self.look(bench).await;
        tokio::time::sleep(3 * SECOND).await;
    }
}

fn current(bench: &Bench) -> Option<String> {
    bench.schedule.options.shelf.record(&PluginId::new("a").unwrap()).current.map(|v| v.version)
}

#[tokio::test(start_paused = true)]
async fn a_new_file_is_swapped_in_and_the_rhythm_goes_on() {
    let (bench, dropped) = (Bench::new(), Dropped::new());
    bench.schedule.apply(vec![dropped.planned()]).await;
    tokio::time::sleep(5 * SECOND).await;
    dropped.look(&bench).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.twin.loads.load(Ordering::Relaxed), 1, "nothing has changed");
    let first = bench.line("a").digest;
    dropped.drop_in(&bench, "2.0.0").await;
    let line = bench.line("a");
    assert_ne!(line.digest, first);
    assert_eq!((line.state, line.swaps.done, line.swaps.refused), (State::Running, 1, 0));
    assert_eq!(line.previous.unwrap().digest, first);
    assert_eq!(current(&bench).as_deref(), Some("2.0.0"));
    // One collect more than the ticks: the trial's.
    let at = bench.collects("a");
    let ticks: Vec<_> = at.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).skip(1).collect();
    let whole = ticks.iter().filter(|gap| (998..=1002).contains(*gap)).count();
    assert!(whole + 2 >= ticks.len() && ticks.iter().sum::<u128>() % 1000 <= 10, "{ticks:?}");
    // The same bytes again are no other version.
    dropped.drop_in(&bench, "2.0.0").await;
    assert_eq!((bench.line("a").swaps.done, bench.twin.loads.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_stumbles_on_trial_is_not_taken() {
    let (bench, dropped) = (Bench::new(), Dropped::new());
    bench.schedule.apply(vec![dropped.planned()]).await;
    tokio::time::sleep(3 * SECOND).await;
    for (i, code) in ["PKT-0060", "PKT-0069"].into_iter().enumerate() {
        bench.twin.script.lock().unwrap().stumble = Some(code);
        dropped.drop_in(&bench, &format!("2.0.{i}")).await;
        let line = bench.line("a");
        assert_eq!((line.state, current(&bench).as_deref()), (State::Running, Some("1.0.0")));
        let refused = line.refused.unwrap();
        assert_eq!((refused.code.as_str(), refused.version), (code, format!("2.0.{i}")));
        assert!(refused.reason.contains("on trial") && line.reason.contains("the former runs on"));
    }
    bench.twin.script.lock().unwrap().stumble = None;
    dropped.drop_in(&bench, "3.0.0").await;
    let line = bench.line("a");
    assert_eq!((line.refused, line.reason.as_str(), line.swaps.refused), (None, "", 2));
    assert_eq!(current(&bench).as_deref(), Some("3.0.0"));
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_away_stops_within_a_collect_and_comes_back() {
    let (bench, dropped) = (Bench::new(), Dropped::new());
    bench.schedule.apply(vec![dropped.planned()]).await;
    tokio::time::sleep(3 * SECOND).await;
    bench.twin.script.lock().unwrap().slow.insert("a".to_owned(), 3600 * SECOND);
    tokio::time::sleep(3 * SECOND).await;
    std::fs::remove_file(dropped.file()).unwrap();
    dropped.look(&bench).await;
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(bench.line("a").state, State::Removed);
    assert!(!bench.page().contains("of_a"));
    bench.twin.script.lock().unwrap().slow.clear();
    let before = bench.collects("a").len();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(bench.collects("a").len(), before);
    dropped.drop_in(&bench, "1.0.0").await;
    assert_eq!(bench.line("a").state, State::Running);
    assert!(bench.page().contains("of_a 1"));
    // A file that was never there is refused, and not said to have been taken away.
    let mut never = planned("b", SECOND);
    never.spec.file = "/nowhere/b.wasm".into();
    bench.schedule.apply(vec![never]).await;
    tokio::time::sleep(SECOND).await;
    bench.schedule.see(&PluginId::new("b").unwrap(), Seen::Gone).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.line("b").state, bench.line("b").code.as_str()), (State::Refused, "PKT-0001"));
}

#[tokio::test(start_paused = true)]
async fn rolled_back_and_released_by_hand() {
    let (bench, dropped) = (Bench::new(), Dropped::new());
    bench.schedule.apply(vec![dropped.planned()]).await;
    tokio::time::sleep(3 * SECOND).await;
    assert!(bench.schedule.wish("a", Wish::RollBack).await.unwrap_err().contains("no version"));
    assert!(bench.schedule.wish("x", Wish::RollBack).await.unwrap_err().contains("no plugin x"));
    dropped.drop_in(&bench, "2.0.0").await;
    assert!(bench.schedule.wish("a", Wish::RollBack).await.unwrap().contains("1.0.0"));
    assert_eq!(current(&bench).as_deref(), Some("1.0.0"));
    assert!(bench.line("a").rolled_back);
    // One that can't be loaded any more: what runs runs on.
    bench.twin.script.lock().unwrap().refuse.insert("a".to_owned(), "no grant".to_owned());
    assert!(bench.schedule.wish("a", Wish::RollBack).await.unwrap_err().contains("no grant"));
    assert_eq!((bench.line("a").state, current(&bench).as_deref()), (State::Running, Some("1.0.0")));
    bench.twin.script.lock().unwrap().refuse.clear();

    assert!(bench.schedule.wish("a", Wish::Release).await.unwrap_err().contains("no version"));
    bench.twin.script.lock().unwrap().state = Some(State::Quarantined);
    tokio::time::sleep(3 * SECOND).await;
    let digest = bench.line("a").digest;
    let quarantined =
        bench.schedule.options.shelf.stage(&dropped.planned().spec, &crate::shelf::Which::Kept(digest));
    assert_eq!(quarantined.unwrap_err().error.code, "PKT-0081");
    bench.twin.script.lock().unwrap().state = None;
    bench.schedule.wish("a", Wish::Release).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.line("a").state, State::Running);
}

fn wake(bench: &Bench, id: &str) {
    bench.wakes.wake(&PluginId::new(id).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_wake_collects_at_once_and_leaves_the_rhythm_alone() {
    let bench = Bench::new();
    bench.schedule.apply(vec![planned("a", 60 * SECOND), planned("b", 60 * SECOND)]).await;
    tokio::time::sleep(150 * SECOND).await;
    let before = bench.collects("a");
    let others = bench.collects("b").len();
    let woken = tokio::time::Instant::now();
    wake(&bench, "a");
    tokio::time::sleep(SECOND).await;
    let after = bench.collects("a");
    assert_eq!(after.len(), before.len() + 1);
    assert!(after[before.len()] - woken <= Duration::from_millis(5), "{:?}", after[before.len()] - woken);
    assert_eq!(bench.collects("b").len(), others);
    tokio::time::sleep(120 * SECOND).await;
    // The next ticks stand where they would have stood.
    let ticks: Vec<_> = bench.collects("a").into_iter().filter(|at| *at != after[before.len()]).collect();
    for pair in ticks.windows(2).skip(1) {
        let gap = (pair[1] - pair[0]).as_millis();
        assert!((59_998..=60_002).contains(&gap), "{gap}");
    }
    assert_eq!(bench.line("a").collects.skipped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_wakes_is_bounded_and_costs_no_tick_and_no_other_plugin() {
    let bench = Bench::new();
    bench.twin.script.lock().unwrap().slow.insert("a".to_owned(), Duration::from_millis(30));
    bench.schedule.apply(vec![planned("a", 2 * SECOND), planned("b", SECOND)]).await;
    tokio::time::sleep(5 * SECOND).await;
    let (before, others) = (bench.collects("a").len(), bench.collects("b").len());
    for _ in 0..3_000 {
        wake(&bench, "a");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let at = bench.collects("a").split_off(before);
    // Each takes 30 ms and rests 200 ms; ticks come between them.
    assert!((120..=150).contains(&at.len()), "{}", at.len());
    let near = at.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(230)).count();
    assert!(near <= 15, "{near} of {}: only a tick may come before the rest is over", at.len());
    let others = bench.collects("b").len() - others;
    assert!((29..=31).contains(&others), "{others}");
    assert_eq!(bench.line("a").collects.skipped, 0);
}

#[tokio::test(start_paused = true)]
async fn a_wake_of_a_plugin_that_does_not_run_enters_nothing() {
    let bench = Bench::new();
    wake(&bench, "nobody");
    bench.schedule.apply(vec![planned("a", 60 * SECOND)]).await;
    tokio::time::sleep(SECOND).await;
    bench.twin.script.lock().unwrap().state = Some(State::Quarantined);
    let errors = |bench: &Bench| {
        let totals = bench.schedule.options.collector.errors().totals();
        totals.iter().map(|(_, _, n)| *n).sum::<u64>()
    };
    let (entered, counted) = (bench.collects("a").len(), errors(&bench));
    for _ in 0..50 {
        wake(&bench, "a");
        tokio::time::sleep(SECOND / 10).await;
    }
    assert_eq!((bench.collects("a").len(), errors(&bench)), (entered, counted));
}
