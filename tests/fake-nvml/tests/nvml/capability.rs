//! The agent's capability, with the helper and the library.

use std::collections::BTreeSet;

use std::time::{Duration, Instant};

use picket_agent_services::grants::{Admission, Capability, Scope, admit};
use picket_agent_services::{Request, Response, ServiceLimits, Services, ServicesOptions, kmsg, nvml};
use picket_proto::model::PluginId;
use serde_json::Value;

use crate::support::{CALL_TIMEOUT, Scenario, helper, library, shipped};

struct Bench {
    services: Services,
    scenario: Scenario,
    _state: tempfile::TempDir,
}

impl Bench {
    /// One a process: the helper inherits the environment.
    fn new(text: &str) -> Self {
        let scenario = Scenario::new(text);
        // SAFETY: nextest runs a test a process; no other thread reads the environment yet.
        unsafe { std::env::set_var("FAKE_NVML_SCENARIO", scenario.path()) };
        let state = tempfile::tempdir().unwrap();
        let services = Services::new(ServicesOptions {
            state_dir: state.path().to_owned(),
            extra_authorities: None,
            limits: ServiceLimits::default(),
            nvml: nvml::Options {
                helper: helper(),
                library: Some(library()),
                timeout: CALL_TIMEOUT,
                snapshot_time: Duration::from_secs(3),
                absent_again: Duration::from_millis(300),
                back_off: Duration::from_millis(300),
                back_off_max: Duration::from_secs(1),
                ..nvml::Options::default()
            },
            kmsg: kmsg::Options::default(),
        });
        Self { services: services.unwrap(), scenario, _state: state }
    }

