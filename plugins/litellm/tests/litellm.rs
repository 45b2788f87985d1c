//! The plugin against recorded answers of a real proxy, and answers made after the shape of the Hugging Face API.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use picket_plugin_litellm::LiteLlm;
use picket_sdk::http::{HttpError, Request, Response};
use picket_sdk::testing::Host;
use serde_json::{Value, json};

const METRICS: &str = include_str!("../../../sdk/tests/pages/litellm.txt");
const MODELS: &str = include_str!("answers/model_info.json");
const READY: &str = include_str!("answers/health_readiness.json");
const ALIVE: &str = include_str!("answers/health_liveliness.txt");
const UNAUTHORIZED: &str = include_str!("answers/unauthorized.json");
const HUB: &str = include_str!("answers/hub.json");
const PROXY: &str = "http://127.0.0.1:4000";

type Answer = Result<Response, HttpError>;

/// What the network does, and what it was asked.
#[derive(Default)]
struct Net {
    asked: Vec<Request>,
    /// By address; what is not here is unreachable.
    answers: BTreeMap<String, Answer>,
    /// In place of all of the hub's.
    hub: Option<Answer>,
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    status(200, body)
}

fn status(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Ok(Response { status, headers: Vec::new(), body: body.into() })
}

fn redirect(to: &str) -> Answer {
    Ok(Response { status: 307, headers: vec![("Location".to_owned(), to.to_owned())], body: Vec::new() })
}

struct Bench {
    host: Host<LiteLlm>,
    net: Rc<RefCell<Net>>,
}

impl Bench {
    fn new(settings: Value) -> Self {
        let net = Rc::new(RefCell::new(Net::default()));
        let mut bench = Self { host: Host::new(), net };
        bench.connect();
        bench.set("/metrics", redirect("/metrics/"));
        bench.set("/metrics/", ok(METRICS));
        bench.set("/model/info", ok(MODELS));
        bench.set("/health/readiness", ok(READY));
        bench.set("/health/liveliness", ok(ALIVE));
        bench.host.store_bytes(262_144);
        bench.host.configure(&settings).unwrap();
        bench
    }

    fn connect(&mut self) {
        let net = self.net.clone();
        self.host.http(move |request| {
            let mut net = net.borrow_mut();
            net.asked.push(request.clone());
            if let Some(answer) = net.hub.clone().filter(|_| request.url().contains("huggingface")) {
                return answer;
            }
            let unreachable = || Err(HttpError::Unreachable(request.url().to_owned()));
            net.answers.get(request.url()).cloned().unwrap_or_else(unreachable)
        });
    }

    fn set(&self, path: &str, answer: Answer) {
        self.net.borrow_mut().answers.insert(format!("{PROXY}{path}"), answer);
    }

    /// A collect, `seconds` after the last.
    fn after(&mut self, seconds: u64) {
        self.host.advance(Duration::from_secs(seconds));
        self.host.collect().unwrap();
    }

    fn asked(&self) -> Vec<String> {
        self.net.borrow_mut().asked.drain(..).map(|r| r.url().to_owned()).collect()
    }

    fn reasons(&self) -> Vec<String> {
        self.host.failures().into_iter().map(|(reason, _)| reason).collect()
    }

    /// Which state of a state set is 1.
    fn state(&self, family: &str, labels: &[(&str, &str)]) -> Option<String> {
        let samples = self.host.samples();
        let one = samples.into_iter().find(|s| {
            s.name == family && s.value == 1.0 && labels.iter().all(|(n, v)| s.label(n) == Some(v))
        })?;
        one.label("state").map(str::to_owned)
    }

    fn proxy_state(&self) -> Option<String> {
        self.state("picket_litellm_state", &[("endpoint", PROXY)])
    }
}

fn no_hub() -> Value {
    json!({"hub": {"enabled": false}})
}

