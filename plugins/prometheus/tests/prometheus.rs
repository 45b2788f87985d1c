//! The plugin with exporters, discovery files and text files that the test makes.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use picket_plugin_prometheus::Prometheus;
use picket_sdk::files::FilesError;
use picket_sdk::http::{HttpError, Request, Response};
use picket_sdk::testing::Host;
use serde_json::{Value, json};

type Answer = Result<Response, HttpError>;

#[derive(Default)]
struct Net {
    asked: Vec<Request>,
    answers: BTreeMap<String, Answer>,
}

struct Bench {
    host: Host<Prometheus>,
    net: Rc<RefCell<Net>>,
}

fn ok(body: impl Into<Vec<u8>>) -> Answer {
    Ok(Response { status: 200, headers: Vec::new(), body: body.into() })
}

impl Bench {
    fn new(settings: Value) -> Self {
        let net = Rc::new(RefCell::new(Net::default()));
        let mut host = Host::new();
        let world = net.clone();
        host.http(move |request: &Request| {
            let mut net = world.borrow_mut();
            net.asked.push(request.clone());
            let unreachable = || Err(HttpError::Unreachable(request.url().to_owned()));
            net.answers.get(request.url()).cloned().unwrap_or_else(unreachable)
        });
        host.configure(&settings).unwrap();
        Self { host, net }
    }

    fn set(&self, url: &str, answer: Answer) {
        self.net.borrow_mut().answers.insert(url.to_owned(), answer);
    }

    fn collect(&mut self) {
        self.host.advance(Duration::from_secs(15));
        self.host.collect().unwrap();
    }

    fn asked(&self) -> Vec<String> {
        self.net.borrow_mut().asked.drain(..).map(|r| r.url().to_owned()).collect()
    }

    fn reasons(&self) -> Vec<String> {
        self.host.failures().into_iter().map(|(reason, _)| reason).collect()
    }

    fn state(&self, target: &str) -> String {
        let samples = self.host.samples();
        let found = samples
            .iter()
            .find(|s| s.name == "picket_scrape_state" && s.label("target") == Some(target) && s.value == 1.0);
        found.and_then(|s| s.label("state")).unwrap_or_default().to_owned()
    }
}

fn one_job(targets: &[&str]) -> Value {
    json!({"jobs": [{"job_name": "app", "static_configs": [{"targets": targets, "labels": {"team": "a"}}]}]})
}

#[test]
fn series_get_job_and_target_and_lose_nothing() {
    let mut bench = Bench::new(one_job(&["127.0.0.1:9100", "http://127.0.0.1:9200/stats"]));
    bench.set(
        "http://127.0.0.1:9100/metrics",
        ok("# HELP x_total Things.\n# TYPE x_total counter\nx_total{job=\"own\",instance=\"i\"} 5\n"),
    );
    bench.set("http://127.0.0.1:9200/stats", ok("# TYPE y gauge\ny 1 1767225600000\n"));
    bench.collect();
    assert_eq!(bench.host.failures(), []);
    // What the page says of itself stays.
    let labels = [("job", "own"), ("instance", "i"), ("team", "a"), ("target", "127.0.0.1:9100")];
    assert_eq!(bench.host.value("x_total", &labels), Some(5.0));
    let labels = [("job", "app"), ("team", "a"), ("target", "127.0.0.1:9200")];
    assert_eq!(bench.host.value("y", &labels), Some(1.0));
    let y = bench.host.samples().into_iter().find(|s| s.name == "y").unwrap();
    assert_eq!(y.time_ms, Some(1_767_225_600_000));
    for target in ["127.0.0.1:9100", "127.0.0.1:9200"] {
        let labels = [("job", "app"), ("target", target)];
        assert_eq!(bench.host.value("up", &labels), Some(1.0));
        assert_eq!(bench.host.value("scrape_samples_scraped", &labels), Some(1.0));
        assert!(bench.host.value("scrape_duration_seconds", &labels).is_some());
    }
    assert_eq!(bench.host.value("picket_prometheus_targets", &[("job", "app")]), Some(2.0));
}

