use std::sync::Arc;

use picket_proto::columns::Columns;
use picket_proto::model::{MetricType, NodeId, Part};

use super::{DefineError, Format, Node, Selector, Stamp, Store, StoreOptions, Writer};

const NOW: i64 = 1_800_000_000_000;

fn store() -> Arc<Store> {
    Store::new(StoreOptions { max_series_per_node: 2_000_000, ..StoreOptions::default() })
}

fn node(store: &Store, name: &str) -> Arc<Node> {
    store.know(&NodeId::new(name).unwrap())
}

fn stamp(at_ms: i64) -> Stamp {
    Stamp { timestamp_ms: at_ms, fresh_ms: at_ms, in_order: true }
}

fn push(writer: &Writer, at: Stamp, series: &[u32], values: &[f64]) {
    push_timed(writer, at, series, values, &[]);
}

fn push_timed(writer: &Writer, at: Stamp, series: &[u32], values: &[f64], times_ms: &[i64]) {
    let columns = Columns {
        timestamp_ms: at.timestamp_ms,
        series: series.to_vec(),
        values: values.to_vec(),
        times_ms: times_ms.to_vec(),
    };
    let block = writer.resolve(columns).unwrap();
    writer.node().take(&block, at);
}

fn expose(store: &Arc<Store>, format: Format, selectors: &[&str], now_ms: i64) -> String {
    let selectors = selectors.iter().map(|s| Selector::parse(s).unwrap()).collect();
    let bytes: Vec<u8> = store.exposition(format, selectors, now_ms).flatten().collect();
    String::from_utf8(bytes).unwrap()
}

fn check(got: &str, want: &str) {
    assert!(got == want, "--- got\n{got}\n--- want\n{want}");
}

/// One family of each type, on two nodes.
fn fleet(store: &Arc<Store>) -> Vec<Writer> {
    ["n1", "n2"]
        .into_iter()
        .map(|name| {
            let node = node(store, name);
            node.connected();
            node.received(NOW);
            let mut writer = store.writer(&node);
            let mut define = writer.define(NOW);
            define
                .family(0, "disk_reads_total", MetricType::Counter, "", "Reads, \"all\" of \\them.")
                .unwrap();
            define.family(1, "PCIE_REPLAY", MetricType::Counter, "", "").unwrap();
            define.family(2, "temp_celsius", MetricType::Gauge, "celsius", "Heat.").unwrap();
            define.family(3, "wait_seconds", MetricType::Histogram, "seconds", "Waiting.").unwrap();
            define.family(4, "build_info", MetricType::Info, "", "Build.").unwrap();
            define.family(5, "mode", MetricType::StateSet, "", "Mode.").unwrap();
            define.series(0, 0, Part::Value, [("disk", "a\"b\\c\nd")].into_iter()).unwrap();
            define.series(1, 1, Part::Value, std::iter::empty()).unwrap();
            define.series(2, 2, Part::Value, [("instance", "chip")].into_iter()).unwrap();
            define.series(3, 3, Part::Bucket, [("le", "0.5")].into_iter()).unwrap();
            define.series(4, 3, Part::Bucket, [("le", "+Inf")].into_iter()).unwrap();
            define.series(5, 3, Part::Sum, std::iter::empty()).unwrap();
            define.series(6, 3, Part::Count, std::iter::empty()).unwrap();
            define.series(7, 4, Part::Value, [("version", "1")].into_iter()).unwrap();
            define.series(8, 5, Part::Value, [("mode", "on")].into_iter()).unwrap();
            let outcome = define.finish();
            assert_eq!((outcome.created, outcome.refused), (9, 0));
            push(
                &writer,
                stamp(NOW),
                &[0, 1, 2, 3, 4, 5, 6, 7, 8],
                &[1.0, 2.0, f64::NAN, 3.0, 4.0, 0.25, 4.0, 1.0, 1.0],
            );
            writer
        })
        .collect()
}