#[test]
fn a_real_proxys_page_is_passed_through_and_its_models_are_listed() {
    let mut bench = Bench::new(no_hub());
    bench.after(0);
    assert_eq!(bench.host.failures(), []);
    let lines = METRICS.lines().filter(|l| l.starts_with("litellm_")).count();
    let passed = bench.host.samples().iter().filter(|s| s.name.starts_with("litellm_")).count();
    assert_eq!(passed, lines);
    assert!(bench.host.samples().iter().all(|s| !s.name.starts_with("python_")));
    assert_eq!(bench.proxy_state().as_deref(), Some("up"));
    assert_eq!(bench.host.value("picket_litellm_ready", &[("endpoint", PROXY)]), Some(1.0));
    assert_eq!(bench.host.value("picket_litellm_alive", &[("endpoint", PROXY)]), Some(1.0));
    for (model, endpoint) in [
        ("llama-3-70b", "http://127.0.0.1:18000/v1"),
        ("gpt-4o", "http://127.0.0.1:18001/v1"),
        ("dead", "http://127.0.0.1:18002/v1"),
    ] {
        let labels = [("model", model), ("endpoint", endpoint)];
        assert_eq!(bench.state("picket_model_state", &labels).as_deref(), Some("available"), "{model}");
        let info = [("model", model), ("type", "llm"), ("endpoint", endpoint)];
        assert_eq!(bench.host.value("picket_model_info", &info), Some(1.0), "{model}");
    }
}

/// `/health` sends a request to every model, which somebody pays for.
#[test]
fn the_billed_health_check_is_never_asked_for() {
    let mut bench = Bench::new(json!({}));
    for failing in [false, true] {
        for _ in 0..20 {
            bench.after(15);
        }
        if !failing {
            bench.net.borrow_mut().answers.clear();
        }
    }
    let asked = bench.asked();
    assert!(asked.len() > 40, "{}", asked.len());
    for url in asked {
        let path = url.strip_prefix(PROXY).unwrap_or(&url);
        let path = path.split('?').next().unwrap();
        assert_ne!(path.trim_end_matches('/'), "/health", "{url}");
        let known = ["/metrics", "/metrics/", "/model/info", "/health/readiness", "/health/liveliness"];
        assert!(known.contains(&path), "{url}");
    }
}

#[test]
fn a_redirect_is_followed_once_and_within_the_proxy_only() {
    let mut bench = Bench::new(json!({"secret": "litellm", "hub": {"enabled": false}}));
    bench.after(0);
    bench.after(15);
    let asked = bench.asked();
    let metrics: Vec<&String> = asked.iter().filter(|u| u.contains("/metrics")).collect();
    // The second time it is asked where it was found.
    assert_eq!(
        metrics,
        ["http://127.0.0.1:4000/metrics", "http://127.0.0.1:4000/metrics/", "http://127.0.0.1:4000/metrics/"]
    );

    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "//169.254.169.254/",
        "https://127.0.0.1:4000/",
        "file:///etc/passwd",
    ] {
        let mut bench = Bench::new(no_hub());
        bench.set("/metrics", redirect(to));
        bench.after(0);
        assert_eq!(bench.reasons(), ["redirect"], "{to}");
        assert_eq!(bench.proxy_state().as_deref(), Some("refusing"));
        assert!(bench.asked().iter().all(|url| url.starts_with(PROXY)), "{to}");
        // The other answers are not lost by it.
        assert_eq!(bench.host.value("picket_litellm_ready", &[("endpoint", PROXY)]), Some(1.0));
    }
    // One that goes round and round.
    let mut bench = Bench::new(no_hub());
    bench.set("/metrics/", redirect("/metrics"));
    bench.after(0);
    assert_eq!(bench.proxy_state().as_deref(), Some("refusing"));
    assert!(bench.asked().len() < 8);
}