#[test]
fn what_is_wrong_with_one_touches_no_other() {
    for (answer, state, reason) in [
        (Err(HttpError::Unreachable("refused".to_owned())), "unreachable", "unreachable"),
        (Err(HttpError::TimedOut("a byte a second".to_owned())), "slow", "timed-out"),
        (Err(HttpError::TooLarge("1 GB".to_owned())), "malformed", "too-large"),
        (Ok(Response { status: 500, ..Response::default() }), "refusing", "status"),
        (
            Ok(Response {
                status: 302,
                headers: vec![("location".to_owned(), "http://169.254.169.254/latest/meta-data/".to_owned())],
                body: Vec::new(),
            }),
            "refusing",
            "redirect",
        ),
        (ok("<html>sign in</html>\n"), "malformed", "malformed"),
        (ok(b"\xff\xff\xff\xff".repeat(1000)), "malformed", "malformed"),
        (ok("b 1\nb 2\n"), "up", "duplicate"),
        (ok("b{x=\"\u{1}\"} 1\nb{y=\"\"\n"), "up", "malformed"),
        (ok("# TYPE b gauge\nb 1\n# TYPE b counter\n"), "up", "type-changed"),
    ] {
        let mut bench = Bench::new(one_job(&["bad:1", "good:1"]));
        bench.set("http://bad:1/metrics", answer.clone());
        bench.set("http://good:1/metrics", ok("g 1\n"));
        for round in 0..2 {
            bench.collect();
            assert_eq!(bench.state("bad:1"), state, "{answer:?}");
            assert_eq!(bench.reasons(), [reason], "{answer:?} {round}");
            let up = f64::from(u8::from(state == "up"));
            assert_eq!(bench.host.value("up", &[("job", "app"), ("target", "bad:1")]), Some(up));
            let good = [("job", "app"), ("team", "a"), ("target", "good:1")];
            assert_eq!(bench.host.value("g", &good), Some(1.0), "{answer:?}");
            assert_eq!(bench.state("good:1"), "up");
        }
        assert!(bench.asked().iter().all(|url| !url.contains("169.254")), "the redirect was followed");
        // Back again, at the latest in the fourth round.
        bench.set("http://bad:1/metrics", ok("b 1\n"));
        for _ in 0..4 {
            bench.collect();
        }
        assert_eq!((bench.state("bad:1").as_str(), bench.reasons().len()), ("up", 0), "{answer:?}");
    }
}

/// Those that did not answer last time are asked after the others' pages are taken.
#[test]
fn a_target_in_trouble_is_asked_last_and_a_slow_one_not_always() {
    let mut bench = Bench::new(one_job(&["slow:1", "good:1"]));
    bench.set("http://slow:1/metrics", Err(HttpError::TimedOut("2 s".to_owned())));
    bench.set("http://good:1/metrics", ok("g 1\n"));
    bench.collect();
    assert_eq!(bench.asked(), ["http://slow:1/metrics", "http://good:1/metrics"]);
    bench.collect();
    assert_eq!(bench.asked(), ["http://good:1/metrics", "http://slow:1/metrics"]);
    let mut slow = 0;
    for _ in 0..20 {
        bench.collect();
        let asked = bench.asked();
        assert_eq!(asked[0], "http://good:1/metrics");
        slow += asked.len() - 1;
        assert_eq!(bench.state("slow:1"), "slow");
        assert_eq!(bench.host.value("up", &[("job", "app"), ("target", "slow:1")]), Some(0.0));
    }
    assert_eq!(slow, 5);
}

#[test]
fn a_counter_that_goes_back_is_passed_on_and_counted() {
    let mut bench = Bench::new(one_job(&["a:1"]));
    let labels = [("job", "app"), ("team", "a"), ("target", "a:1")];
    for (value, reasons) in [(9.0, vec![]), (2.0, vec!["reset"]), (3.0, vec![])] {
        bench.set("http://a:1/metrics", ok(format!("# TYPE n_total counter\nn_total {value}\n")));
        bench.collect();
        assert_eq!(bench.host.value("n_total", &labels), Some(value));
        assert_eq!(bench.reasons(), reasons);
    }
}

