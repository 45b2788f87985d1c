//! The executor against a scripted plugin and a world that remembers what was done to it; killed at every place.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use picket_agent_host::{ActionApplied, ActionDefinition, ActionPlan, Declined, Step, Verdict};
use picket_artifact::{Digest, Evidence, Manifest, Need, manifest_bytes};
use picket_proto::model::PluginId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::actor::{About, Actor, ActorError, ActorLoader};
use super::execution::State;
use super::journal::Journal;
use super::*;
use crate::clock::{Clock, TestClock};
use crate::config;
use crate::schedule::{self, BoxFuture, PluginStatus, SourceSpec, StatusBoard};
use crate::shelf::Shelf;
use crate::shelf::tests::component;
use crate::trust::Trust;

/// Where a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kill {
    BeforeEffect,
    AfterEffect,
}

/// What the plugin acts on. It outlives the agent.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// How often each step took effect.
    effects: Mutex<Vec<u32>>,
    /// The apply, counted from 0, that hangs for ever there.
    pub(crate) kill: Mutex<Option<(u32, Kill)>>,
    applies: AtomicU32,
    /// Applies end so instead.
    refuse: Mutex<Option<ActorError>>,
    blind: Mutex<bool>,
    /// Part of each plan.
    state: Mutex<String>,
}

impl World {
    fn effects(&self) -> Vec<u32> {
        self.effects.lock().unwrap().clone()
    }
}

struct Scripted {
    world: Arc<World>,
    about: About,
}

fn definition(name: &str, disturbs: &str, reversible: bool) -> ActionDefinition {
    ActionDefinition {
        name: name.to_owned(),
        summary: "does".to_owned(),
        parameters: json!({ "type": "object", "additionalProperties": false,
            "properties": { "steps": { "type": "integer", "minimum": 0, "maximum": 8 } } }),
        disturbs: vec![disturbs.to_owned()],
        reversible,
    }
}

impl Actor for Scripted {
    fn about(&self) -> &About {
        &self.about
    }

    fn plan<'a>(
        &'a mut self,
        _: &'a str,
        parameters: &'a str,
    ) -> BoxFuture<'a, Result<ActionPlan, ActorError>> {
        Box::pin(async move {
            let value: Value = serde_json::from_str(parameters).unwrap();
            let state = self.world.state.lock().unwrap().clone();
            let step = |n| Step {
                summary: format!("do {n}"),
                subject_kind: "container".to_owned(),
                subject_id: format!("c{n}"),
                arguments: json!({ "n": n, "state": state }).to_string(),
            };
            let steps = (0..value["steps"].as_u64().unwrap_or(1)).map(step).collect();
            Ok(ActionPlan { steps, notes: Vec::new() })
        })
    }

    fn apply<'a>(
        &'a mut self,
        _: &'a str,
        step: &'a Step,
    ) -> BoxFuture<'a, Result<ActionApplied, ActorError>> {
        Box::pin(async move {
            if let Some(error) = self.world.refuse.lock().unwrap().clone() {
                return Err(error);
            }
            let number = self.world.applies.fetch_add(1, Ordering::SeqCst);
            let kill = self.world.kill.lock().unwrap().filter(|(n, _)| *n == number).map(|(_, kill)| kill);
            if kill == Some(Kill::BeforeEffect) {
                std::future::pending::<()>().await;
            }
            let n = number_of(step);
            {
                let mut effects = self.world.effects.lock().unwrap();
                if effects.len() <= n {
                    effects.resize(n + 1, 0);
                }
                effects[n] += 1;
            }
            if kill == Some(Kill::AfterEffect) {
                std::future::pending::<()>().await;
            }
            Ok(ActionApplied { before: format!("before {n}"), message: format!("did {n}") })
        })
    }

    fn probe<'a>(&'a mut self, _: &'a str, step: &'a Step) -> BoxFuture<'a, Verdict> {
        Box::pin(async move {
            if *self.world.blind.lock().unwrap() {
                return Verdict::CannotTell("it is dark".to_owned());
            }
            match self.world.effects().get(number_of(step)) {
                Some(n) if *n > 0 => Verdict::Done("it is there".to_owned()),
                _ => Verdict::NotDone("it is not there".to_owned()),
            }
        })
    }

    fn revert<'a>(
        &'a mut self,
        _: &'a str,
        step: &'a Step,
        before: &'a str,
    ) -> BoxFuture<'a, Result<String, ActorError>> {
        Box::pin(async move {
            let n = number_of(step);
            assert_eq!(before, format!("before {n}"));
            self.world.effects.lock().unwrap()[n] -= 1;
            Ok(format!("undid {n}"))
        })
    }
}