#[test]
fn what_is_wrong_with_the_proxy_is_its_state_and_counted_by_reason() {
    let gone = HttpError::Unreachable("refused".to_owned());
    for (answer, state, reason) in [
        (Err(gone), "unreachable", "unreachable"),
        (Err(HttpError::TimedOut("slow".to_owned())), "slow", "timed-out"),
        (Err(HttpError::TooLarge("1 GB".to_owned())), "malformed", "too-large"),
        (Err(HttpError::Malformed("no HTTP".to_owned())), "malformed", "malformed"),
        (Err(HttpError::Denied("no grant".to_owned())), "refusing", "denied"),
        (Err(HttpError::Tls("who is that".to_owned())), "refusing", "tls"),
        (status(500, UNAUTHORIZED), "refusing", "status"),
        (status(401, "{}"), "refusing", "status"),
        (ok("<html><body>Sign in</body></html>\n"), "malformed", "malformed"),
        (ok(b"\xff\xfe\xfd\n".as_slice()), "malformed", "malformed"),
        (ok("litellm_x{a=\"1\"} 1\nlitellm_x{a=\"1\"} 2\n"), "up", "duplicate"),
        (ok("litellm_x{a=\"\u{fffd}\"} 1\nlitellm_y nonsense\n"), "up", "malformed"),
    ] {
        let mut bench = Bench::new(no_hub());
        bench.set("/metrics", answer.clone());
        bench.after(0);
        assert_eq!(bench.proxy_state().as_deref(), Some(state), "{answer:?}");
        assert_eq!(bench.reasons(), [reason], "{answer:?}");
        // The rest is as it was.
        assert_eq!(bench.host.value("picket_litellm_alive", &[("endpoint", PROXY)]), Some(1.0));
        let status = if state == "up" { "available" } else { "error" };
        assert_eq!(bench.state("picket_model_state", &[("model", "gpt-4o")]).as_deref(), Some(status));
    }
}

#[test]
fn a_model_whose_deployments_are_all_out_is_an_error() {
    let mut bench = Bench::new(no_hub());
    let dead = "model_id=\"fae4c70929bb94d374f20aff31cf2fe39397c47e6dd16bbe3d106b74832b35c0\"} 1.0";
    assert!(METRICS.contains(&format!("litellm_model_name=\"dead\",{dead}")));
    let page = METRICS.replace(
        &format!("litellm_model_name=\"dead\",{dead}"),
        &format!("litellm_model_name=\"dead\",{}", dead.replace("} 1.0", "} 2.0")),
    );
    bench.set("/metrics/", ok(page));
    bench.after(0);
    assert_eq!(bench.state("picket_model_state", &[("model", "dead")]).as_deref(), Some("error"));
    assert_eq!(bench.state("picket_model_state", &[("model", "gpt-4o")]).as_deref(), Some("available"));
}

/// A page as LiteLLM writes it, of one model.
fn page(requests: f64, failed: f64, input: f64, output: f64, sum: f64, count: f64) -> String {
    format!(
        "# TYPE litellm_proxy_total_requests_metric_total counter\n\
         litellm_proxy_total_requests_metric_total{{requested_model=\"gpt-4o\",status_code=\"200\"}} {requests}\n\
         litellm_proxy_total_requests_metric_total{{requested_model=\"gpt-4o\",status_code=\"500\"}} {failed}\n\
         litellm_proxy_total_requests_metric_total{{requested_model=\"made-up\",status_code=\"400\"}} {requests}\n\
         litellm_proxy_total_requests_metric_total{{requested_model=\"\",status_code=\"200\"}} {requests}\n\
         # TYPE litellm_proxy_failed_requests_metric_total counter\n\
         litellm_proxy_failed_requests_metric_total{{requested_model=\"gpt-4o\"}} {failed}\n\
         # TYPE litellm_input_tokens_metric_total counter\n\
         litellm_input_tokens_metric_total{{requested_model=\"gpt-4o\"}} {input}\n\
         # TYPE litellm_output_tokens_metric_total counter\n\
         litellm_output_tokens_metric_total{{requested_model=\"gpt-4o\"}} {output}\n\
         # TYPE litellm_request_total_latency_metric histogram\n\
         litellm_request_total_latency_metric_bucket{{requested_model=\"gpt-4o\",le=\"+Inf\"}} {count}\n\
         litellm_request_total_latency_metric_sum{{requested_model=\"gpt-4o\"}} {sum}\n\
         litellm_request_total_latency_metric_count{{requested_model=\"gpt-4o\"}} {count}\n"
    )
}

