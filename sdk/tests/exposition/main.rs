//! Pages are passed on as they are: the real ones of vLLM and LiteLLM, made ones, and broken ones.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

mod properties;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;

use picket_sdk::exposition::{Alias, Options, PageStats, Passthrough, Relabel, Watch, samples};
use picket_sdk::testing::Host;
use picket_sdk::{Collect, Describe, Failure, MetricType, NoSettings, Source, serde_json};

const VLLM: &[u8] = include_bytes!("../pages/vllm_busy.txt");
const LITELLM: &[u8] = include_bytes!("../pages/litellm.txt");

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts what this thread allocates.
struct Counting;

// SAFETY: hands everything on to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Pairs = Vec<(String, String)>;

/// A source that passes on the pages it is given.
struct Proxy {
    sources: Vec<(Passthrough, Vec<u8>, Pairs)>,
    stats: Vec<Result<PageStats, Failure>>,
    allocations: u64,
    seen: Seen,
}

/// Watches one name.
#[derive(Default)]
struct Seen {
    name: &'static str,
    asked: u32,
    values: Vec<(u32, f64)>,
}

impl Watch for Seen {
    fn slot(&mut self, name: &str, labels: &[(String, String)]) -> Option<u32> {
        (name == self.name && !labels.is_empty()).then(|| {
            self.asked += 1;
            self.asked - 1
        })
    }
    fn value(&mut self, slot: u32, value: f64) {
        self.values.push((slot, value));
    }
}

impl Source for Proxy {
    type Settings = NoSettings;

    fn describe(_: &mut Describe) -> Self {
        Self { sources: Vec::new(), stats: Vec::new(), allocations: 0, seen: Seen::default() }
    }

    fn collect(&mut self, c: &mut Collect<'_>) -> Result<(), Failure> {
        self.stats.clear();
        self.seen.values.clear();
        let before = ALLOCATIONS.with(Cell::get);
        for (pass, body, added) in &mut self.sources {
            let pairs: Vec<(&str, &str)> = added.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            self.stats.push(pass.watched(c, body, &pairs, &mut self.seen));
        }
        self.allocations = ALLOCATIONS.with(Cell::get) - before;
        Ok(())
    }
}

fn host(options: Options) -> Host<Proxy> {
    let mut host: Host<Proxy> = Host::new();
    host.plugin().sources.push((Passthrough::new(options), Vec::new(), Vec::new()));
    host
}

fn page(host: &mut Host<Proxy>, body: impl AsRef<[u8]>) -> Result<PageStats, Failure> {
    host.plugin().sources[0].1 = body.as_ref().to_vec();
    host.collect().unwrap();
    host.plugin().stats[0].clone()
}

type Plain = BTreeMap<(String, Vec<(String, String)>), String>;

/// What was passed on, by exposed name and labels.
fn passed(host: &Host<Proxy>) -> Plain {
    let key = |s: &picket_sdk::testing::Sample| (s.exposed_name(), s.labels.clone());
    host.samples().iter().map(|s| (key(s), format!("{:?} {:?}", s.value, s.time_ms))).collect()
}

/// What a page says, by the reader of single samples.
fn said(body: &[u8]) -> Plain {
    let mut said = Plain::new();
    for sample in samples(body).map(Result::unwrap).filter(|s| !s.value.is_nan()) {
        let labels = sample.labels.iter().filter(|(_, v)| !v.is_empty());
        let mut labels: Vec<_> = labels.map(|(n, v)| ((*n).to_owned(), v.clone().into_owned())).collect();
        labels.sort();
        let time = sample.timestamp_ms.map(|t| t as u64);
        said.insert((sample.name.to_owned(), labels), format!("{:?} {time:?}", sample.value));
    }
    said
}

fn reasons(host: &Host<Proxy>) -> Vec<String> {
    host.failures().into_iter().map(|(reason, _)| reason).collect()
}

