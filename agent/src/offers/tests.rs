use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use picket_agent_host::SampleSink;
use picket_agent_services::Wakes;
use picket_artifact::{Envelope, PrivateKey, Statement};

use super::*;
use crate::actions::journal::Journal;
use crate::actions::tests::{Kill, Loader as Actors, World, command, planned_as};
use crate::actions::{ActionsOptions, Apply};
use crate::clock::TestClock;
use crate::collector::Collector;
use crate::config;
use crate::schedule::{
    About, BoxFuture, Condition, Control, ControlError, Loader, Planned, PluginStatus, ScheduleOptions,
    Source, SourceError, SourceSpec, State, Took,
};
use crate::shelf::tests::component;
use crate::trust::Trust;

const SECOND: Duration = Duration::from_secs(1);
/// Bytes of one piece, small enough that a test's component has many.
const PIECE: usize = 32;

/// Runs anything; a component with a 9 before the first dot of its version fails its first collect.
struct Twin;

struct Fake {
    bad: bool,
}

impl Loader for Twin {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Source>, SourceError>> {
        Box::pin(async move {
            let bytes = std::fs::read(&spec.file).unwrap();
            let bad = bytes.windows(13).any(|w| w == b"version = \"9.");
            Ok(Box::new(Fake { bad }) as Box<dyn Source>)
        })
    }
}

impl Source for Fake {
    fn about(&self) -> About {
        About::default()
    }

    fn condition(&self) -> Condition {
        Condition { state: State::Running, reason: String::new(), enterable: true }
    }

    fn collect<'a>(&'a mut self, _: &'a mut dyn SampleSink) -> BoxFuture<'a, Result<Took, SourceError>> {
        let error =
            SourceError { code: "PKT-0060".to_owned(), message: "it trapped".to_owned(), reason: "plugin" };
        let answer = if self.bad { Err(error) } else { Ok(Took::default()) };
        Box::pin(async move { answer })
    }

    fn control(&mut self, _: Control) -> BoxFuture<'_, Result<String, ControlError>> {
        Box::pin(async { Err(ControlError::NothingToControl) })
    }
}

/// How the aggregator serves.
#[derive(Default)]
struct Serving {
    bytes: Vec<u8>,
    /// Pieces that are given; then silence.
    pieces: Option<usize>,
    /// The offsets that were asked for.
    asked: Vec<u64>,
}