#[test]
fn rates_are_those_of_the_last_minute_over_restarts_of_the_proxy() {
    let mut bench = Bench::new(no_hub());
    let labels = [("model", "gpt-4o"), ("type", "llm")];
    let rates = |bench: &Bench| {
        [
            "requests_per_minute",
            "errors_per_minute",
            "tokens_input_per_minute",
            "tokens_output_per_minute",
            "latency_ms",
        ]
        .map(|name| bench.host.value(&format!("llm_model_{name}"), &labels))
    };
    bench.set("/metrics", ok(page(100.0, 10.0, 1000.0, 2000.0, 50.0, 100.0)));
    bench.after(0);
    assert_eq!(rates(&bench), [None; 5]);
    bench.set("/metrics", ok(page(120.0, 12.0, 1100.0, 2400.0, 60.0, 120.0)));
    bench.after(30);
    assert_eq!(rates(&bench), [Some(44.0), Some(4.0), Some(200.0), Some(800.0), Some(500.0)]);
    assert!(bench.host.samples().iter().all(|s| s.label("model") != Some("made-up")));
    // Restarted: 8 requests since, none of them negative. The page's own counters go back, and that is counted.
    bench.set("/metrics", ok(page(8.0, 0.0, 10.0, 20.0, 4.0, 8.0)));
    bench.after(30);
    assert_eq!(rates(&bench), [Some(30.0), Some(2.0), Some(110.0), Some(420.0), Some(500.0)]);
    assert_eq!(bench.reasons(), ["reset"]);
    let passed = [("requested_model", "gpt-4o"), ("status_code", "200")];
    assert_eq!(bench.host.value("litellm_proxy_total_requests_metric_total", &passed), Some(8.0));
    // Down for a while: no made-up zero.
    bench.set("/metrics", Err(HttpError::Unreachable(String::new())));
    bench.after(30);
    assert_eq!(rates(&bench), [None; 5]);
    // Nobody asks anything: no latency.
    for _ in 0..6 {
        bench.set("/metrics", ok(page(8.0, 0.0, 10.0, 20.0, 4.0, 8.0)));
        bench.after(15);
    }
    assert_eq!(rates(&bench), [Some(0.0), Some(0.0), Some(0.0), Some(0.0), None]);
}

// --- the hub -------------------------------------------------------------------------------------------------------

fn hub() -> BTreeMap<String, Value> {
    serde_json::from_str(HUB).unwrap()
}

/// A proxy with one deployment of each of the hub's models, and of those named.
fn with_models(names: &[&str]) -> Bench {
    let mut bench = Bench::new(json!({}));
    let data: Vec<Value> = names
        .iter()
        .map(|id| {
            json!({"model_name": id.to_lowercase(), "litellm_params": {"model": format!("hosted_vllm/{id}")},
                "model_info": {"id": id, "mode": "chat"}})
        })
        .collect();
    bench.set("/model/info", ok(json!({"data": data}).to_string()));
    for (id, model) in hub() {
        let url = format!("https://huggingface.co/api/models/{id}");
        let tree = match &model["tree"] {
            Value::Null => status(500, "{\"error\":\"Internal\"}"),
            tree => ok(tree.to_string()),
        };
        let mut net = bench.net.borrow_mut();
        net.answers.insert(format!("{url}/tree/main"), tree);
        net.answers.insert(url, ok(model["info"].to_string()));
    }
    bench.host.collect().unwrap();
    bench.asked();
    bench
}

fn hub_requests(bench: &Bench) -> usize {
    bench.asked().iter().filter(|url| url.contains("huggingface")).count()
}