#[test]
fn real_pages_of_vllm_and_litellm_are_passed_on_unchanged() {
    for (body, some) in
        [(VLLM, "vllm:time_to_first_token_seconds"), (LITELLM, "litellm_request_total_latency_metric")]
    {
        let mut host = host(Options::default());
        for round in 0..3 {
            let stats = page(&mut host, body).unwrap();
            assert_eq!(passed(&host), said(body));
            assert_eq!(host.failures(), []);
            assert_eq!(stats.samples + stats.nan, samples(body).count() as u64);
            assert_eq!(stats.new > 0, round == 0);
        }
        let families = host.families();
        let histogram = families.iter().find(|f| f.name == some).unwrap();
        assert_eq!(histogram.metric_type, MetricType::Histogram);
        assert!(!histogram.help.is_empty());
        // HELP and TYPE are the page's.
        let text = host.text();
        for line in std::str::from_utf8(body).unwrap().lines().filter(|l| l.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            let used = families.iter().any(|f| f.name == name);
            assert_eq!(text.contains(line), used, "{line}");
        }
    }
}

#[test]
fn a_page_as_before_allocates_nothing_per_line() {
    for body in [VLLM, LITELLM] {
        let mut host = host(Options::default());
        page(&mut host, body).unwrap();
        page(&mut host, body).unwrap();
        // Other values, the same series.
        let text = String::from_utf8(body.to_vec()).unwrap().replace("} 0.0\n", "} 7.25\n");
        page(&mut host, text).unwrap();
        let allocations = host.plugin().allocations;
        assert!(allocations < 10, "{allocations} allocations for {} lines", samples(body).count());
    }
}