    async fn ask(&self, grant: &Admission, max_age: u32) -> Result<nvml::Answer, nvml::Error> {
        let grant = grant.grant(Capability::Nvml).unwrap();
        let request = Request::Nvml(nvml::Request::Snapshot { max_age });
        match self.services.call(grant, request).await {
            Response::Nvml(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    async fn document(&self, grant: &Admission) -> Value {
        serde_json::from_str(&self.ask(grant, 0).await.unwrap().document).unwrap()
    }

    /// Until the driver answers again.
    async fn recovered(&self, grant: &Admission) -> nvml::Answer {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            match self.ask(grant, 0).await {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn grant(plugin: &str, devices: &[&str]) -> Admission {
    let devices = devices.iter().map(|d| (*d).to_owned()).collect();
    let scope = Scope::Nvml(nvml::Scope { devices });
    let imports = BTreeSet::from([Capability::Nvml]);
    admit(&PluginId::new(plugin).unwrap(), None, &imports, &[scope]).unwrap()
}

/// The helpers that this test's process has started and that still are.
fn helpers() -> Vec<u32> {
    let mine = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let mut rest = rest.split_whitespace();
        let (state, parent) = (rest.next(), rest.next());
        if name.ends_with("(picket-nvml") && parent == Some(&mine) && state != Some("Z") {
            found.push(pid);
        }
    }
    found
}

fn signal(pid: u32, name: &str) {
    let status = std::process::Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn plugins_share_a_snapshot_and_see_what_they_are_granted() {
    let bench = Bench::new(&shipped("mig"));
    let (all, one) = (grant("a", &["all"]), grant("b", &["GPU-6f3a1c00-0000-4000-8000-000000000000"]));
    let first = bench.ask(&all, 0).await.unwrap();
    let shared = bench.ask(&one, 10_000).await.unwrap();
    assert_eq!(first.timestamp, shared.timestamp);
    let shown: Value = serde_json::from_str(&shared.document).unwrap();
    assert_eq!(shown["devices"].as_array().unwrap().len(), 1);
    assert!(
        !shared.document.contains("MIG-") && !shared.document.contains("\"pid\":500"),
        "{}",
        shared.document
    );
    assert_eq!(bench.document(&all).await["devices"].as_array().unwrap().len(), 5);
    assert_eq!(helpers().len(), 1);
    // At once: one is taken for all.
    let (a, b) = tokio::join!(bench.ask(&all, 0), bench.ask(&one, 0));
    assert_eq!(a.unwrap().timestamp, b.unwrap().timestamp);
    let mig = bench.document(&grant("c", &["GPU-6f3a1c00-0000-4000-8000-000000000001"])).await;
    assert_eq!(mig["devices"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_hung_driver_is_told_at_once_and_the_helper_replaced() {
    let bench = Bench::new(&shipped("hung"));
    let all = grant("a", &["all"]);
    let began = Instant::now();
    let error = bench.ask(&all, 0).await.unwrap_err();
    assert!(began.elapsed() < CALL_TIMEOUT * 4, "{:?}", began.elapsed());
    let nvml::Error::Hung(why) = &error else { panic!("{error}") };
    assert!(why.contains("nvmlDeviceGetPowerUsage of GPU 4"), "{why}");
    // While it is left alone nobody waits.
    let began = Instant::now();
    assert_eq!(bench.ask(&all, 60_000).await.unwrap_err(), error);
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    // It goes on hanging: helpers do not pile up.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(matches!(bench.ask(&all, 0).await, Err(nvml::Error::Hung(_))));
        assert!(helpers().len() <= 2, "{:?}", helpers());
    }
    bench.scenario.set(&shipped("8xh100"));
    bench.recovered(&all).await;
    let until = Instant::now() + Duration::from_secs(5);
    while helpers().len() > 1 {
        assert!(Instant::now() < until, "{:?}", helpers());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_helper_that_is_killed_or_stopped_is_replaced() {
    let bench = Bench::new(&shipped("8xh100"));
    let all = grant("a", &["all"]);
    bench.ask(&all, 0).await.unwrap();
    signal(helpers()[0], "KILL");
    let error = bench.ask(&all, 0).await;
    assert!(matches!(&error, Err(nvml::Error::Other(why)) if why.contains("picket-nvml")), "{error:?}");
    bench.recovered(&all).await;
    // As a process that waits in the kernel: it can't say anything.
    signal(helpers()[0], "STOP");
    let began = Instant::now();
    let error = bench.ask(&all, 0).await;
    assert!(
        matches!(&error, Err(nvml::Error::Hung(why)) if why.contains("not there after 3 s")),
        "{error:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    bench.recovered(&all).await;
}

#[tokio::test]
async fn a_node_without_a_driver_is_a_state_that_passes() {
    let bench = Bench::new(&format!("{}\n[[faults]]\ncall = \"nvmlInit_v2\"\ncode = 9\n", shipped("8xh100")));
    let all = grant("a", &["all"]);
    for _ in 0..3 {
        let error = bench.ask(&all, 0).await.unwrap_err();
        assert!(matches!(&error, nvml::Error::NoDriver(_)), "{error}");
        let until = Instant::now() + Duration::from_secs(5);
        while !helpers().is_empty() {
            assert!(Instant::now() < until, "a process stays for a driver that is not there");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    bench.scenario.set(&shipped("8xh100"));
    bench.recovered(&all).await;
}

#[tokio::test]
async fn an_xid_wakes_those_who_may_see_it_within_a_second() {
    let bench = Bench::new(&shipped("8xh100"));
    let (all, other) = (grant("a", &["all"]), grant("b", &["GPU-6f3a1c00-0000-4000-8000-000000000000"]));
    bench.document(&all).await;
    bench.document(&other).await;
    let wakes = bench.services.wakes();
    let (woken, unwoken) = (wakes.of(&PluginId::new("a").unwrap()), wakes.of(&PluginId::new("b").unwrap()));
    let began = Instant::now();
    bench.scenario.set(&shipped("xid"));
    tokio::time::timeout(Duration::from_secs(10), woken.notified()).await.expect("no wake");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let document = bench.document(&all).await;
    assert_eq!(document["events"][0]["xid"], 31);
    assert_eq!(document["events"][0]["sequence"], 1);
    assert!(tokio::time::timeout(Duration::from_millis(500), unwoken.notified()).await.is_err());
    assert_eq!(bench.document(&other).await["events"].as_array().unwrap().len(), 0);
    // The events outlive the helper.
    signal(helpers()[0], "KILL");
    let answer = bench.recovered(&all).await;
    let document: Value = serde_json::from_str(&answer.document).unwrap();
    assert_eq!(document["events"][1]["xid"], 79);
}
