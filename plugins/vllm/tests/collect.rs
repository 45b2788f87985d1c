//! The plugin under the SDK's host: containers in memory, servers that answer as real ones did or as none should.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use picket_plugin_vllm::Vllm;
use picket_sdk::containers::ContainersError;
use picket_sdk::http::{HttpError, Response};
use picket_sdk::testing::Host;
use serde_json::{Value, json};

const BUSY: &str = include_str!("fixtures/metrics_busy.txt");
const IDLE: &str = include_str!("fixtures/metrics_idle.txt");
const AFTER: &str = include_str!("fixtures/metrics_after.txt");
const MODELS: &str = include_str!("fixtures/v1_models.json");
const STARTED: f64 = 1_767_225_000.0;

type Answers = Rc<RefCell<BTreeMap<String, Result<Response, HttpError>>>>;

struct Bench {
    host: Host<Vllm>,
    answers: Answers,
}

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn container(n: u8, name: &str, port: u16) -> Value {
    json!({
        "Id": id(n), "Name": format!("/{name}"), "Path": "vllm",
        "Args": ["serve", "org/model", "--port", port.to_string()], "RestartCount": 0,
        "Image": "sha256:ab",
        "State": { "Status": "running", "ExitCode": 0, "OOMKilled": false, "StartedAt": "2025-12-31T23:50:00Z" },
        "Config": { "Image": "vllm/vllm-openai:v0.12.0", "Labels": { "vllm": "true" }, "Env": [] },
        "HostConfig": { "NetworkMode": "host", "Memory": 1_000_000,
            "DeviceRequests": [{ "Driver": "", "Count": 0, "DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]] }] },
        "NetworkSettings": {},
    })
}

fn text(status: u16, kind: &str, body: &str) -> Result<Response, HttpError> {
    let headers = vec![("content-type".to_owned(), kind.to_owned())];
    Ok(Response { status, headers, body: body.as_bytes().to_vec() })
}

fn page(body: &str) -> Result<Response, HttpError> {
    text(200, "text/plain; version=0.0.4; charset=utf-8", body)
}

impl Bench {
    fn new(settings: Value) -> Self {
        let answers: Answers = Answers::default();
        let mut host = Host::new();
        let served = answers.clone();
        host.http(move |request| {
            let unreachable = || Err(HttpError::Unreachable(format!("{}: refused", request.url())));
            served.borrow().get(request.url()).cloned().unwrap_or_else(unreachable)
        });
        host.engine(|_| {});
        host.configure(&settings).unwrap();
        Self { host, answers }
    }

    fn answer(&self, url: &str, answer: Result<Response, HttpError>) {
        self.answers.borrow_mut().insert(url.to_owned(), answer);
    }

    /// A server that works.
    fn serve(&self, port: u16, metrics: &str) {
        let base = format!("http://127.0.0.1:{port}");
        self.answer(&format!("{base}/metrics"), page(metrics));
        self.answer(&format!("{base}/health"), text(200, "text/plain", ""));
        self.answer(&format!("{base}/version"), text(200, "application/json", r#"{"version":"0.12.0"}"#));
        self.answer(&format!("{base}/v1/models"), text(200, "application/json", MODELS));
    }

    fn end(&self, port: u16) {
        let base = format!("http://127.0.0.1:{port}/");
        self.answers.borrow_mut().retain(|url, _| !url.starts_with(&base));
    }

    fn collect(&mut self) {
        self.host.collect().unwrap();
    }

    fn after(&mut self, seconds: u64) {
        self.host.advance(Duration::from_secs(seconds));
        self.collect();
    }

    fn state(&self, container: &str) -> String {
        self.one_of("picket_vllm_engine_state", container, "state")
    }

    /// The state that is 1 of a set.
    fn one_of(&self, family: &str, container: &str, label: &str) -> String {
        let samples = self.host.samples();
        let on: Vec<&str> = samples
            .iter()
            .filter(|s| s.name == family && s.value == 1.0 && s.label("container") == Some(container))
            .filter_map(|s| s.label(label))
            .collect();
        on.join(" ")
    }

    fn reasons(&self) -> Vec<String> {
        self.host.failures().into_iter().map(|(reason, _)| reason).collect()
    }
}

#[test]
fn one_collect_merges_the_container_and_its_server() {
    let mut bench = Bench::new(json!({}));
    bench.serve(8000, BUSY);
    bench.host.engine(|engine| {
        engine.container(container(1, "llama", 8000));
        engine.stats(&id(1), Ok(serde_json::from_str(include_str!("fixtures/stats.json")).unwrap()));
    });
    bench.collect();
    assert_eq!(bench.host.failures(), []);
    let info = [
        ("container", "llama"),
        ("container_id", &id(1)),
        ("image", "vllm/vllm-openai:v0.12.0"),
        ("version", "v0.12.0"),
        ("engine_version", "0.12.0"),
        ("model", "tiny-llama"),
        ("gpu_indices", "0,1"),
        ("url", "http://127.0.0.1:8000"),
    ];
    assert_eq!(bench.host.value("picket_vllm_container_info", &info), Some(1.0), "{}", bench.host.text());
    assert_eq!(bench.state("llama"), "running");
    assert_eq!(bench.one_of("picket_vllm_endpoint_state", "llama", "state"), "ok");
    assert_eq!(bench.host.value("picket_vllm_start_time_seconds", &[("container", "llama")]), Some(STARTED));
    let len = [("container", "llama"), ("model", "tiny-llama")];
    assert_eq!(bench.host.value("picket_vllm_model_max_len_tokens", &len), Some(512.0));
    // Passed on unchanged, with three labels more.
    let labels = [
        ("container", "llama"),
        ("engine", "0"),
        ("gpu", "0,1"),
        ("model", "tiny-llama"),
        ("model_name", "tiny-llama"),
    ];
    assert_eq!(bench.host.value("vllm:num_requests_running", &labels), Some(4.0));
    let lines = BUSY.lines().filter(|l| l.starts_with("vllm:")).count();
    let passed = bench.host.samples().iter().filter(|s| s.name.starts_with("vllm:")).count();
    assert_eq!(passed, lines, "every bucket");
    assert!(!bench.host.text().contains("python_gc"), "only the granted families");
    // What the container uses.
    let owner = |cpu: bool| {
        let mut labels = vec![("image", "vllm/vllm-openai:v0.12.0"), ("name", "llama")];
        if cpu {
            labels.push(("cpu", "total"));
        }
        labels
    };
    let docker = format!("/docker/{}", id(1));
    let of = |cpu: bool| [owner(cpu), vec![("id", docker.as_str())]].concat();
    for (name, value) in [
        ("container_cpu_usage_seconds_total", 0.025825739),
        ("container_memory_usage_bytes", 495_616.0),
        ("container_memory_working_set_bytes", 495_616.0),
        ("container_memory_rss", 57_344.0),
        ("container_start_time_seconds", STARTED),
        ("container_spec_memory_limit_bytes", 1_000_000.0),
        ("picket_container_restarts_total", 0.0),
    ] {
        let cpu = name == "container_cpu_usage_seconds_total";
        assert_eq!(bench.host.value(name, &of(cpu)), Some(value), "{name}");
    }
}

#[test]
fn containers_come_and_go() {
    let mut bench = Bench::new(json!({}));
    bench.serve(8000, IDLE);
    bench.serve(8001, IDLE);
    bench.collect();
    assert_eq!(bench.state("a"), "");
    bench.host.engine(|e| {
        e.container(container(1, "a", 8000));
    });
    bench.after(5);
    assert_eq!(bench.state("a"), "running");
    bench.host.engine(|e| {
        e.container(container(2, "b", 8001));
        e.remove(&id(1));
    });
    bench.after(5);
    assert_eq!((bench.state("a"), bench.state("b")), (String::new(), "running".to_owned()));
    assert!(!bench.host.samples().iter().any(|s| s.label("container") == Some("a")), "nothing stays");
    // Stopped: it is down, and says so once.
    let mut stopped = container(2, "b", 8001);
    stopped["State"] = json!({ "Status": "exited", "ExitCode": 1, "StartedAt": "2025-12-31T23:50:00Z" });
    bench.end(8001);
    bench.host.engine(|e| {
        e.container(stopped);
    });
    bench.after(5);
    bench.after(5);
    assert_eq!(bench.state("b"), "down");
    assert_eq!(bench.host.take_events().len(), 1);
    // Started again: another life, which loads first.
    let mut again = container(2, "b", 8001);
    again["State"]["StartedAt"] = json!("2026-01-01T00:00:10Z");
    bench.host.engine(|e| {
        e.container(again);
    });
    bench.after(5);
    assert_eq!(bench.state("b"), "loading");
    bench.serve(8001, IDLE);
    bench.after(5);
    assert_eq!(bench.state("b"), "running");
    // Ready, and no more down.
    assert_eq!(bench.host.take_events().len(), 2);
}

#[test]
fn loading_shows_its_phase() {
    let mut bench = Bench::new(json!({}));
    bench.host.engine(|e| {
        e.container(container(1, "big", 8000));
    });
    bench.collect();
    assert_eq!(bench.state("big"), "loading");
    assert_eq!(bench.reasons(), Vec::<String>::new(), "a server that loads is no error");
    let phase = |bench: &Bench| bench.one_of("picket_vllm_loading_phase", "big", "phase");
    assert_eq!(phase(&bench), "starting");
    let start = STARTED as u64 * 1_000_000_000;
    bench.host.engine(|e| {
        // The engine notes the start a moment after the first lines.
        e.log(&id(1), start - 200_000_000, "Starting to load model m...");
        e.log(&id(1), start + 2, "Loading safetensors checkpoint shards:  25% Completed | 1/4");
    });
    bench.after(5);
    assert_eq!(phase(&bench), "weights");
    let container = [("container", "big")];
    assert_eq!(bench.host.value("picket_vllm_loading_progress_ratio", &container), Some(0.25));
    assert_eq!(bench.host.value("picket_vllm_loading_seconds", &container), Some(605.0));
    bench.host.engine(|e| {
        e.log(&id(1), start + 312_000_000_000, "INFO:     Application startup complete.");
    });
    bench.serve(8000, IDLE);
    bench.after(5);
    // The page answers before the log is read again: running all the same.
    assert_eq!(bench.state("big"), "running");
    assert_eq!(phase(&bench), "");
    // A fresh instance reads once how long it took.
    bench.host = bench.host.restarted();
    bench.host.configure(&json!({})).unwrap();
    bench.after(5);
    assert_eq!(bench.host.value("picket_vllm_load_duration_seconds", &container), Some(312.0));
    bench.end(8000);
    bench.host = bench.host.restarted();
    bench.host.configure(&json!({})).unwrap();
    bench.after(5);
    assert_eq!(bench.state("big"), "down", "its log says that it was up");
}

/// A container that was started again keeps its log: what it said before it ended tells nothing of it now.
#[test]
fn an_earlier_lifes_lines_are_not_read_as_this_ones() {
    let start = STARTED as u64 * 1_000_000_000;
    let before = |seconds: f64| start - (seconds * 1e9) as u64;
    for (finished, said, phase) in [
        // The end came within the time by which a start may be noted late.
        (Some("2025-12-31T23:49:58Z"), before(2.5), "starting"),
        (Some("2025-12-31T23:49:58Z"), before(1.5), "weights"),
        // It never ran before, as an engine says it.
        (Some("0001-01-01T00:00:00Z"), before(9.5), "weights"),
        (None, before(9.5), "weights"),
        (None, before(10.5), "starting"),
    ] {
        let mut bench = Bench::new(json!({}));
        let mut again = container(1, "a", 8000);
        if let Some(finished) = finished {
            again["State"]["FinishedAt"] = json!(finished);
        }
        bench.host.engine(|e| {
            e.container(again);
            e.log(&id(1), said, "Starting to load model m...");
        });
        bench.collect();
        assert_eq!(bench.state("a"), "loading");
        assert_eq!(bench.one_of("picket_vllm_loading_phase", "a", "phase"), phase, "{finished:?} {said}");
    }
}

#[test]
fn stuck_is_said_once_and_ended_once() {
    let mut bench = Bench::new(json!({}));
    bench.serve(8000, BUSY);
    bench.host.engine(|e| {
        e.container(container(1, "a", 8000));
    });
    bench.collect();
    for _ in 0..5 {
        bench.after(5);
        assert_eq!(bench.state("a"), "running");
    }
    bench.after(5);
    assert_eq!(bench.state("a"), "stuck", "/health says 200");
    // A fresh instance does not say it again, and ends what the old one began.
    bench.host = bench.host.restarted();
    bench.host.configure(&json!({})).unwrap();
    for _ in 0..8 {
        bench.after(5);
    }
    assert_eq!(bench.state("a"), "stuck");
    bench.serve(8000, AFTER);
    bench.after(5);
    assert_eq!(bench.state("a"), "running");
    let events = bench.host.take_events();
    let shown: Vec<String> = events.iter().map(|e| format!("{e:?}")).collect();
    assert_eq!(events.len(), 1, "the end: {shown:?}");
    assert!(shown[0].contains("clear: true") && shown[0].contains("vllm.stuck"), "{shown:?}");
}

/// Each bad server with its reason and state; the good one beside it is never touched.
#[test]
fn a_bad_server_is_its_own_trouble() {
    let repeated = "# TYPE vllm:x counter\nvllm:x 1\nvllm:x 2\n";
    let retyped = "# TYPE vllm:num_requests_running counter\nvllm:num_requests_running{engine=\"0\"} 1\n";
    let redirect = Ok(Response {
        status: 307,
        headers: vec![("location".to_owned(), "http://169.254.169.254/latest/meta-data".to_owned())],
        body: Vec::new(),
    });
    let not_utf8 = Ok(Response {
        status: 200,
        headers: Vec::new(),
        body: b"vllm:good 1\nvllm:bad{a=\"\xff\xfe\"} 1\n".to_vec(),
    });
    let timed_out = || Err(HttpError::TimedOut("no whole answer within 2000 ms".to_owned()));
    for (name, answer, state, reason) in [
        ("killed", Err(HttpError::Unreachable("refused".to_owned())), "unreachable", "unreachable"),
        ("hung", timed_out(), "slow", "timed-out"),
        ("a byte a second", timed_out(), "slow", "timed-out"),
        ("500", text(500, "text/plain", "boom"), "refusing", "status"),
        ("html", text(200, "text/html", "<html>"), "malformed", "malformed"),
        ("html as text", page("<!doctype html>\n<p>hello\n"), "malformed", "malformed"),
        ("1 GB", Err(HttpError::TooLarge("longer than 8388608 bytes".to_owned())), "malformed", "too-large"),
        ("no http", Err(HttpError::Malformed("invalid".to_owned())), "malformed", "malformed"),
        ("redirect", redirect, "refusing", "redirect"),
        ("not utf-8", not_utf8, "ok", "utf8"),
        ("duplicate series", page(repeated), "ok", "duplicate"),
        ("type change", page(retyped), "ok", "type-changed"),
        (
            "counter back",
            page(
                "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{engine=\"0\",model_name=\"tiny-llama\"} 1\n",
            ),
            "ok",
            "reset",
        ),
        ("denied", Err(HttpError::Denied("no rule".to_owned())), "denied", "denied"),
    ] {
        let mut bench = Bench::new(json!({}));
        bench.serve(8000, BUSY);
        bench.serve(8001, BUSY);
        bench.host.engine(|e| {
            e.container(container(1, "good", 8000));
            e.container(container(2, "bad", 8001));
        });
        bench.collect();
        assert_eq!(bench.host.failures(), [], "{name}");
        let good = |bench: &Bench| {
            let of = |s: &&picket_sdk::testing::Sample| s.label("container") == Some("good");
            bench.host.samples().iter().filter(of).cloned().collect::<Vec<_>>()
        };
        let before = good(&bench);
        bench.answer("http://127.0.0.1:8001/metrics", answer);
        bench.after(5);
        assert!(bench.reasons().contains(&reason.to_owned()), "{name}: {:?}", bench.host.failures());
        assert_eq!(bench.one_of("picket_vllm_endpoint_state", "bad", "state"), state, "{name}");
        assert_eq!(good(&bench), before, "{name}");
        if state != "ok" {
            let stale = bench
                .host
                .samples()
                .into_iter()
                .find(|s| s.name.starts_with("vllm:") && s.label("container") == Some("bad"));
            assert_eq!(stale, None, "{name}: nothing freezes at its last value");
        }
    }
}

#[test]
fn an_engine_that_stops_takes_no_server_with_it() {
    let mut bench = Bench::new(json!({}));
    bench.serve(8000, IDLE);
    bench.host.engine(|e| {
        e.container(container(1, "a", 8000));
    });
    bench.collect();
    bench.host.engine(|e| {
        e.broken(Some(ContainersError::Unreachable("nothing listens".to_owned())));
    });
    bench.after(5);
    assert_eq!(bench.reasons(), ["unreachable"]);
    assert_eq!(bench.state("a"), "running", "it answers, whatever its engine does");
    let socket = [("socket", "/run/docker.sock"), ("state", "unreachable")];
    assert_eq!(bench.host.value("picket_container_engine_state", &socket), Some(1.0));
    bench.host.engine(|e| {
        e.broken(None);
    });
    bench.after(5);
    assert_eq!(bench.reasons(), Vec::<String>::new());
    assert_eq!(bench.host.take_events(), []);
}

#[test]
fn a_node_without_an_engine() {
    let mut bench = Bench::new(json!({ "endpoints": [{ "url": "http://127.0.0.1:8000", "gpu": "3" }] }));
    bench.serve(8000, IDLE);
    bench.host.engine(|e| {
        e.broken(Some(ContainersError::Absent("/run/docker.sock: there is no socket".to_owned())));
    });
    bench.collect();
    assert_eq!(bench.reasons(), Vec::<String>::new(), "a node without Docker is no error");
    assert_eq!(bench.state("127.0.0.1:8000"), "running");
    let labels = [
        ("container", "127.0.0.1:8000"),
        ("engine", "0"),
        ("gpu", "3"),
        ("model", "tiny-llama"),
        ("model_name", "tiny-llama"),
    ];
    assert_eq!(bench.host.value("vllm:num_requests_running", &labels), Some(0.0));
    assert!(bench.host.value("picket_vllm_start_time_seconds", &[("container", "127.0.0.1:8000")]).is_some());
    bench.end(8000);
    bench.after(5);
    assert_eq!(bench.state("127.0.0.1:8000"), "down");
}

#[test]
fn old_names_where_they_are_wanted() {
    let mut bench = Bench::new(
        json!({ "aliases": true, "endpoints": [{ "url": "http://127.0.0.1:8000", "name": "s" }] }),
    );
    bench.serve(8000, BUSY);
    bench.collect();
    let page = bench.host.text();
    for (old, new) in [
        ("vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
        ("vllm:gpu_prefix_cache_hits_total", "vllm:prefix_cache_hits_total"),
        ("vllm:gpu_prefix_cache_queries_total", "vllm:prefix_cache_queries_total"),
        ("vllm:time_per_output_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket"),
    ] {
        let lines = |name: &str| -> Vec<String> {
            let start = format!("{name}{{");
            page.lines().filter_map(|l| l.strip_prefix(&start)).map(str::to_owned).collect()
        };
        assert!(!lines(old).is_empty() && lines(old) == lines(new), "{old}");
    }
}

#[test]
fn a_server_that_wants_a_key() {
    let mut bench = Bench::new(json!({}));
    bench.serve(8000, IDLE);
    bench.answer(
        "http://127.0.0.1:8000/v1/models",
        text(401, "application/json", r#"{"error":"Unauthorized"}"#),
    );
    bench.host.engine(|e| {
        e.container(container(1, "a", 8000));
    });
    bench.collect();
    assert_eq!(bench.state("a"), "running");
    let model = bench.host.samples().into_iter().find(|s| s.name == "vllm:num_requests_running");
    assert_eq!(model.unwrap().label("model"), Some("org/model"), "by its command line");
}