#[test]
fn discovery_files_are_followed_and_a_broken_one_changes_nothing() {
    let mut bench = Bench::new(json!({"discovery_seconds": 15, "jobs": [{
        "job_name": "found", "file_sd_configs": [{"files": ["/etc/sd/*.json"]}],
        "relabel_configs": [
            {"source_labels": ["__meta_zone"], "regex": "none", "action": "drop"},
            {"source_labels": ["zone"], "regex": "far", "action": "drop"},
            {"source_labels": ["port"], "regex": "(.+)", "target_label": "__address__", "replacement": "10.0.0.1:$1"},
            {"source_labels": ["path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {"regex": "port|path", "action": "labeldrop"}
        ],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": "go_.*", "action": "drop"}]
    }]}));
    bench.host.file(
        "/etc/sd/a.json",
        r#"[{"targets":["x"],"labels":{"port":"9000","path":"/m"}},{"targets":["y:1"],"labels":{"zone":"far"}},{"targets":["z:1","z:2"]}]"#,
    );
    bench.host.file("/etc/sd/ignored.yml", "- targets: []");
    bench.set("http://10.0.0.1:9000/m", ok("go_goroutines 7\nq 1\n"));
    bench.set("http://z:1/metrics", ok("q 2\n"));
    bench.set("http://z:2/metrics", ok("q 3\n"));
    bench.collect();
    let mut asked = bench.asked();
    asked.sort();
    assert_eq!(asked, ["http://10.0.0.1:9000/m", "http://z:1/metrics", "http://z:2/metrics"]);
    assert_eq!(bench.host.value("q", &[("job", "found"), ("target", "10.0.0.1:9000")]), Some(1.0));
    let of_target = [("job", "found"), ("target", "10.0.0.1:9000")];
    assert_eq!(bench.host.value("scrape_samples_scraped", &of_target), Some(2.0));
    assert_eq!(bench.host.value("scrape_samples_post_metric_relabeling", &of_target), Some(1.0));
    assert!(bench.host.samples().iter().all(|s| s.name != "go_goroutines"));
    assert_eq!(bench.host.failures(), []);

    bench.host.file("/etc/sd/a.json", "[{\"targets\":[\"half");
    bench.collect();
    assert_eq!(bench.reasons(), ["discovery"]);
    assert_eq!(bench.asked().len(), 3);

    bench.host.file("/etc/sd/a.json", r#"[{"targets":["z:2"]}]"#);
    bench.collect();
    assert_eq!(bench.asked(), ["http://z:2/metrics"]);
    assert_eq!(bench.host.value("q", &[("job", "found"), ("target", "z:2")]), Some(3.0));
    assert_eq!(bench.host.value("picket_prometheus_targets", &[("job", "found")]), Some(1.0));

    bench.host.broken_file("/etc/sd", FilesError::Denied("/etc/sd".to_owned()));
    bench.collect();
    assert_eq!(bench.reasons(), ["denied"]);
}

#[test]
fn targets_are_bounded() {
    let targets: Vec<String> = (0..20).map(|i| format!("h{i}:1")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let mut settings = one_job(&targets);
    settings["targets_limit"] = json!(5);
    settings["sample_limit"] = json!(2);
    let mut bench = Bench::new(settings);
    for i in 0..20 {
        bench.set(&format!("http://h{i}:1/metrics"), ok("a 1\nb 1\nc 1\n"));
    }
    bench.collect();
    assert_eq!(bench.asked().len(), 5);
    assert_eq!(bench.reasons(), ["too-many"; 6]);
    assert_eq!(bench.host.samples().iter().filter(|s| s.name == "a").count(), 5);
    assert!(bench.host.samples().iter().all(|s| s.name != "c"));
}

#[test]
fn more_targets_than_one_call_takes() {
    let targets: Vec<String> = (0..100).map(|i| format!("h{i}:1")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    let mut bench = Bench::new(one_job(&targets));
    for i in 0..100 {
        bench.set(&format!("http://h{i}:1/metrics"), ok("a 1\n"));
    }
    bench.collect();
    assert_eq!(bench.asked().len(), 100);
    assert_eq!(bench.host.samples().iter().filter(|s| s.name == "up" && s.value == 1.0).count(), 100);
}

#[test]
fn text_files_are_passed_on_with_what_node_exporter_says_of_them() {
    let mut bench = Bench::new(json!({"textfile_directories": ["/var/lib/text/"]}));
    let error = |bench: &Bench| bench.host.value("node_textfile_scrape_error", &[]);
    bench.host.file("/var/lib/text/backup.prom", "# TYPE backup_ok gauge\nbackup_ok{disk=\"a\"} 1\n");
    bench.host.file_modified("/var/lib/text/backup.prom", 1_700_000_000);
    bench.host.file("/var/lib/text/half.prom.tmp", "nonsense");
    bench.collect();
    assert_eq!(bench.host.failures(), []);
    assert_eq!(bench.host.value("backup_ok", &[("disk", "a")]), Some(1.0));
    let file = [("file", "/var/lib/text/backup.prom")];
    assert_eq!(bench.host.value("node_textfile_mtime_seconds", &file), Some(1_700_000_000.0));
    assert_eq!(error(&bench), Some(0.0));
    for (bad, reason) in [
        ("x{ 1\n", "malformed"),
        ("x 1\ny nonsense\n", "malformed"),
        ("x 1", "malformed"),
        ("x 1 1700000000000\n", "timestamp"),
    ] {
        bench.host.file("/var/lib/text/bad.prom", bad);
        bench.collect();
        assert_eq!(bench.reasons(), [reason], "{bad}");
        assert_eq!(error(&bench), Some(1.0), "{bad}");
        assert_eq!(bench.host.value("backup_ok", &[("disk", "a")]), Some(1.0), "{bad}");
    }
    bench.host.file("/var/lib/text/bad.prom", "good 1\n");
    bench.collect();
    assert_eq!((error(&bench), bench.host.value("good", &[])), (Some(0.0), Some(1.0)));
    bench.host.broken_file("/var/lib/text", FilesError::NotFound("/var/lib/text".to_owned()));
    bench.collect();
    assert_eq!((error(&bench), bench.reasons()), (Some(1.0), vec!["not-found".to_owned()]));
}

#[test]
fn settings_that_cannot_be_used_are_refused() {
    let job = |more: Value| {
        let mut job = json!({"job_name": "a", "static_configs": [{"targets": ["h:1"]}]});
        for (key, value) in more.as_object().unwrap() {
            job[key] = value.clone();
        }
        json!({"jobs": [job]})
    };
    for settings in [
        job(json!({"scheme": "ftp"})),
        job(json!({"metrics_path": "metrics"})),
        job(json!({"job_name": ""})),
        job(json!({"static_configs": []})),
        job(json!({"static_configs": [{"targets": ["h:1"], "labels": {"a-b": "c"}}]})),
        job(json!({"file_sd_configs": [{"files": ["/etc/*/x.json"]}]})),
        job(json!({"file_sd_configs": [{"files": ["targets.json"]}]})),
        job(json!({"metric_relabel_configs": [{"action": "keep", "regex": "("}]})),
        json!({"jobs": [{"job_name": "a", "static_configs": [{"targets": []}]}, {"job_name": "a", "static_configs": [{"targets": []}]}]}),
        json!({"textfile_directories": ["relative"]}),
        json!({"nonsense": 1}),
    ] {
        let refused = Host::<Prometheus>::new().configure(&settings);
        assert_eq!(refused.unwrap_err().reason, "settings", "{settings}");
    }
}