struct Bench {
    dir: tempfile::TempDir,
    key: PrivateKey,
    schedule: Schedule,
    actions: Actions,
    /// What the action plugin `p` acts on.
    world: Arc<World>,
    central: Central,
    serving: Arc<Mutex<Serving>>,
    stop: CancellationToken,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        std::fs::write(dir.path().join("k.pub"), key.public().to_pem()).unwrap();
        std::fs::write(dir.path().join("policy.toml"), "policy = 1\n[keys.k]\nfile = \"k.pub\"\n").unwrap();
        Self::start(dir, key).await
    }

    async fn start(dir: tempfile::TempDir, key: PrivateKey) -> Self {
        let settings = config::Trust { policy: dir.path().join("policy.toml"), allow_unsigned: false };
        let trust = Arc::new(Trust::open(&settings));
        let shelf = Arc::new(Shelf::open(&dir.path().join("state"), &dir.path().join("cache"), trust));
        let clock = TestClock::new(1_700_000_000_000);
        let schedule = Schedule::new(ScheduleOptions {
            loader: Arc::new(Twin),
            shelf: shelf.clone(),
            clock: clock.clone(),
            collector: Collector::new(clock.clone(), None),
            node: "n".to_owned(),
            wakes: Wakes::default(),
        });
        let spec = SourceSpec {
            id: PluginId::new("a").unwrap(),
            file: file(dir.path()),
            settings: serde_json::json!({}),
            grants: Vec::new(),
            limits: Default::default(),
            isolation: Default::default(),
        };
        schedule.apply(vec![Planned { spec, interval: SECOND }]).await;
        let world = Arc::<World>::default();
        let journal = Journal::open(&dir.path().join("journal"), 0).map_err(|e| e.to_string());
        let actions = Actions::new(ActionsOptions {
            settings: config::Actions {
                enabled: true,
                max_running: 1,
                per_hour: 100,
                cooldown: Duration::ZERO,
                max_time: 600 * SECOND,
            },
            loader: Arc::new(Actors(world.clone())),
            shelf: shelf.clone(),
            clock,
            board: schedule.board().clone(),
            journal: Some(journal),
        });
        actions.configure(vec![planned_as("p", dir.path().join("p.wasm"))]).await;
        let grants = schedule.board().grants();
        let (offers, central) = Offers::new(schedule.clone(), actions.clone(), shelf, grants);
        let stop = CancellationToken::new();
        tokio::spawn(offers.run(stop.clone()));
        let serving = Arc::<Mutex<Serving>>::default();
        tokio::spawn(serve(central.clone(), serving.clone()));
        // So that what lies in the folder has been looked at.
        tokio::time::sleep(3 * SECOND).await;
        Self { dir, key, schedule, actions, world, central, serving, stop }
    }

    /// Ends it and starts it again on the same folders.
    async fn restart(self) -> Self {
        self.stop.cancel();
        self.schedule.stop(SECOND).await;
        let Self { dir, key, .. } = self;
        Self::start(dir, key).await
    }

    fn signed(&self, bytes: &[u8], version: &str, key: &PrivateKey) -> Vec<u8> {
        self.signed_as("a", bytes, version, key)
    }

    fn signed_as(&self, id: &str, bytes: &[u8], version: &str, key: &PrivateKey) -> Vec<u8> {
        let digest = Digest::of(bytes);
        let mut envelope =
            Envelope::new(Statement { digest, id: id.to_owned(), version: version.to_owned() });
        envelope.sign(key);
        envelope.to_json().into()
    }

    fn drop_in(&self, version: &str) {
        let bytes = component("a", version);
        let file = file(self.dir.path());
        std::fs::write(file.with_extension("wasm.sig"), self.signed(&bytes, version, &self.key)).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// An offer of this version, signed by the node's key, that can be fetched.
    fn offer(&self, version: &str, attempt: u32) -> v1::PluginOffer {
        self.offer_of("a", version, attempt)
    }

    fn offer_of(&self, id: &str, version: &str, attempt: u32) -> v1::PluginOffer {
        let bytes = component(id, version);
        let offer = v1::PluginOffer {
            plugin: id.to_owned(),
            rollout: "r1".to_owned(),
            attempt,
            digest: Digest::of(&bytes).to_string(),
            size: bytes.len() as u64,
            signature: Some(self.signed_as(id, &bytes, version, &self.key)),
            bundle: None,
        };
        self.serving.lock().unwrap().bytes = bytes;
        offer
    }

    /// The word that was said of it last.
    fn said(&self, offer: &v1::PluginOffer) -> String {
        let report = self.central.states.borrow();
        report.offers.iter().find(|s| is_of(s, offer)).map(|s| s.state.clone()).unwrap_or_default()
    }

    /// What runs of the action plugin.
    fn acts(&self) -> String {
        self.actions.subscribe().borrow().plugins.iter().map(|p| p.version.clone()).collect()
    }

    fn say(&self, offers: Vec<v1::PluginOffer>) {
        self.central.offers.send_replace(v1::PluginOffers { offers });
    }

    /// Waits until the offer is settled so; gives the code.
    async fn settled(&self, offer: &v1::PluginOffer, wanted: &str) -> String {
        let mut states = self.central.states.clone();
        let found = states.wait_for(|report| {
            report.offers.iter().any(|s| is_of(s, offer) && matches!(s.state.as_str(), "running" | "refused"))
        });
        let report =
            tokio::time::timeout(600 * SECOND, found).await.expect("a word in time").unwrap().clone();
        let state = report.offers.into_iter().find(|s| is_of(s, offer)).unwrap();
        assert_eq!(state.state, wanted, "{state:?}");
        state.code
    }

    fn line(&self) -> PluginStatus {
        self.schedule.board().line(&PluginId::new("a").unwrap()).unwrap()
    }

    fn runs(&self, version: &str) -> bool {
        let line = self.line();
        line.state == State::Running && line.digest == Digest::of(&component("a", version)).to_string()
    }

    fn asked(&self) -> Vec<u64> {
        self.serving.lock().unwrap().asked.clone()
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("a.wasm")
}

async fn serve(central: Central, serving: Arc<Mutex<Serving>>) {
    let mut wanted = central.wanted.clone();
    while wanted.changed().await.is_ok() {
        let Some(fetch) = wanted.borrow_and_update().clone() else { continue };
        let content = {
            let mut serving = serving.lock().unwrap();
            serving.asked.push(fetch.offset);
            if serving.pieces == Some(0) {
                continue;
            }
            serving.pieces = serving.pieces.map(|left| left - 1);
            let at = usize::try_from(fetch.offset).unwrap();
            serving.bytes[at..serving.bytes.len().min(at + PIECE)].to_vec()
        };
        let chunk =
            v1::PluginChunk { digest: fetch.digest, offset: fetch.offset, content, ..Default::default() };
        let _ = central.chunks.send(chunk).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_is_fetched_tried_and_taken_over() {
    let bench = Bench::new().await;
    bench.drop_in("1.0.0");
    let bench = bench.restart().await;
    assert!(bench.runs("1.0.0"));
    let offer = bench.offer("2.0.0", 1);
    bench.say(vec![offer.clone()]);
    assert_eq!(bench.settled(&offer, "running").await, "");
    assert!(bench.runs("2.0.0") && bench.line().rolled_out && !bench.line().rolled_back);
    let asked = bench.asked();
    assert!(asked.len() > 3 && asked.windows(2).all(|w| w[1] == w[0] + PIECE as u64), "{asked:?}");
    // Said again, as after a broken stream, it is the same.
    bench.say(Vec::new());
    tokio::time::sleep(SECOND).await;
    assert!(bench.central.states.borrow().offers.is_empty());
    bench.say(vec![offer.clone()]);
    bench.settled(&offer, "running").await;
    assert_eq!(bench.asked(), asked, "it is here already");
    // It runs after a restart, without the aggregator.
    let bench = bench.restart().await;
    assert!(bench.runs("2.0.0") && bench.line().rolled_out);
    // Back to what ran before, which nobody has to bring.
    let back = v1::PluginOffer {
        digest: Digest::of(&component("a", "1.0.0")).to_string(),
        size: 0,
        signature: None,
        attempt: 2,
        ..offer
    };
    bench.say(vec![back.clone()]);
    bench.settled(&back, "running").await;
    assert!(bench.runs("1.0.0") && !bench.line().rolled_out && bench.asked().is_empty());
    let never = v1::PluginOffer { digest: "0".repeat(64), attempt: 3, ..back };
    bench.say(vec![never.clone()]);
    assert_eq!(bench.settled(&never, "refused").await, "PKT-0103");
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_where_it_was_after_silence_and_after_a_restart() {
    let bench = Bench::new().await;
    let offer = bench.offer("2.0.0", 1);
    bench.serving.lock().unwrap().pieces = Some(2);
    bench.say(vec![offer.clone()]);
    tokio::time::sleep(100 * SECOND).await;
    let asked = bench.asked();
    let at = 2 * PIECE as u64;
    assert_eq!(asked.get(..3), Some(&[0, PIECE as u64, at][..]));
    assert!(asked.len() > 4 && asked.iter().skip(2).all(|offset| *offset == at), "asked again: {asked:?}");
    let bench = bench.restart().await;
    bench.offer("2.0.0", 1);
    bench.say(vec![offer.clone()]);
    bench.settled(&offer, "running").await;
    assert_eq!(bench.asked().first(), Some(&at));
    // No file lies in the folder, and it runs.
    assert!(bench.runs("2.0.0") && !file(bench.dir.path()).exists());
    tokio::time::sleep(5 * SECOND).await;
    assert!(bench.runs("2.0.0") && bench.line().collects.ok > 2);
    let left = std::fs::read_dir(bench.dir.path().join("state/artifacts/incoming")).unwrap();
    assert_eq!(left.count(), 0);
    let bench = bench.restart().await;
    assert!(bench.runs("2.0.0"));
    // Taken back, nothing runs.
    let back = v1::PluginOffer { digest: String::new(), size: 0, attempt: 2, ..offer };
    bench.say(vec![back.clone()]);
    bench.settled(&back, "running").await;
    assert_eq!((bench.line().state, bench.line().rolled_out), (State::Removed, false));
    let bench = bench.restart().await;
    assert_eq!(bench.line().state, State::Refused);
    // A file of the operator's own.
    bench.drop_in("1.0.0");
    assert!(bench.restart().await.runs("1.0.0"));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_leaves_what_ran_running() {
    let bench = Bench::new().await;
    bench.drop_in("1.0.0");
    let bench = bench.restart().await;
    let stranger = PrivateKey::generate().unwrap();
    let good = bench.offer("2.0.0", 1);
    let bytes = component("a", "2.0.0");
    let cases = [
        (v1::PluginOffer { plugin: "b".to_owned(), ..good.clone() }, "PKT-0102"),
        (v1::PluginOffer { plugin: "../b".to_owned(), ..good.clone() }, "PKT-0102"),
        (v1::PluginOffer { digest: "../../x".to_owned(), ..good.clone() }, "PKT-0104"),
        (v1::PluginOffer { size: u64::MAX, attempt: 2, ..good.clone() }, "PKT-0002"),
        (v1::PluginOffer { size: good.size + 1, attempt: 3, ..good.clone() }, "PKT-0104"),
        (v1::PluginOffer { digest: "1".repeat(64), ..good.clone() }, "PKT-0104"),
        (v1::PluginOffer { signature: None, attempt: 4, ..good.clone() }, "PKT-0011"),
        (
            v1::PluginOffer {
                signature: Some(bench.signed(&bytes, "2.0.0", &stranger)),
                attempt: 5,
                ..good.clone()
            },
            "PKT-0013",
        ),
    ];
    for (offer, code) in cases {
        bench.say(vec![offer.clone()]);
        assert_eq!(bench.settled(&offer, "refused").await, code, "{offer:?}");
        assert!(bench.runs("1.0.0"));
    }
    // Signed, and no good: its first collect fails.
    let bad = bench.offer("9.0.0", 6);
    bench.say(vec![bad.clone()]);
    assert_eq!(bench.settled(&bad, "refused").await, "PKT-0060");
    assert!(bench.runs("1.0.0") && !bench.line().rolled_out);
    let bench = bench.restart().await;
    assert!(bench.runs("1.0.0"));
    // Several at a time, one of them no good.
    let good = bench.offer("2.0.0", 7);
    let other = v1::PluginOffer { plugin: "b".to_owned(), ..good.clone() };
    bench.say(vec![other.clone(), good.clone()]);
    bench.settled(&good, "running").await;
    assert_eq!(bench.settled(&other, "refused").await, "PKT-0102");
    assert!(bench.runs("2.0.0"));
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_is_not_taken_and_the_operators_file_has_the_last_word() {
    let bench = Bench::new().await;
    bench.drop_in("1.0.0");
    let bench = bench.restart().await;
    let offer = bench.offer("2.0.0", 1);
    bench.serving.lock().unwrap().pieces = Some(1);
    bench.say(vec![offer.clone()]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        bench.central.states.borrow().offers.first().map(|s| s.state.clone()).as_deref(),
        Some("fetching")
    );
    bench.say(Vec::new());
    tokio::time::sleep(SECOND).await;
    assert!(bench.central.states.borrow().offers.is_empty() && bench.runs("1.0.0"));
    assert_eq!(*bench.central.wanted.borrow(), None);
    bench.serving.lock().unwrap().pieces = None;
    bench.say(vec![offer.clone()]);
    bench.settled(&offer, "running").await;
    bench.drop_in("3.0.0");
    let bench = bench.restart().await;
    assert!(bench.runs("3.0.0") && !bench.line().rolled_out);
}

#[tokio::test(start_paused = true)]
async fn a_version_of_an_action_plugin_waits_for_what_it_does_and_no_other_waits_for_it() {
    let bench = Bench::new().await;
    let one = bench.offer_of("p", "1.0.0", 1);
    bench.say(vec![one.clone()]);
    bench.settled(&one, "running").await;
    assert_eq!(bench.acts(), "1.0.0");
    let bad = bench.offer_of("p", "9.0.0", 2);
    bench.say(vec![bad.clone()]);
    assert_eq!(bench.settled(&bad, "refused").await, "PKT-0060");
    assert_eq!(bench.acts(), "1.0.0");

    // An action whose step hangs until its time is over.
    *bench.world.kill.lock().unwrap() = Some((0, Kill::AfterEffect));
    let plan = bench.actions.plan("p", "stop", "{}").await.unwrap();
    bench.actions.apply(Apply { timeout: 100 * SECOND, ..command("e1", &plan) }).await.unwrap();
    let two = bench.offer_of("p", "2.0.0", 3);
    bench.say(vec![two.clone()]);
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.said(&two).as_str(), bench.acts().as_str()), ("trying", "1.0.0"));
    // Meanwhile another plugin's is taken, and the one that waits may be withdrawn and offered again.
    let other = bench.offer("2.0.0", 1);
    bench.say(vec![two.clone(), other.clone()]);
    bench.settled(&other, "running").await;
    assert!(bench.runs("2.0.0") && bench.said(&two) == "trying");
    bench.say(vec![other.clone()]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(bench.said(&two), "");
    let two = bench.offer_of("p", "2.0.0", 4);
    bench.say(vec![two.clone()]);
    tokio::time::sleep(SECOND).await;
    assert_eq!((bench.said(&two).as_str(), bench.acts().as_str()), ("trying", "1.0.0"));

    bench.actions.cancel("e1", "ada").await.unwrap();
    bench.settled(&two, "running").await;
    assert_eq!(bench.acts(), "2.0.0");
    let bench = bench.restart().await;
    assert_eq!(bench.acts(), "2.0.0");
    // Back, and back to nothing: no file lies in the folder.
    for (version, attempt) in [("1.0.0", 5), ("", 6)] {
        let digest =
            if version.is_empty() { String::new() } else { Digest::of(&component("p", version)).to_string() };
        let back = v1::PluginOffer { digest, size: 0, signature: None, attempt, ..two.clone() };
        bench.say(vec![back.clone()]);
        bench.settled(&back, "running").await;
        assert_eq!(bench.acts(), version);
    }
}