#[test]
fn added_labels_overwrite_nothing() {
    let mut host = host(Options::default());
    host.plugin().sources[0].2 = [("gpu", "0,1"), ("model", "added"), ("empty", "")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .to_vec();
    page(&mut host, "a{model=\"own\"} 1\nb{model=\"\"} 2\nc 3\n").unwrap();
    assert_eq!(host.value("a", &[("model", "own"), ("gpu", "0,1")]), Some(1.0));
    assert_eq!(host.value("b", &[("model", "added"), ("gpu", "0,1")]), Some(2.0));
    assert_eq!(host.value("c", &[("model", "added"), ("gpu", "0,1")]), Some(3.0));
    // Other labels to add: other series.
    host.plugin().sources[0].2[0].1 = "2".to_owned();
    page(&mut host, "c 3\n").unwrap();
    assert_eq!(host.value("c", &[("model", "added"), ("gpu", "2")]), Some(3.0));
    assert_eq!(host.registered(), 1);
}

#[test]
fn open_metrics_is_read_too() {
    let body = "# TYPE http_requests counter\n# UNIT http_requests requests\n# HELP http_requests How \\\"many\\\".\n\
        http_requests_total{code=\"200\"} 5 1767225600.125 # {trace_id=\"a b\"} 0.7 1767225599\n\
        http_requests_created{code=\"200\"} 1767220000\n\
        # TYPE build info\nbuild_info{version=\"1\"} 1\n\
        # TYPE state stateset\nstate{state=\"on\"} 1\nstate{state=\"off\"} 0\n\
        # TYPE d gaugehistogram\nd_bucket{le=\"+Inf\"} 4\nd_gcount 4\nd_gsum 1.5\n\
        # TYPE l histogram\nl_bucket{le=\"1.0\"} 1 # {} 0.3\nl_bucket{le=\"+Inf\"} 2\nl_sum 3\nl_count 2\n# EOF\n";
    let mut host = host(Options::default());
    page(&mut host, body).unwrap();
    assert_eq!(host.failures(), []);
    let sample = host.samples().into_iter().find(|s| s.name == "http_requests_total").unwrap();
    assert_eq!((sample.metric_type, sample.time_ms), (MetricType::Counter, Some(1_767_225_600_125)));
    let families = host.families();
    let family = |name: &str| families.iter().find(|f| f.name == name).unwrap().clone();
    assert_eq!(family("http_requests_total").help, "How \"many\".");
    assert_eq!(family("http_requests_total").unit, "requests");
    assert_eq!(family("build_info").metric_type, MetricType::Info);
    assert_eq!(family("state").metric_type, MetricType::StateSet);
    assert_eq!(family("d_gsum").metric_type, MetricType::Gauge);
    assert_eq!(host.value("l_bucket", &[("le", "+Inf")]), Some(2.0));
    assert_eq!(host.value("l_count", &[]), Some(2.0));
}

#[test]
fn a_reset_is_passed_on_and_counted() {
    let mut host = host(Options::default());
    let body = |total: u32, gauge: u32| {
        format!(
            "# TYPE t_total counter\nt_total {total}\n# TYPE g gauge\ng {gauge}\n# TYPE h histogram\n\
             h_bucket{{le=\"+Inf\"}} {total}\nh_sum -{total}\nh_count {total}\n"
        )
    };
    assert_eq!(page(&mut host, body(5, 9)).unwrap().resets, 0);
    assert_eq!(page(&mut host, body(9, 5)).unwrap().resets, 0);
    assert_eq!(host.failures(), []);
    assert_eq!(page(&mut host, body(2, 1)).unwrap().resets, 3);
    assert_eq!(host.value("t_total", &[]), Some(2.0));
    assert_eq!(reasons(&host), ["reset"]);
    assert!(host.failures()[0].1.contains("t_total from 9 to 2"), "{:?}", host.failures());
    assert_eq!(page(&mut host, body(3, 1)).unwrap().resets, 0);
}

#[test]
fn what_is_wrong_is_counted_by_reason_and_the_rest_goes_on() {
    let good = "good{a=\"1\"} 1\n";
    for (bad, reason) in [
        (&b"good{a=\"1\"} 2\n"[..], "duplicate"),
        (b"good{ a = \"1\" , } 2\n", "duplicate"),
        (b"bad{a=\"\xff\"} 1\n", "utf8"),
        (b"\xff\xfe 1\n", "malformed"),
        (b"bad{a=\"1\" 1\n", "malformed"),
        (b"bad{a=1} 1\n", "malformed"),
        (b"bad{a=\"1\"b=\"2\"} 1\n", "malformed"),
        (b"bad{a=\"1\",a=\"1\"} 1\n", "malformed"),
        (b"bad{1a=\"1\"} 1\n", "malformed"),
        (b"bad{a=\"1\"}\n", "malformed"),
        (b"bad\n", "malformed"),
        (b"bad x\n", "malformed"),
        (b"bad 1 x\n", "malformed"),
        (b"bad 1 1.5\n", "malformed"),
        (b"bad 1 2 3\n", "malformed"),
        (b"1bad 1\n", "malformed"),
        (b"bad-name 1\n", "malformed"),
        (b"<html><body>no</body></html>\n", "malformed"),
        (b"\rbad 1\n", "malformed"),
        (b"truncat", "malformed"),
        (b"truncated 12", "malformed"),
        (b"# TYPE h histogram\nh 1\n", "malformed"),
        (b"# TYPE t gauge\nt 1\n# TYPE t counter\n", "type-changed"),
    ] {
        let mut host = host(Options::default());
        let body = [good.as_bytes(), bad].concat();
        for _ in 0..3 {
            let shown = String::from_utf8_lossy(bad).into_owned();
            page(&mut host, &body).unwrap_or_else(|e| panic!("{shown}: {e}"));
            assert_eq!(reasons(&host), [reason], "{shown}");
            assert_eq!(host.value("good", &[("a", "1")]), Some(1.0), "{shown}");
        }
        // Mended, it is fine again.
        page(&mut host, good).unwrap();
        assert_eq!(host.failures(), []);
        assert_eq!(host.registered(), 1);
    }
}

#[test]
fn odd_but_valid_lines() {
    let mut host = host(Options::default());
    let body = "\n\r\n  \t\n \r\n#no comment\n# \n# TYPE\n#\ta\na{} 1\nb{x=\"}{\\\"\\\\\\n\\q\",} +Inf\r\n\tc\t{y = \"ü\"}\t-2e3\t1700000000000\t\n\
        d{z=\"1\"}4\n";
    page(&mut host, body).unwrap();
    assert_eq!(host.failures(), []);
    assert_eq!(host.value("a", &[]), Some(1.0));
    assert_eq!(host.value("b", &[("x", "}{\"\\\n\\q")]), Some(f64::INFINITY));
    assert_eq!(host.value("c", &[("y", "ü")]), Some(-2000.0));
    assert_eq!(host.value("d", &[("z", "1")]), Some(4.0));
    let time = host.samples().iter().find(|s| s.name == "c").unwrap().time_ms;
    assert_eq!(time, Some(1_700_000_000_000));
}

#[test]
fn a_page_that_is_none_is_an_error() {
    for body in [
        "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\n</html>\n",
        "{\"error\": 1}",
        "\u{0}\u{1}",
    ] {
        let mut host = host(Options::default());
        let error = page(&mut host, body).unwrap_err();
        assert_eq!(error.reason, "malformed");
        assert_eq!(host.failures(), [], "the plugin reports it");
    }
    let mut host = host(Options::default());
    assert_eq!(page(&mut host, "").unwrap(), PageStats::default());
    // A flood of nonsense is given up.
    let flood = "<p>x</p>\n".repeat(1_000_000);
    assert_eq!(page(&mut host, flood).unwrap_err().reason, "malformed");
}

#[test]
fn series_that_leave_are_retired_and_may_come_back() {
    let mut host = host(Options::default());
    page(&mut host, "a 1\nb 2\nc 3\n").unwrap();
    page(&mut host, "a 1\nc 3\n").unwrap();
    assert_eq!(host.registered(), 2);
    for _ in 0..40 {
        page(&mut host, "c 3\nd 4\na 1\n").unwrap();
    }
    page(&mut host, "a 1\nb 2\nc 3\n").unwrap();
    assert_eq!(host.value("b", &[]), Some(2.0));
    assert_eq!(host.registered(), 3);
    assert_eq!(host.failures(), []);
}

#[test]
fn series_that_come_and_go_do_not_pile_up() {
    let mut host = host(Options::default());
    for round in 0..30 {
        let body: String = (0..2_000).map(|i| format!("a{{id=\"{round}-{i}\"}} 1\n")).collect();
        let stats = page(&mut host, body).unwrap();
        assert_eq!(stats.new, 2_000);
        assert_eq!(host.registered(), 2_000);
    }
}

#[test]
fn a_name_beside_a_new_one() {
    let mut host = host(Options {
        aliases: vec![alias("new_perc", "old_perc"), alias("new_seconds", "old_seconds")],
        ..Options::default()
    });
    let body = "# TYPE new_perc gauge\nnew_perc{e=\"0\"} 0.5\n# TYPE new_seconds histogram\n\
        new_seconds_bucket{le=\"+Inf\"} 2\nnew_seconds_sum 3\nnew_seconds_count 2\n";
    page(&mut host, body).unwrap();
    page(&mut host, body).unwrap();
    assert_eq!(host.value("old_perc", &[("e", "0")]), Some(0.5));
    assert_eq!(host.value("new_perc", &[("e", "0")]), Some(0.5));
    assert_eq!(host.value("old_seconds_bucket", &[("le", "+Inf")]), Some(2.0));
    assert_eq!(host.value("old_seconds_sum", &[]), Some(3.0));
    // A page that has the old name itself keeps its own.
    page(
        &mut host,
        "# TYPE new_perc gauge\nnew_perc{e=\"0\"} 0.5\n# TYPE old_perc gauge\nold_perc{e=\"0\"} 0.9\n",
    )
    .unwrap();
    page(
        &mut host,
        "# TYPE new_perc gauge\nnew_perc{e=\"0\"} 0.5\n# TYPE old_perc gauge\nold_perc{e=\"0\"} 0.9\n",
    )
    .unwrap();
    assert_eq!(host.value("old_perc", &[("e", "0")]), Some(0.9));
    assert_eq!(host.failures(), []);
}

fn alias(of: &str, name: &str) -> Alias {
    Alias { of: of.to_owned(), name: name.to_owned() }
}

#[test]
fn rules_run_over_names_and_labels() {
    let rules: Vec<Relabel> = serde_json::from_value(serde_json::json!([
        {"source_labels": ["__name__"], "regex": "go_.*", "action": "drop"},
        {"regex": "secret", "action": "labeldrop"},
        {"source_labels": ["__name__"], "regex": "old_(.*)", "target_label": "__name__", "replacement": "new_$1"},
        {"source_labels": ["mount"], "regex": "/dev/(.*)", "target_label": "device"},
        {"source_labels": ["mount"], "target_label": "__tmp"},
    ]))
    .unwrap();
    let mut host = host(Options { relabel: rules, ..Options::default() });
    let body = "go_goroutines 7\nfree{mount=\"/dev/sda\",secret=\"x\"} 1\n# TYPE old_seconds histogram\n\
        old_seconds_bucket{le=\"+Inf\"} 2\nold_seconds_sum 3\nold_seconds_count 2\n";
    let stats = page(&mut host, body).unwrap();
    assert_eq!((stats.dropped, stats.samples, stats.scraped), (1, 4, 5));
    assert_eq!(host.value("free", &[("mount", "/dev/sda"), ("device", "sda")]), Some(1.0));
    assert_eq!(host.value("new_seconds_bucket", &[("le", "+Inf")]), Some(2.0));
    assert_eq!(host.value("new_seconds_count", &[]), Some(2.0));
    assert_eq!(host.failures(), []);
}

#[test]
fn rules_that_make_two_series_one_are_counted() {
    let rules = serde_json::json!([{"regex": "id", "action": "labeldrop"}]);
    let mut host = host(Options { relabel: serde_json::from_value(rules).unwrap(), ..Options::default() });
    let stats = page(&mut host, "a{id=\"1\"} 1\na{id=\"2\"} 2\n").unwrap();
    assert_eq!((stats.samples, stats.duplicates), (1, 1));
    assert_eq!(host.value("a", &[]), Some(1.0));
}

#[test]
fn a_page_larger_than_allowed_is_cut_and_counted() {
    let mut host = host(Options { samples: 3, ..Options::default() });
    let stats = page(&mut host, "a 1\nb 1\nc 1\nd 1\ne 1\n").unwrap();
    assert_eq!((stats.samples, stats.too_many), (3, 2));
    assert_eq!(reasons(&host), ["too-many"]);
}

#[test]
fn two_pages_of_one_plugin_share_families() {
    let mut host = host(Options::default());
    host.plugin().sources[0].2 = vec![("target".to_owned(), "a".to_owned())];
    let second = (
        Passthrough::default(),
        b"# TYPE x gauge\nx 2\ny_total 2\n".to_vec(),
        vec![("target".to_owned(), "b".to_owned())],
    );
    host.plugin().sources.push(second);
    page(&mut host, "# TYPE x gauge\nx 1\n# TYPE y_total counter\ny_total 1\n").unwrap();
    assert_eq!(host.value("x", &[("target", "a")]), Some(1.0));
    assert_eq!(host.value("x", &[("target", "b")]), Some(2.0));
    // Of another type, but of the same shape: passed on with the first one's type, and counted.
    assert_eq!(host.value("y_total", &[("target", "b")]), Some(2.0));
    assert_eq!(reasons(&host), ["type-changed"]);
}

#[test]
fn values_can_be_watched_on_their_way() {
    let rules = serde_json::json!([{"source_labels": ["__name__"], "regex": "w", "action": "drop"}]);
    let mut host = host(Options { relabel: serde_json::from_value(rules).unwrap(), ..Options::default() });
    host.plugin().seen.name = "w";
    for value in [1.0, 2.0] {
        page(&mut host, format!("w{{a=\"1\"}} {value}\nw 5\nw{{a=\"2\"}} NaN\n")).unwrap();
        assert_eq!(host.plugin().seen.values, [(0, value)]);
        assert_eq!(host.plugin().seen.asked, 2);
    }
}