#[test]
fn text_format() {
    let store = store();
    let _writers = fleet(&store);
    check(
        &expose(&store, Format::Text, &[], NOW),
        r#"# HELP PCIE_REPLAY Its plugin does not say what this is.
# TYPE PCIE_REPLAY untyped
PCIE_REPLAY{instance="n1"} 2
PCIE_REPLAY{instance="n2"} 2
# HELP build_info Build.
# TYPE build_info gauge
build_info{instance="n1",version="1"} 1
build_info{instance="n2",version="1"} 1
# HELP disk_reads_total Reads, "all" of \\them.
# TYPE disk_reads_total counter
disk_reads_total{instance="n1",disk="a\"b\\c\nd"} 1
disk_reads_total{instance="n2",disk="a\"b\\c\nd"} 1
# HELP mode Mode.
# TYPE mode gauge
mode{instance="n1",mode="on"} 1
mode{instance="n2",mode="on"} 1
# HELP picket_node_last_seen_timestamp_seconds When the last batch of the node came in, by the aggregator's clock.
# TYPE picket_node_last_seen_timestamp_seconds gauge
picket_node_last_seen_timestamp_seconds{instance="n1",node="n1"} 1800000000
picket_node_last_seen_timestamp_seconds{instance="n2",node="n2"} 1800000000
# HELP picket_node_series Live series of the node.
# TYPE picket_node_series gauge
picket_node_series{instance="n1",node="n1"} 9
picket_node_series{instance="n2",node="n2"} 9
# HELP picket_node_up Whether the node has a stream to the aggregator and its samples are fresh.
# TYPE picket_node_up gauge
picket_node_up{instance="n1",node="n1"} 1
picket_node_up{instance="n2",node="n2"} 1
# HELP temp_celsius Heat.
# TYPE temp_celsius gauge
temp_celsius{instance="n1",exported_instance="chip"} NaN
temp_celsius{instance="n2",exported_instance="chip"} NaN
# HELP wait_seconds Waiting.
# TYPE wait_seconds histogram
wait_seconds_bucket{instance="n1",le="0.5"} 3
wait_seconds_bucket{instance="n1",le="+Inf"} 4
wait_seconds_sum{instance="n1"} 0.25
wait_seconds_count{instance="n1"} 4
wait_seconds_bucket{instance="n2",le="0.5"} 3
wait_seconds_bucket{instance="n2",le="+Inf"} 4
wait_seconds_sum{instance="n2"} 0.25
wait_seconds_count{instance="n2"} 4
"#,
    );
}

#[test]
fn open_metrics_format() {
    let store = store();
    let _writers = fleet(&store);
    check(
        &expose(
            &store,
            Format::OpenMetrics,
            &[
                r#"disk_reads_total{instance="n1"}"#,
                r#"PCIE_REPLAY{instance="n1"}"#,
                r#"temp_celsius{instance="n2"}"#,
                r#"build_info{instance="n2"}"#,
                r#"mode{instance="n1"}"#,
                "wait_seconds_sum",
            ],
            NOW,
        ),
        r#"# HELP PCIE_REPLAY Its plugin does not say what this is.
# TYPE PCIE_REPLAY unknown
PCIE_REPLAY{instance="n1"} 2
# HELP build Build.
# TYPE build info
build_info{instance="n2",version="1"} 1
# HELP disk_reads Reads, \"all\" of \\them.
# TYPE disk_reads counter
disk_reads_total{instance="n1",disk="a\"b\\c\nd"} 1
# HELP mode Mode.
# TYPE mode stateset
mode{instance="n1",mode="on"} 1
# HELP temp_celsius Heat.
# TYPE temp_celsius gauge
# UNIT temp_celsius celsius
temp_celsius{instance="n2",exported_instance="chip"} NaN
# HELP wait_seconds Waiting.
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
wait_seconds_sum{instance="n1"} 0.25
wait_seconds_sum{instance="n2"} 0.25
# EOF
"#,
    );
}