fn number_of(step: &Step) -> usize {
    let arguments: Value = serde_json::from_str(&step.arguments).unwrap();
    usize::try_from(arguments["n"].as_u64().unwrap()).unwrap()
}

/// Loads any component; one with a 9 before the first dot of its version fails.
pub(crate) struct Loader(pub(crate) Arc<World>);

impl ActorLoader for Loader {
    fn load(&self, spec: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Actor>, ActorError>> {
        let bytes = std::fs::read(&spec.file).unwrap();
        let manifest = Manifest::<Need>::parse(manifest_bytes(&bytes).unwrap().unwrap()).unwrap();
        if manifest.version.starts_with("9.") {
            let error = ActorError::Failed { code: "PKT-0060".to_owned(), message: "it trapped".to_owned() };
            return Box::pin(async move { Err(error) });
        }
        let about = About {
            version: manifest.version,
            digest: Digest::of(&bytes).to_string(),
            definitions: vec![
                definition("restart", "container", false),
                definition("stop", "container", true),
                definition("reset", "gpu", false),
            ],
            settle: Duration::from_secs(10),
            ..About::default()
        };
        let actor = Scripted { world: self.0.clone(), about };
        Box::pin(async move { Ok(Box::new(actor) as Box<dyn Actor>) })
    }
}

/// A node: its disk and its world stay, the agent comes and goes.
struct Node {
    folder: tempfile::TempDir,
    world: Arc<World>,
    clock: Arc<TestClock>,
    settings: config::Actions,
}

impl Node {
    fn new() -> Self {
        let settings = config::Actions {
            enabled: true,
            max_running: 1,
            per_hour: 100,
            cooldown: Duration::ZERO,
            max_time: Duration::from_secs(600),
        };
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
            world: Arc::default(),
            clock: TestClock::new(1_000_000),
            settings,
        };
        node.drop_in("1.0.0");
        node
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("p.wasm")
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    fn drop_in(&self, version: &str) {
        std::fs::write(self.file(), component("p", version)).unwrap();
    }