#[test]
fn seven_real_models_of_the_hub_in_answers_made_after_its_documented_shape() {
    let models = hub();
    let names: Vec<&str> = models.keys().map(String::as_str).collect();
    let mut bench = with_models(&names);
    for _ in 0..3 {
        bench.after(15);
    }
    assert_eq!(bench.host.failures(), []);
    assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some("ok"));
    for (id, model) in &models {
        let (name, expect) = (id.to_lowercase(), &model["expect"]);
        let value = |family: &str| bench.host.value(family, &[("model", name.as_str())]);
        assert_eq!(value("picket_model_size_bytes"), expect["size"].as_f64(), "{id}");
        assert_eq!(value("picket_model_downloads"), expect["downloads"].as_f64(), "{id}");
        assert_eq!(value("picket_model_parameters"), expect["parameters"].as_f64(), "{id}");
        let samples = bench.host.samples();
        let info = samples
            .iter()
            .find(|s| s.name == "picket_model_info" && s.label("model") == Some(&name))
            .unwrap();
        for (label, key) in [
            ("license", "license"),
            ("quantization", "quantization"),
            ("access", "access"),
            ("size_source", "source"),
        ] {
            assert_eq!(info.label(label).unwrap_or_default(), expect[key].as_str().unwrap(), "{id}: {label}");
        }
        assert_eq!(info.label("hub_id"), Some(id.as_str()));
    }
}

#[test]
fn what_the_hub_said_is_kept_for_a_day_and_over_restarts() {
    let mut bench = with_models(&["Qwen/Qwen3-8B"]);
    let name = [("model", "qwen/qwen3-8b")];
    assert_eq!(bench.host.value("picket_model_downloads", &name), Some(2_143_567.0));
    for _ in 0..10 {
        bench.after(3600);
    }
    assert_eq!(hub_requests(&bench), 0);
    assert_eq!(bench.host.value("picket_model_metadata_age_seconds", &name), Some(36_000.0));
    // Another instance finds it on disk.
    bench.host = bench.host.restarted();
    bench.host.configure(&json!({})).unwrap();
    bench.after(15);
    assert_eq!(hub_requests(&bench), 0);
    assert_eq!(bench.host.value("picket_model_downloads", &name), Some(2_143_567.0));
    bench.after(14 * 3600);
    assert_eq!(hub_requests(&bench), 2);
    assert_eq!(bench.host.value("picket_model_metadata_age_seconds", &name), Some(0.0));
}

#[test]
fn models_that_are_absent_gated_or_private_are_no_failure_and_kept_too() {
    for (code, access) in [(404, "absent"), (401, "restricted"), (403, "gated")] {
        let mut bench = with_models(&[]);
        let data =
            json!({"data": [{"model_name": "m", "litellm_params": {"model": "vllm/o/n"}, "model_info": {}}]});
        bench.set("/model/info", ok(data.to_string()));
        bench.net.borrow_mut().hub = Some(status(code, "{\"error\":\"Repository not found\"}"));
        bench.after(60);
        assert_eq!(bench.host.failures(), [], "{code}");
        assert_eq!(hub_requests(&bench), 2);
        let samples = bench.host.samples();
        let info = samples.iter().find(|s| s.name == "picket_model_info").unwrap();
        assert_eq!(info.label("access"), Some(access));
        assert!(samples.iter().all(|s| s.name != "picket_model_size_bytes"), "no size was made up");
        bench.after(12 * 3600);
        assert_eq!(hub_requests(&bench), 0, "{code}");
        bench.after(13 * 3600);
        assert_eq!(hub_requests(&bench), 2, "{code}");
    }
}

#[test]
fn a_429_is_obeyed_over_restarts() {
    let limited = |after: &str| {
        Ok(Response {
            status: 429,
            headers: vec![("Retry-After".to_owned(), after.to_owned())],
            body: Vec::new(),
        })
    };
    // The clock begins at 2026-01-01T00:00:00Z.
    for (header, seconds) in [("900", 900), ("Thu, 01 Jan 2026 00:16:00 GMT", 900), ("soon", 300)] {
        let mut bench = with_models(&[]);
        let data = json!({"data": [{"model_name": "m", "litellm_params": {"model": "vllm/Qwen/Qwen3-8B"}, "model_info": {}}]});
        bench.set("/model/info", ok(data.to_string()));
        bench.net.borrow_mut().hub = Some(limited(header));
        bench.after(60);
        assert_eq!(bench.reasons(), ["rate-limited"], "{header}");
        assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some("rate-limited"));
        assert_eq!(hub_requests(&bench), 2);
        bench.host = bench.host.restarted();
        bench.host.configure(&json!({})).unwrap();
        bench.net.borrow_mut().hub = None;
        bench.after(seconds - 1);
        assert_eq!((hub_requests(&bench), bench.reasons().len()), (0, 0), "{header}");
        bench.after(1);
        assert_eq!(hub_requests(&bench), 2, "{header}");
        assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some("ok"));
    }
}