#[test]
fn formats_are_negotiated() {
    let check =
        |accept: Option<&str>, want: Format| assert_eq!(Format::negotiate(accept), want, "{accept:?}");
    check(None, Format::Text);
    check(Some("*/*"), Format::Text);
    check(Some("text/plain"), Format::Text);
    check(Some("application/openmetrics-text"), Format::OpenMetrics);
    check(Some("application/openmetrics-text;version=2.0.0"), Format::Text);
    check(Some("application/openmetrics-text;version=1.0.0;q=0.3,text/plain;q=0.9"), Format::Text);
    check(
        Some(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
        ),
        Format::OpenMetrics,
    );
}

#[test]
fn series_go_stale_come_back_and_retire() {
    let store = store();
    let writers = fleet(&store);
    let writer = &writers[0];
    let lines = |now_ms: i64| {
        expose(&store, Format::Text, &[r#"PCIE_REPLAY{instance="n1"}"#], now_ms).lines().count()
    };
    let stale_ms = 300_000;
    assert_eq!(lines(NOW + stale_ms), 3);
    assert_eq!(lines(NOW + stale_ms + 1000), 0);
    let later = NOW + 10 * stale_ms;
    push(writer, stamp(later), &[1], &[5.0]);
    assert_eq!(lines(later), 3);
    // A replayed sample is an old one, whenever it came.
    push(writer, Stamp { timestamp_ms: later + 1, fresh_ms: NOW, in_order: true }, &[1], &[6.0]);
    assert_eq!(lines(later), 0);
    push(writer, stamp(later + 2000), &[1], &[7.0]);
    assert_eq!(lines(later + 2000), 3);
    let slots = writer.undefine(&[1]);
    writer.node().retire(&slots, later + 2000);
    assert_eq!(lines(later + 2000), 0);
    let columns = Columns { timestamp_ms: later, series: vec![1], values: vec![0.0], times_ms: Vec::new() };
    assert_eq!(writer.resolve(columns).map(|_| ()).unwrap_err().number, 1);
    // n1 is gone in the eyes of `up` too.
    assert!(store.nodes(NOW).iter().all(|n| n.up));
    assert!(store.nodes(NOW + stale_ms + 1000).iter().all(|n| !n.up && n.connected));
}

#[test]
fn an_older_sample_never_replaces_a_newer_one_but_a_clock_may_be_set_back() {
    let store = store();
    let writers = fleet(&store);
    let value = || {
        expose(&store, Format::Text, &[r#"PCIE_REPLAY{instance="n1"}"#], NOW)
            .lines()
            .last()
            .unwrap()
            .to_owned()
    };
    push(&writers[0], Stamp { timestamp_ms: NOW - 1, fresh_ms: NOW, in_order: false }, &[1], &[8.0]);
    assert!(value().ends_with(" 2"), "{}", value());
    push(&writers[0], Stamp { timestamp_ms: NOW - 3_600_000, fresh_ms: NOW, in_order: true }, &[1], &[9.0]);
    assert!(value().ends_with(" 9"), "{}", value());
    push_timed(&writers[0], stamp(NOW), &[1], &[10.0], &[NOW + 5]);
    assert!(value().ends_with(&format!(" 10 {}", NOW + 5)), "{}", value());
    push_timed(&writers[0], stamp(NOW), &[1], &[11.0], &[NOW]);
    assert!(value().ends_with(&format!(" 10 {}", NOW + 5)), "{}", value());
    let open = expose(&store, Format::OpenMetrics, &[r#"PCIE_REPLAY{instance="n1"}"#], NOW);
    assert!(open.contains(" 10 1800000000.005\n"), "{open}");
}

#[test]
fn a_type_clash_is_refused_while_the_first_type_lives() {
    let store = store();
    let writers = fleet(&store);
    let third = node(&store, "n3");
    let mut writer = store.writer(&third);
    let mut define = |at: i64, name: &str, metric_type| {
        let mut define = writer.define(at);
        define.family(0, name, metric_type, "", "").unwrap();
        define.series(0, 0, Part::Value, std::iter::empty()).unwrap();
        define.finish().first_refusal.map(|r| r.reason())
    };
    assert_eq!(define(NOW, "temp_celsius", MetricType::Counter), Some("type-clash"));
    assert_eq!(define(NOW, "wait_seconds_sum", MetricType::Gauge), Some("name-clash"));
    assert_eq!(define(NOW, "picket_node_up", MetricType::Gauge), Some("reserved"));
    assert_eq!(define(NOW, "no name", MetricType::Gauge), Some("invalid"));
    assert_eq!(define(NOW + 1_000_000, "temp_celsius", MetricType::Counter), None);
    // Samples of a refused series are dropped, those beside them are not.
    assert_eq!(define(NOW + 1_000_000, "wait_seconds_sum", MetricType::Gauge), Some("name-clash"));
    let columns = Columns { timestamp_ms: NOW, series: vec![0], values: vec![1.0], times_ms: vec![NOW] };
    let block = writer.resolve(columns).unwrap();
    assert_eq!((block.slots.len(), block.values.len(), block.times_ms.len(), block.refused), (0, 0, 0, 1));
    drop(writers);
}

#[test]
fn definitions_that_break_the_protocol_or_the_bounds() {
    let store = Store::new(StoreOptions { max_series_per_node: 2, ..StoreOptions::default() });
    let node = node(&store, "n");
    let mut writer = store.writer(&node);
    let mut define = writer.define(NOW);
    define.family(0, "a", MetricType::Gauge, "", "").unwrap();
    let none = || std::iter::empty();
    assert_eq!(
        define.series(0, 7, Part::Value, none()),
        Err(DefineError::UndefinedFamily { series: 0, family: 7 })
    );
    assert!(matches!(define.series(1 << 22, 0, Part::Value, none()), Err(DefineError::Number { .. })));
    assert!(matches!(
        define.family(1 << 20, "b", MetricType::Gauge, "", ""),
        Err(DefineError::Number { .. })
    ));
    // Refused, one by one: a part that doesn't fit, a name that is none, names out of order, too long, too many.
    let long = "x".repeat(5000);
    define.series(0, 0, Part::Sum, none()).unwrap();
    define.series(1, 0, Part::Value, [("a-b", "1")].into_iter()).unwrap();
    define.series(2, 0, Part::Value, [("b", "1"), ("a", "1")].into_iter()).unwrap();
    define.series(3, 0, Part::Value, [("a", long.as_str())].into_iter()).unwrap();
    define.series(4, 0, Part::Value, [("a", "1"), ("empty", "")].into_iter()).unwrap();
    define.series(5, 0, Part::Value, [("a", "2")].into_iter()).unwrap();
    define.series(6, 0, Part::Value, [("a", "3")].into_iter()).unwrap();
    define.series(7, 0, Part::Value, [("a", "1")].into_iter()).unwrap();
    let outcome = define.finish();
    assert_eq!((outcome.created, outcome.defined, outcome.refused), (2, 3, 5));
}

#[test]
fn long_stale_series_are_reclaimed_and_the_rest_keep_their_meaning() {
    let store = store();
    let node = node(&store, "n");
    let values: Vec<String> = (0..1000).map(|i| i.to_string()).collect();
    let mut old = store.writer(&node);
    let mut define = old.define(NOW);
    define.family(0, "a", MetricType::Gauge, "", "").unwrap();
    for (i, v) in values.iter().enumerate() {
        define.series(i as u32, 0, Part::Value, [("v", v.as_str())].into_iter()).unwrap();
    }
    define.finish();
    let numbers: Vec<u32> = (0..1000).collect();
    let samples: Vec<f64> = numbers.iter().map(|&n| f64::from(n)).collect();
    push(&old, stamp(NOW), &numbers, &samples);
    let mut new = store.writer(&node);
    let mut define = new.define(NOW);
    define.family(3, "a", MetricType::Gauge, "", "").unwrap();
    for (i, v) in values.iter().enumerate().skip(600) {
        define.series(i as u32, 3, Part::Value, [("v", v.as_str())].into_iter()).unwrap();
    }
    assert_eq!(define.finish().created, 0);
    let later = NOW + 7_200_000;
    store.sweep(later);
    assert_eq!(node.epoch(), 0, "an open stream names them all");
    drop(old);
    let pin = node.pin();
    store.sweep(later);
    assert_eq!(node.epoch(), 0, "a batch on its way names them");
    drop(pin);
    store.sweep(later);
    assert_eq!(node.epoch(), 1);
    push(&new, stamp(later), &[999, 600], &[1.5, 2.5]);
    let got = expose(&store, Format::Text, &["a"], later);
    assert!(got.contains("a{instance=\"n\",v=\"600\"} 2.5\n") && got.contains("v=\"999\"} 1.5\n"), "{got}");
    assert_eq!(got.lines().count(), 4);
    // A reclaimed one can be defined anew, a kept one is found again.
    let mut define = new.define(later);
    define.series(0, 3, Part::Value, [("v", "0")].into_iter()).unwrap();
    define.series(1, 3, Part::Value, [("v", "700")].into_iter()).unwrap();
    assert_eq!(define.finish().created, 1);
    store.forget(node.id());
    assert_eq!(expose(&store, Format::Text, &[], later), "");
    assert!(
        new.resolve(Columns { timestamp_ms: 0, series: vec![999], values: vec![0.0], times_ms: vec![] })
            .is_err()
    );
}

#[test]
fn series_view() {
    let store = store();
    let _writers = fleet(&store);
    let found = store.series(&[Selector::parse(r#"{mode="on"}"#).unwrap()], 10, NOW);
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].name.as_str(), found[0].metric_type, found[0].value), ("mode", "stateset", 1.0));
    assert_eq!(store.series(&[], 7, NOW).len(), 7);
    assert_eq!(store.series(&[], 100, NOW + 3_600_000).len(), 0);
    let json = serde_json::to_value(store.series(&[Selector::name("temp_celsius")], 1, NOW)).unwrap();
    assert_eq!(json[0]["value"], "NaN");
    assert_eq!(json[0]["labels"]["exported_instance"], "chip");
}

#[test]
fn a_million_series_are_streamed_in_small_chunks() {
    let store = store();
    let began = std::time::Instant::now();
    for n in 0..10 {
        let node = node(&store, &format!("node-{n}"));
        let values: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
        let mut writer = store.writer(&node);
        let mut define = writer.define(NOW);
        for family in 0..10u32 {
            define.family(family, &format!("family_{family}"), MetricType::Gauge, "", "x").unwrap();
            for (i, v) in values.iter().enumerate() {
                define
                    .series(family * 10_000 + i as u32, family, Part::Value, [("v", v.as_str())].into_iter())
                    .unwrap();
            }
        }
        assert_eq!(define.finish().created, 100_000);
        let numbers: Vec<u32> = (0..100_000).collect();
        let samples: Vec<f64> = numbers.iter().map(|&n| f64::from(n) / 7.0).collect();
        push(&writer, stamp(NOW), &numbers, &samples);
    }
    println!("registered and applied in {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let (mut lines, mut chunks) = (0, 0);
    for chunk in store.exposition(Format::Text, vec![], NOW) {
        assert!(chunk.len() <= (64 << 10) + (4 << 10), "{}", chunk.len());
        lines += chunk.iter().filter(|&&b| b == b'\n').count();
        chunks += 1;
    }
    // Two lines of header a family; `up` and `series` of the aggregator's own for ten nodes.
    assert_eq!(lines, 1_000_000 + 10 * 2 + 2 * (10 + 2));
    println!("{chunks} chunks in {:?}", began.elapsed());
}