    async fn agent(&self) -> Actions {
        let journal = self
            .settings
            .enabled
            .then(|| Journal::open(&self.journal(), self.clock.wall_ms()).map_err(|e| e.to_string()));
        let (state, trust) = (self.folder.path().join("state"), Trust::open(&config::Trust::of_anybody()));
        let actions = Actions::new(ActionsOptions {
            settings: self.settings.clone(),
            loader: Arc::new(Loader(self.world.clone())),
            shelf: Arc::new(Shelf::open(&state, &state, Arc::new(trust))),
            clock: self.clock.clone(),
            board: StatusBoard::default(),
            journal,
        });
        actions.configure(vec![planned_as("p", self.file())]).await;
        actions.resume();
        actions
    }
}

pub(crate) fn planned_as(id: &str, file: PathBuf) -> ActionPlanned {
    let spec = SourceSpec {
        id: PluginId::new(id).unwrap(),
        file,
        settings: json!({}),
        grants: Vec::new(),
        limits: picket_agent_host::Limits::default(),
        isolation: picket_agent_host::Isolation::default(),
    };
    ActionPlanned { spec, rules: Rules::default() }
}

async fn plan(actions: &Actions, action: &str, steps: u32) -> Value {
    actions.plan("p", action, &json!({ "steps": steps }).to_string()).await.unwrap()
}

pub(crate) fn command(execution: &str, plan: &Value) -> Apply {
    Apply {
        execution: execution.to_owned(),
        plugin: plan["plugin"].as_str().unwrap().to_owned(),
        action: plan["action"].as_str().unwrap().to_owned(),
        parameters: plan["parameters"].to_string(),
        digest: plan["digest"].as_str().unwrap().to_owned(),
        requested_by: "olga".to_owned(),
        approved_by: String::new(),
        timeout: Duration::ZERO,
    }
}

/// The state that an execution ends in, within a minute of the test's clock.
async fn end_of(actions: &Actions, execution: &str) -> String {
    let mut report = actions.subscribe();
    let ended = async {
        loop {
            let now =
                report.borrow_and_update().executions.iter().find(|e| e.execution == execution).cloned();
            if let Some(e) = now.filter(|e| e.ended_ms > 0) {
                return e.state;
            }
            report.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap_or_else(|_| "open".to_owned())
}

#[tokio::test(start_paused = true)]
async fn what_was_agreed_to_is_done_once() {
    let node = Node::new();
    let actions = node.agent().await;
    let shown = plan(&actions, "restart", 3).await;
    assert_eq!(shown["steps"].as_array().unwrap().len(), 3);
    assert!(node.world.effects().is_empty(), "a plan changes nothing");
    assert_eq!(plan(&actions, "restart", 3).await["digest"], shown["digest"]);

    actions.apply(command("e1", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e1").await, "succeeded");
    assert_eq!(node.world.effects(), [1, 1, 1]);
    // The same command again, also to the agent's next life.
    let again = actions.apply(command("e1", &shown)).await.unwrap();
    assert_eq!(again["state"], "succeeded");
    let next = node.agent().await;
    assert_eq!(next.apply(command("e1", &shown)).await.unwrap()["state"], "succeeded");
    assert_eq!(node.world.effects(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_let_in() {
    let mut node = Node::new();
    node.settings.cooldown = Duration::from_secs(300);
    let actions = node.agent().await;
    let shown = plan(&actions, "restart", 1).await;
    let reset = plan(&actions, "reset", 1).await;
    assert_eq!((&shown["dangerous"], &reset["dangerous"]), (&json!(false), &json!(true)));
    let wrong = Apply { digest: "0".repeat(64), ..command("e", &shown) };
    let other = Apply { parameters: "{\"steps\":2}".to_owned(), ..command("e", &shown) };
    let nothing = plan(&actions, "restart", 0).await;
    for (refused, reason) in [
        (wrong, "digest"),
        (other, "digest"),
        (Apply { plugin: "q".to_owned(), ..command("e", &shown) }, "plugin"),
        (Apply { action: "fly".to_owned(), ..command("e", &shown) }, "action"),
        (Apply { parameters: "{\"x\":1}".to_owned(), ..command("e", &shown) }, "parameters"),
        (Apply { parameters: "[]".to_owned(), ..command("e", &shown) }, "parameters"),
        (Apply { execution: "../e".to_owned(), ..command("e", &shown) }, "execution"),
        (command("e", &nothing), "nothing"),
        (command("e", &reset), "approval"),
    ] {
        let told = format!("{refused:?}");
        assert_eq!(actions.apply(refused).await.unwrap_err().reason, reason, "{told}");
    }
    // The node is another one by now.
    *node.world.state.lock().unwrap() = "changed".to_owned();
    assert_eq!(actions.apply(command("e", &shown)).await.unwrap_err().reason, "digest");
    assert!(node.world.effects().is_empty());

    let approved =
        Apply { approved_by: "ada".to_owned(), ..command("e1", &plan(&actions, "reset", 1).await) };
    actions.apply(approved).await.unwrap();
    assert_eq!(end_of(&actions, "e1").await, "succeeded");
    let fresh = plan(&actions, "reset", 1).await;
    assert!(fresh["blocked"][0].as_str().unwrap().contains("cooldown"), "{fresh}");
    let again = Apply { approved_by: "ada".to_owned(), ..command("e2", &fresh) };
    assert_eq!(actions.apply(again.clone()).await.unwrap_err().reason, "limit");
    // Not by a restart either; by time.
    let next = node.agent().await;
    assert_eq!(next.apply(again.clone()).await.unwrap_err().reason, "limit");
    node.clock.step(300_000);
    next.apply(again).await.unwrap();
    assert_eq!(end_of(&next, "e2").await, "succeeded");
}

#[tokio::test(start_paused = true)]
async fn observing_only_nothing_is_even_planned() {
    let mut node = Node::new();
    node.settings.enabled = false;
    let actions = node.agent().await;
    assert_eq!(actions.plan("p", "restart", "{}").await.unwrap_err().reason, "disabled");
    let report = actions.subscribe().borrow().clone();
    assert!(!report.enabled && report.plugins.is_empty());
    assert!(!node.journal().exists());
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time() {
    let node = Node::new();
    let actions = node.agent().await;
    *node.world.kill.lock().unwrap() = Some((0, Kill::BeforeEffect));
    let shown = plan(&actions, "restart", 1).await;
    actions.apply(command("e1", &shown)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(actions.apply(command("e2", &shown)).await.unwrap_err().reason, "limit");
}

#[tokio::test(start_paused = true)]
async fn a_no_of_the_plugins_and_a_doubt() {
    let node = Node::new();
    let actions = node.agent().await;
    let shown = plan(&actions, "restart", 2).await;
    let no = Declined { reason: "refused".to_owned(), message: "not today".to_owned() };
    *node.world.refuse.lock().unwrap() = Some(ActorError::Declined(no));
    actions.apply(command("e1", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e1").await, "failed");
    *node.world.refuse.lock().unwrap() =
        Some(ActorError::Failed { code: "PKT-0062".to_owned(), message: "too long".to_owned() });
    actions.apply(command("e2", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e2").await, "failed", "the probe saw that nothing was done");
    *node.world.blind.lock().unwrap() = true;
    actions.apply(command("e3", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e3").await, "unknown");
    *node.world.refuse.lock().unwrap() = None;
    *node.world.blind.lock().unwrap() = false;
    actions.apply(command("e4", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e4").await, "succeeded");
}

#[tokio::test(start_paused = true)]
async fn what_was_done_is_undone_backwards() {
    let node = Node::new();
    let actions = node.agent().await;
    let shown = plan(&actions, "stop", 3).await;
    actions.apply(command("e1", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e1").await, "succeeded");
    actions.revert("e1", "olga").await.unwrap();
    while end_of(&actions, "e1").await != "reverted" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.world.effects(), [0, 0, 0]);
    assert_eq!(actions.revert("e1", "olga").await.unwrap_err().reason, "nothing");
    assert_eq!(actions.revert("e9", "olga").await.unwrap_err().reason, "execution");
    let restart = plan(&actions, "restart", 1).await;
    actions.apply(command("e2", &restart)).await.unwrap();
    assert_eq!(end_of(&actions, "e2").await, "succeeded");
    assert_eq!(actions.revert("e2", "olga").await.unwrap_err().reason, "irreversible");
}

#[tokio::test(start_paused = true)]
async fn time_that_is_over_and_a_plugin_that_is_another_one() {
    let node = Node::new();
    let first = node.agent().await;
    *node.world.kill.lock().unwrap() = Some((1, Kill::BeforeEffect));
    let shown = plan(&first, "restart", 3).await;
    let short = Apply { timeout: Duration::from_secs(5), ..command("e1", &shown) };
    first.apply(short).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(first);
    node.clock.step(60_000);
    let second = node.agent().await;
    assert_eq!(end_of(&second, "e1").await, "expired");
    assert_eq!(node.world.effects(), [1], "nothing is begun after its time");

    *node.world.kill.lock().unwrap() = Some((2, Kill::AfterEffect));
    let shown = plan(&second, "stop", 1).await;
    second.apply(command("e2", &shown)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(second);
    node.drop_in("2.0.0");
    let third = node.agent().await;
    assert_eq!(end_of(&third, "e2").await, "unknown", "another version's step is not asked of this one");
}

/// Has the shelf keep this version for as long as what is given is held; gives its digest.
fn bring(actions: &Actions, version: &str) -> (String, Arc<()>) {
    let bytes = component("p", version);
    let evidence = Evidence { signature: None, bundle: None };
    let held = actions.inner.options.shelf.receive(&id(), &bytes, &evidence).unwrap();
    (Digest::of(&bytes).to_string(), held)
}

fn id() -> PluginId {
    PluginId::new("p").unwrap()
}

fn line(actions: &Actions) -> PluginStatus {
    actions.inner.options.board.line(&id()).unwrap()
}

/// What runs: by the board, and by what a plan says of itself.
async fn version(actions: &Actions) -> String {
    let (line, shown) = (line(actions), plan(actions, "restart", 1).await);
    assert_eq!((line.state, &shown["version"]), (schedule::State::Running, &json!(line.version)));
    assert_eq!(shown["plugin_digest"], line.digest);
    line.version
}

#[tokio::test(start_paused = true)]
async fn another_version_takes_the_place_and_gives_it_back() {
    let node = Node::new();
    let actions = node.agent().await;
    let old = plan(&actions, "stop", 1).await;
    let (two, held) = bring(&actions, "2.0.0");
    actions.take(&id(), Some(two.clone())).await.unwrap();
    drop(held);
    assert_eq!(version(&actions).await, "2.0.0");
    let now = line(&actions);
    assert_eq!((now.rolled_out, now.previous.unwrap().version.as_str(), now.swaps.done), (true, "1.0.0", 1));
    let kinds: Vec<_> = actions.telemetry().take_events().into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds, ["plugin.swapped"]);
    assert_eq!(actions.subscribe().borrow().plugins[0].version, "2.0.0");
    // What was planned by the one is not done by the other.
    assert_eq!(actions.apply(command("e1", &old)).await.unwrap_err().reason, "digest");
    let shown = plan(&actions, "stop", 1).await;
    actions.apply(command("e1", &shown)).await.unwrap();
    assert_eq!(end_of(&actions, "e1").await, "succeeded");
    // After a restart and a reload too.
    let actions = node.agent().await;
    actions.configure(vec![planned_as("p", node.file())]).await;
    assert_eq!((version(&actions).await.as_str(), line(&actions).rolled_out), ("2.0.0", true));

    // One that can't be loaded, and one that is not there.
    let (bad, _held) = bring(&actions, "9.0.0");
    for (digest, code) in [(bad, "PKT-0060"), ("0".repeat(64), "PKT-0103")] {
        let Err(NotTaken::Refused(told)) = actions.take(&id(), Some(digest.clone())).await else { panic!() };
        assert_eq!((told.code.as_str(), &told.digest), (code, &digest));
        assert_eq!(version(&actions).await, "2.0.0");
        assert_eq!(line(&actions).refused, Some(told));
    }
    assert!(line(&actions).reason.contains("the former runs on"));
    let stranger = PluginId::new("q").unwrap();
    let Err(NotTaken::Refused(told)) = actions.take(&stranger, None).await else { panic!() };
    assert_eq!(told.code, "PKT-0102");

    // Back to what lies in the folder, by its digest and by none.
    let one = Digest::of(&component("p", "1.0.0")).to_string();
    for back in [Some(one), None] {
        actions.take(&id(), back).await.unwrap();
        assert_eq!(version(&actions).await, "1.0.0");
        let now = line(&actions);
        assert_eq!((now.rolled_out, now.refused, now.reason.as_str()), (false, None, ""));
    }
    // Another file has the last word.
    actions.take(&id(), Some(two.clone())).await.unwrap();
    node.drop_in("3.0.0");
    actions.configure(vec![planned_as("p", node.file())]).await;
    assert_eq!((version(&actions).await.as_str(), line(&actions).rolled_out), ("3.0.0", false));

    // With no file in the folder it stands alone, and taken back nothing runs.
    std::fs::remove_file(node.file()).unwrap();
    actions.take(&id(), Some(two)).await.unwrap();
    let actions = node.agent().await;
    assert_eq!(version(&actions).await, "2.0.0");
    actions.take(&id(), None).await.unwrap();
    assert_eq!(line(&actions).state, schedule::State::Removed);
    assert_eq!(actions.plan("p", "restart", "{}").await.unwrap_err().reason, "plugin");
}

/// Not even after a crash: what became of a step only the version can say that began it.
#[tokio::test(start_paused = true)]
async fn no_version_takes_the_place_of_one_that_is_at_work() {
    let node = Node::new();
    let first = node.agent().await;
    *node.world.kill.lock().unwrap() = Some((0, Kill::AfterEffect));
    first.apply(command("e1", &plan(&first, "stop", 2).await)).await.unwrap();
    let (two, _held) = bring(&first, "2.0.0");
    for wanted in [Some(two.clone()), None] {
        assert_eq!(first.take(&id(), wanted).await, Err(NotTaken::Busy));
    }
    let all = [id()];
    let quiet = first.quiet(&all);
    assert!(tokio::time::timeout(Duration::from_secs(60), quiet).await.is_err());
    first.stop(Duration::ZERO).await;
    drop(first);
    let second = node.agent().await;
    assert_eq!(line(&second).version, "1.0.0");
    assert_eq!(second.take(&id(), Some(two.clone())).await, Err(NotTaken::Busy));
    second.quiet(&[PluginId::new("q").unwrap(), id()]).await;
    second.quiet(&[id()]).await;
    assert_eq!(end_of(&second, "e1").await, "succeeded", "the version that began it was asked");
    // Its undoing is its own affair too.
    second.apply(command("e2", &plan(&second, "stop", 2).await)).await.unwrap();
    assert_eq!(end_of(&second, "e2").await, "succeeded");
    second.revert("e2", "olga").await.unwrap();
    assert_eq!(second.take(&id(), Some(two.clone())).await, Err(NotTaken::Busy));
    second.quiet(&[id()]).await;
    let (two, _held) = bring(&second, "2.0.0");
    second.take(&id(), Some(two)).await.unwrap();
    assert_eq!(version(&second).await, "2.0.0");
}

/// What is told of it once it has left: how it ended, by figures and by events.
async fn told_of(actions: &Actions) -> (Figures, Vec<picket_proto::v1::Event>) {
    let left = async {
        while actions.telemetry().figures().ended.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), left).await.expect("it is told");
    (actions.telemetry().figures(), actions.telemetry().take_events())
}

/// A step that is under way is cut off when the execution's time is over; then the probe says what became of it, and no further
/// one begins.
#[tokio::test(start_paused = true)]
async fn what_runs_is_cancelled() {
    for (kill, blind, effects, state, kind) in [
        (Kill::BeforeEffect, false, vec![1], "cancelled", "action.ended"),
        (Kill::AfterEffect, false, vec![1, 1], "cancelled", "action.ended"),
        (Kill::AfterEffect, true, vec![1, 1], "unknown", "action.failed"),
    ] {
        let node = Node::new();
        let actions = node.agent().await;
        *node.world.kill.lock().unwrap() = Some((1, kill));
        let shown = plan(&actions, "stop", 3).await;
        let short = Apply { timeout: Duration::from_secs(30), ..command("e1", &shown) };
        actions.apply(short).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        *node.world.blind.lock().unwrap() = blind;
        assert_eq!(actions.telemetry().figures().running.values().sum::<u64>(), 1);
        for _ in 0..2 {
            let told = actions.cancel("e1", "ada").await.unwrap();
            assert_eq!(told["state"], "running", "its step is under way");
        }
        assert_eq!(end_of(&actions, "e1").await, state);
        assert_eq!(node.world.effects(), effects);
        assert_eq!(actions.cancel("e1", "ada").await.unwrap_err().reason, "execution");
        assert_eq!(actions.cancel("e9", "ada").await.unwrap_err().reason, "execution");

        let of = ("p".to_owned(), "stop".to_owned());
        let (figures, events) = told_of(&actions).await;
        assert_eq!(figures.running[&of], 0);
        assert_eq!(figures.ended, [((of, state), 1)].into());
        let kinds: Vec<_> = events.iter().map(|e| (e.kind.as_str(), e.subject_id.as_str())).collect();
        assert_eq!(kinds, [("action.begun", "c0"), (kind, "c0")]);
        let by = |e: &picket_proto::v1::Event| {
            e.attributes.iter().find(|l| l.name == "cancelled_by").map(|l| l.value.clone())
        };
        assert_eq!((by(&events[0]), by(&events[1])), (None, Some("ada".to_owned())));
    }
}

/// The word is on the disk: an agent that is killed after it goes on with nothing but the probe.
#[tokio::test(start_paused = true)]
async fn a_cancel_outlives_the_agent() {
    for (kill, effects) in [(Kill::BeforeEffect, vec![1]), (Kill::AfterEffect, vec![1, 1])] {
        let node = Node::new();
        let first = node.agent().await;
        *node.world.kill.lock().unwrap() = Some((1, kill));
        let shown = plan(&first, "stop", 3).await;
        first.apply(command("e1", &shown)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.cancel("e1", "ada").await.unwrap();
        first.stop(Duration::ZERO).await;
        let second = node.agent().await;
        assert_eq!(end_of(&second, "e1").await, "cancelled");
        assert_eq!(node.world.effects(), effects);
        assert_eq!(node.world.applies.load(Ordering::SeqCst), 2, "nothing was begun again");
        // What was done and is known from before to after is undone as ever.
        second.revert("e1", "ada").await.unwrap();
        while end_of(&second, "e1").await != "reverted" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(node.world.effects()[0], 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_within_the_hour_counts_over_a_restart() {
    let mut node = Node::new();
    node.settings.per_hour = 2;
    for (id, action) in [("e1", "restart"), ("e2", "stop")] {
        let actions = node.agent().await;
        actions.apply(command(id, &plan(&actions, action, 1).await)).await.unwrap();
        assert_eq!(end_of(&actions, id).await, "succeeded");
    }
    let actions = node.agent().await;
    let third = command("e3", &plan(&actions, "restart", 1).await);
    let no = actions.apply(third.clone()).await.unwrap_err();
    assert!(no.reason == "limit" && no.message.contains("actions.per_hour"), "{no:?}");
    node.clock.step(3_600_001);
    actions.apply(third).await.unwrap();
    assert_eq!(end_of(&actions, "e3").await, "succeeded");
}

#[tokio::test(start_paused = true)]
async fn told_to_stop_it_begins_no_step_more() {
    let node = Node::new();
    let first = node.agent().await;
    *node.world.kill.lock().unwrap() = Some((1, Kill::AfterEffect));
    let shown = plan(&first, "restart", 4).await;
    first.apply(command("e1", &shown)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.stop(Duration::from_secs(2)).await;
    assert_eq!(first.apply(command("e2", &shown)).await.unwrap_err().reason, "disabled");
    let second = node.agent().await;
    assert_eq!(end_of(&second, "e1").await, "succeeded");
    assert_eq!(node.world.effects(), [1, 1, 1, 1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Killed again and again, at any place: each step takes effect once, or is said to be unknown; never twice.
    #[test]
    fn no_step_takes_effect_twice(
        steps in 1u32..5,
        kills in prop::collection::vec((0u32..6, any::<bool>()), 0..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let (effects, state) = runtime.block_on(async {
            let node = Node::new();
            let mut actions = node.agent().await;
            let shown = plan(&actions, "restart", steps).await;
            let mut kills = kills.into_iter();
            let mut arm = |base: u32| {
                let next = kills.next().map(|(n, before)| {
                    (base + n, if before { Kill::BeforeEffect } else { Kill::AfterEffect })
                });
                *node.world.kill.lock().unwrap() = next;
                next.is_some()
            };
            let mut armed = arm(0);
            actions.apply(command("e1", &shown)).await.unwrap();
            loop {
                let state = end_of(&actions, "e1").await;
                if state != "open" {
                    return (node.world.effects(), state);
                }
                assert!(armed, "it hangs, and nothing was to hang");
                // kill -9: the agent's memory is gone, its disk and the world are not.
                actions.stop(Duration::ZERO).await;
                armed = arm(node.world.applies.load(Ordering::SeqCst));
                actions = node.agent().await;
            }
        });
        prop_assert!(effects.iter().all(|n| *n == 1), "{effects:?} {state}");
        if state == State::Succeeded.word() {
            prop_assert_eq!(effects.len(), steps as usize);
        } else {
            // Begun twice and found not done both times: it is given up.
            prop_assert_eq!(state.as_str(), "failed");
        }
    }
}