#[test]
fn an_hour_has_a_budget_and_restarts_do_not_mend_it() {
    let mut bench = with_models(&[]);
    let settings = json!({"hub": {"requests_per_hour": 10}});
    bench.host.configure(&settings).unwrap();
    let data: Vec<Value> = (0..9)
        .map(|i| json!({"model_name": format!("m{i}"), "litellm_params": {"model": format!("vllm/o/m{i}")}, "model_info": {}}))
        .collect();
    bench.set("/model/info", ok(json!({"data": data}).to_string()));
    bench.net.borrow_mut().hub = Some(status(404, "{}"));
    for _ in 0..6 {
        bench.after(60);
        bench.host = bench.host.restarted();
        bench.host.configure(&settings).unwrap();
    }
    assert_eq!(hub_requests(&bench), 10);
    bench.after(60);
    assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some("over-budget"));
    assert_eq!(bench.host.value("picket_model_hub_requests_left", &[]), Some(0.0));
    assert_eq!(bench.host.failures(), []);
    bench.after(3600);
    bench.after(60);
    assert_eq!(hub_requests(&bench), 8);
    assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some("ok"));
}

#[test]
fn a_hub_that_cannot_be_reached_is_said_and_costs_nothing_that_was_known() {
    let mut bench = with_models(&["Qwen/Qwen3-8B"]);
    let name = [("model", "qwen/qwen3-8b")];
    for (answer, state, reason) in [
        (Err(HttpError::Unreachable("no route".to_owned())), "unreachable", "unreachable"),
        (Err(HttpError::Denied("not granted".to_owned())), "refusing", "denied"),
        (Err(HttpError::TimedOut("slow".to_owned())), "slow", "timed-out"),
        (status(503, "down"), "refusing", "status"),
        (ok("<html>proxy of the house</html>"), "malformed", "malformed"),
    ] {
        bench.net.borrow_mut().hub = Some(answer);
        bench.after(24 * 3600);
        assert_eq!(bench.reasons(), [reason]);
        assert_eq!(bench.state("picket_model_hub_state", &[]).as_deref(), Some(state));
        assert_eq!(bench.host.value("picket_model_downloads", &name), Some(2_143_567.0), "{state}");
        // Not asked in every collect.
        bench.asked();
        for _ in 0..3 {
            bench.after(15);
        }
        assert_eq!(hub_requests(&bench), 0, "{state}");
        // The proxy is as it was.
        assert_eq!(bench.proxy_state().as_deref(), Some("up"));
    }
}

#[test]
fn a_renamed_model_is_followed_within_the_hub_only() {
    let mut bench = with_models(&[]);
    let data = json!({"data": [{"model_name": "m", "litellm_params": {"model": "vllm/old/Qwen3-8B"}, "model_info": {}}]});
    bench.set("/model/info", ok(data.to_string()));
    {
        let mut net = bench.net.borrow_mut();
        let old = "https://huggingface.co/api/models/old/Qwen3-8B".to_owned();
        net.answers.insert(format!("{old}/tree/main"), redirect("/api/models/Qwen/Qwen3-8B/tree/main"));
        net.answers.insert(old, redirect("/api/models/Qwen/Qwen3-8B"));
    }
    bench.after(60);
    assert_eq!(bench.host.value("picket_model_downloads", &[("model", "m")]), Some(2_143_567.0));
    assert_eq!(hub_requests(&bench), 4);
    assert_eq!(bench.host.value("picket_model_hub_requests_left", &[]), Some(996.0));
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    for settings in [
        json!({"url": "127.0.0.1:4000"}),
        json!({"hub": {"url": "ftp://x"}}),
        json!({"families": ["lite(llm"]}),
        json!({"hub": {"requests_per_hour": 1}}),
        json!({"nonsense": 1}),
    ] {
        assert_eq!(Host::<LiteLlm>::new().configure(&settings).unwrap_err().reason, "settings", "{settings}");
    }
}
