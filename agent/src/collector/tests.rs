use std::collections::{BTreeMap, BTreeSet};

use picket_agent_host::SampleSink;
use picket_agent_spool::Item;
use picket_proto::definitions;
use picket_proto::model::MetricType;
use proptest::prelude::*;

use super::*;
use crate::clock::TestClock;

const WALL: i64 = 1_700_000_000_000;
const FRESH: Duration = Duration::from_secs(30);

fn id(name: &str) -> PluginId {
    PluginId::new(name).unwrap()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))).unwrap()
}

fn family(name: &str, metric_type: MetricType) -> Family {
    Family::new(name, metric_type, "", "Help.").unwrap()
}

fn gauge(name: &str) -> Family {
    family(name, MetricType::Gauge)
}

/// A whole small collect: one family, its series with their values.
fn collect(sink: &mut PluginSink, family: &Family, series: &[(&[(&str, &str)], f64)]) -> Committed {
    sink.start(WALL);
    sink.begin(1);
    sink.family(0, family);
    for (i, (pairs, value)) in series.iter().enumerate() {
        let i = i as u32;
        sink.series(i, 0, Part::Value, &labels(pairs)).unwrap();
        sink.points(&[(i, *value)]);
    }
    sink.commit(true)
}

fn page(collector: &Collector, format: Format) -> String {
    collector.exposition(format).collect()
}

/// Every durable record of the spool so far.
async fn items(spool: &Spool, count: usize) -> Vec<Item> {
    let mut reader = spool.reader();
    let mut list = Vec::new();
    while list.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
        list.push(next.expect("the spool must give what was appended"));
    }
    list
}

/// Name, part, labels.
type Known = (String, i32, Vec<(String, String)>);

/// What a reader of the spool knows.
#[derive(Default, Debug, PartialEq, Clone)]
struct Reading {
    families: BTreeMap<u32, String>,
    series: BTreeMap<u32, Known>,
    values: BTreeMap<u32, f64>,
}

impl Reading {
    fn define(&mut self, record: &Record) {
        let Some(message) = &record.definitions else { return };
        let reader = definitions::read(message).unwrap();
        for family in reader.families() {
            let before = self.families.insert(family.number, family.name.to_owned());
            assert_eq!(before, None, "family {} is defined twice", family.number);
        }
        for series in reader.series() {
            let name = self.families.get(&series.family).expect("the family stands before").clone();
            let labels = series.labels.map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let before = self.series.insert(series.number, (name, series.part as i32, labels));
            assert_eq!(before, None, "series {} is defined twice", series.number);
        }
    }

    fn apply(&mut self, record: &Record) {
        self.define(record);
        for block in &record.blocks {
            let mut number = 0;
            for (delta, value) in block.series_deltas.iter().zip(&block.values) {
                number += delta;
                assert!(self.series.contains_key(&(number as u32)), "series {number} is not defined");
                self.values.insert(number as u32, *value);
            }
            assert_eq!(block.series_deltas.len(), block.values.len());
        }
        for number in &record.retired {
            assert!(self.series.remove(number).is_some(), "series {number} was not defined");
            self.values.remove(number);
        }
    }
}

#[tokio::test]
async fn one_collect_is_one_record_with_what_is_new() {
    let spool = Spool::in_memory(1 << 20, 7);
    let collector = Collector::new(TestClock::new(WALL), Some(spool.clone()));
    let mut sink = collector.sink(id("a"), FRESH);
    let committed = collect(&mut sink, &gauge("m"), &[(&[("x", "1")], 1.0), (&[("x", "2")], f64::NAN)]);
    assert_eq!((committed.samples, committed.series, committed.sequence), (2, 2, Some(1)));
    // A new instance with the same series: the same numbers, nothing to define.
    collect(&mut sink, &gauge("m"), &[(&[("x", "2")], 3.0), (&[("x", "1")], -2.0)]);
    // One is not declared any more.
    collect(&mut sink, &gauge("m"), &[(&[("x", "2")], 4.0)]);

    let records: Vec<Record> =
        items(&spool, 3).await.iter().map(|item| Record::decode(&item.bytes[..]).unwrap()).collect();
    let mut reading = Reading::default();
    reading.apply(&records[0]);
    assert_eq!(records[0].timestamp_ms, WALL);
    assert_eq!(records[0].plugin, "a");
    assert!(reading.values[&1].is_nan());
    reading.apply(&records[1]);
    assert_eq!(records[1].definitions, None);
    assert_eq!(reading.values, BTreeMap::from([(0, -2.0), (1, 3.0)]));
    reading.apply(&records[2]);
    assert_eq!(records[2].retired, [0]);
    assert_eq!(reading.values, BTreeMap::from([(1, 4.0)]));
}

#[tokio::test]
async fn no_plugin_writes_what_the_agent_says_of_itself() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut plugin = collector.sink(id("a"), FRESH);
    plugin.start(WALL);
    plugin.begin(1);
    plugin.family(0, &gauge("picket_plugin_state"));
    let refused = plugin.series(0, 0, Part::Value, &labels(&[("plugin", "b")])).unwrap_err();
    assert!(refused.contains("the agent's own"), "{refused}");
    let mut own = collector.sink(id(crate::config::OWN_ID), FRESH);
    own.start(WALL);
    own.begin(1);
    own.family(0, &gauge("picket_plugin_state"));
    own.series(0, 0, Part::Value, &labels(&[("plugin", "b")])).unwrap();
}

#[tokio::test]
async fn clashes_are_refused_named_and_counted() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut a = collector.sink(id("a"), FRESH);
    let mut b = collector.sink(id("b"), FRESH);
    collect(&mut a, &gauge("m"), &[(&[("x", "1")], 1.0)]);
    collect(&mut a, &gauge("m"), &[(&[("x", "1")], 1.0)]);

    b.start(WALL);
    b.begin(1);
    b.family(0, &family("m", MetricType::Counter));
    let refused = b.series(0, 0, Part::Value, &labels(&[])).unwrap_err();
    assert!(refused.contains("plugin a") && refused.contains("Gauge"), "{refused}");
    b.family(1, &gauge("m"));
    let refused = b.series(1, 1, Part::Value, &labels(&[("x", "1")])).unwrap_err();
    assert!(refused.contains("plugin a's"), "{refused}");
    b.series(2, 1, Part::Value, &labels(&[("x", "2")])).unwrap();
    b.family(2, &family("n", MetricType::Histogram));
    b.series(3, 9, Part::Value, &labels(&[])).unwrap_err();
    b.points(&[(0, 5.0), (1, 5.0), (2, 6.0), (77, 1.0)]);
    assert_eq!(b.commit(true).samples, 1);

    let refused = {
        a.family(1, &gauge("n_sum"));
        a.series(1, 1, Part::Value, &labels(&[])).unwrap_err()
    };
    assert!(refused.contains("n_sum") && refused.contains("plugin b"), "{refused}");

    let totals: BTreeSet<_> =
        collector.errors().totals().into_iter().map(|(p, r, n)| (p.as_str().to_owned(), r, n)).collect();
    let expected = [
        ("a", "family-clash", 1),
        ("b", "family-clash", 1),
        ("b", "series-clash", 1),
        ("b", "unknown-family", 1),
    ];
    assert_eq!(totals, expected.map(|(p, r, n)| (p.to_owned(), r.to_owned(), n)).into());
    assert_eq!(
        page(&collector, Format::Prometheus),
        "# HELP m Help.\n# TYPE m gauge\nm{x=\"1\"} 1\nm{x=\"2\"} 6\n"
    );

    // The owner goes: the name is free.
    collector.remove(&id("a"));
    collector.remove(&id("b"));
    assert_eq!(page(&collector, Format::Prometheus), "");
    collect(&mut b, &family("m", MetricType::Counter), &[(&[], 1.0)]);
    assert!(page(&collector, Format::Prometheus).contains("# TYPE m counter"));
}

#[tokio::test]
async fn a_family_may_change_within_its_plugin() {
    let spool = Spool::in_memory(1 << 20, 7);
    let collector = Collector::new(TestClock::new(WALL), Some(spool.clone()));
    let mut sink = collector.sink(id("a"), FRESH);
    collect(&mut sink, &gauge("m"), &[(&[], 1.0)]);
    collect(&mut sink, &family("m", MetricType::Counter), &[(&[], 2.0)]);
    assert_eq!(page(&collector, Format::Prometheus), "# HELP m Help.\n# TYPE m counter\nm 2\n");
    let mut reading = Reading::default();
    for item in items(&spool, 2).await {
        reading.apply(&Record::decode(&item.bytes[..]).unwrap());
    }
    assert_eq!(reading.values, BTreeMap::from([(1, 2.0)]));
}

#[tokio::test]
async fn what_was_pushed_before_a_failure_is_kept_and_nothing_is_concluded() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut sink = collector.sink(id("a"), FRESH);
    collect(&mut sink, &gauge("m"), &[(&[("x", "1")], 1.0), (&[("x", "2")], 1.0)]);
    sink.begin(2);
    sink.family(0, &gauge("m"));
    sink.series(0, 0, Part::Value, &labels(&[("x", "1")])).unwrap();
    sink.points(&[(0, 9.0)]);
    let committed = sink.commit(false);
    assert_eq!((committed.samples, committed.series), (1, 2));
    assert!(page(&collector, Format::Prometheus).contains("m{x=\"1\"} 9\nm{x=\"2\"} 1\n"));
    // The next whole collect settles it.
    sink.points(&[(0, 10.0)]);
    assert_eq!(sink.commit(true).series, 1);
}

#[tokio::test]
async fn a_series_that_stands_twice_counts_once() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut sink = collector.sink(id("a"), FRESH);
    sink.begin(1);
    sink.family(0, &gauge("m"));
    sink.series(0, 0, Part::Value, &labels(&[])).unwrap();
    sink.series(1, 0, Part::Value, &labels(&[])).unwrap();
    sink.points(&[(1, 1.0), (0, 2.0)]);
    assert_eq!(sink.commit(true).samples, 1);
    assert!(page(&collector, Format::Prometheus).ends_with("\nm 1\n"));
    assert_eq!(collector.errors().totals(), [(id("a"), "duplicate".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn old_values_are_absent_whatever_the_wall_clock_says() {
    let clock = TestClock::new(WALL);
    let collector = Collector::new(clock.clone(), None);
    let mut sink = collector.sink(id("a"), FRESH);
    collect(&mut sink, &gauge("m"), &[(&[], 1.0)]);
    clock.step(-3_600_000);
    tokio::time::advance(FRESH).await;
    assert!(page(&collector, Format::Prometheus).contains("m 1"));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(page(&collector, Format::Prometheus), "");
    assert_eq!(page(&collector, Format::OpenMetrics), "# EOF\n");
}

#[tokio::test]
async fn both_formats() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut sink = collector.sink(id("a"), FRESH);
    sink.start(WALL);
    sink.begin(1);
    let help = "A \"help\" with \\ in it";
    for (i, (name, metric_type, unit)) in [
        ("h_seconds", MetricType::Histogram, "seconds"),
        ("c_total", MetricType::Counter, ""),
        ("odd_counter", MetricType::Counter, ""),
        ("b_info", MetricType::Info, ""),
        ("s", MetricType::StateSet, ""),
        ("t", MetricType::StateSet, ""),
        ("u", MetricType::Unknown, ""),
        ("q", MetricType::Summary, ""),
    ]
    .into_iter()
    .enumerate()
    {
        sink.family(i as u32, &Family::new(name, metric_type, unit, help).unwrap());
    }
    let mut number = 0;
    let mut push = |sink: &mut PluginSink, family, part, pairs: &[(&str, &str)], value: f64| {
        sink.series(number, family, part, &labels(pairs)).unwrap();
        sink.points(&[(number, value)]);
        number += 1;
    };
    // In an order that no page may have.
    push(&mut sink, 0, Part::Count, &[("p", "2")], 3.0);
    push(&mut sink, 0, Part::Bucket, &[("p", "1"), ("le", "+Inf")], 2.0);
    push(&mut sink, 0, Part::Bucket, &[("p", "1"), ("le", "10")], 2.0);
    push(&mut sink, 0, Part::Sum, &[("p", "1")], 4.5);
    push(&mut sink, 0, Part::Bucket, &[("p", "1"), ("le", "5")], 1.0);
    push(&mut sink, 0, Part::Count, &[("p", "1")], 2.0);
    push(&mut sink, 1, Part::Value, &[("v", "a\\b\"c\nd{}")], 1e20);
    push(&mut sink, 2, Part::Value, &[], 1.0);
    push(&mut sink, 3, Part::Value, &[("version", "ä")], 1.0);
    push(&mut sink, 4, Part::Value, &[("s", "on")], 1.0);
    push(&mut sink, 5, Part::Value, &[("state", "on")], 1.0);
    push(&mut sink, 7, Part::Count, &[], 1.0);
    push(&mut sink, 7, Part::Quantile, &[("quantile", "0.99")], 1.0);
    push(&mut sink, 7, Part::Quantile, &[("quantile", "0.5")], 1.0);
    sink.series(99, 6, Part::Value, &labels(&[])).unwrap();
    sink.timed_points(&[(99, f64::NAN, WALL + 5)]);
    sink.commit(true);

    let quoted = "A \"help\" with \\\\ in it";
    let text = page(&collector, Format::Prometheus);
    assert_eq!(
        text,
        format!(
            "# HELP b_info {quoted}\n# TYPE b_info gauge\nb_info{{version=\"ä\"}} 1\n\
             # HELP c_total {quoted}\n# TYPE c_total counter\nc_total{{v=\"a\\\\b\\\"c\\nd{{}}\"}} 1e20\n\
             # HELP h_seconds {quoted}\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{{le=\"5\",p=\"1\"}} 1\nh_seconds_bucket{{le=\"10\",p=\"1\"}} 2\n\
             h_seconds_bucket{{le=\"+Inf\",p=\"1\"}} 2\nh_seconds_sum{{p=\"1\"}} 4.5\nh_seconds_count{{p=\"1\"}} 2\n\
             h_seconds_count{{p=\"2\"}} 3\n\
             # HELP odd_counter {quoted}\n# TYPE odd_counter counter\nodd_counter 1\n\
             # HELP q {quoted}\n# TYPE q summary\nq{{quantile=\"0.5\"}} 1\nq{{quantile=\"0.99\"}} 1\nq_count 1\n\
             # HELP s {quoted}\n# TYPE s gauge\ns{{s=\"on\"}} 1\n\
             # HELP t {quoted}\n# TYPE t gauge\nt{{state=\"on\"}} 1\n\
             # HELP u {quoted}\n# TYPE u untyped\nu NaN 1700000000005\n"
        )
    );
    let text = page(&collector, Format::OpenMetrics);
    for lines in [
        "# HELP b A \\\"help\\\" with \\\\ in it\n# TYPE b info\nb_info{version=\"ä\"} 1\n",
        "# TYPE c counter\nc_total{",
        "# TYPE h_seconds histogram\n# UNIT h_seconds seconds\nh_seconds_bucket{le=\"5\"",
        "# TYPE odd_counter unknown\nodd_counter 1\n",
        "# TYPE s stateset\ns{s=\"on\"} 1\n",
        "# TYPE t gauge\n",
        "# TYPE u unknown\nu NaN 1700000000.005\n# EOF\n",
    ] {
        assert!(text.contains(lines), "no {lines:?} in\n{text}");
    }
}

#[tokio::test]
async fn a_long_page_comes_in_chunks() {
    let collector = Collector::new(TestClock::new(WALL), None);
    let mut sink = collector.sink(id("a"), FRESH);
    sink.begin(1);
    for i in 0..3000 {
        sink.family(i, &gauge(&format!("family_{i:04}")));
        sink.series(i, i, Part::Value, &labels(&[("label", "value")])).unwrap();
        sink.points(&[(i, f64::from(i))]);
    }
    sink.commit(true);
    let chunks: Vec<String> = collector.exposition(Format::OpenMetrics).collect();
    assert!(chunks.len() > 3 && chunks.iter().all(|chunk| chunk.len() < 64 * 1024));
    let page = chunks.concat();
    assert_eq!(page.lines().filter(|line| !line.starts_with('#')).count(), 3000);
    assert!(page.ends_with("family_2999{label=\"value\"} 2999\n# EOF\n"));
}

#[derive(Debug, Clone)]
enum Step {
    Begin,
    Series { family: u8, label: u8 },
    Push { id: u8, value: f64 },
    Retire { id: u8 },
    Commit { complete: bool },
    Remove,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        1 => Just(Step::Begin),
        6 => (0u8..3, 0u8..6).prop_map(|(family, label)| Step::Series { family, label }),
        8 => (0u8..10, any::<f64>()).prop_map(|(id, value)| Step::Push { id, value }),
        2 => (0u8..10).prop_map(|id| Step::Retire { id }),
        4 => any::<bool>().prop_map(|complete| Step::Commit { complete }),
        1 => Just(Step::Remove),
    ];
    prop::collection::vec((any::<bool>(), step), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever plugins do, a reader of the spool that starts at any segment knows every series that it meets, each
    /// definition comes once, and at the end it knows exactly what lives.
    #[test]
    fn the_spool_tells_the_whole_story(script in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let spool = Spool::open(
                picket_agent_spool::Options {
                    dir: dir.path().to_owned(),
                    max_bytes: 64 << 20,
                    max_age: Duration::from_secs(3600),
                    segment_bytes: 512,
                    queue_bytes: 16 << 20,
                },
                7,
            ).unwrap();
            let collector = Collector::new(TestClock::new(WALL), Some(spool.clone()));
            let mut sinks = [collector.sink(id("a"), FRESH), collector.sink(id("b"), FRESH)];
            let mut next = [0u32; 2];
            for sink in &mut sinks {
                sink.begin(0);
            }
            for (second, step) in script {
                let which = usize::from(second);
                let sink = &mut sinks[which];
                match step {
                    Step::Begin => { sink.begin(0); next[which] = 0; }
                    Step::Series { family, label } => {
                        let number = u32::from(family);
                        sink.family(number, &gauge(&format!("m{family}")));
                        let _ = sink.series(next[which], number, Part::Value, &labels(&[("l", &label.to_string())]));
                        next[which] += 1;
                    }
                    Step::Push { id, value } => sink.points(&[(id.into(), value)]),
                    Step::Retire { id } => sink.retire(&[id.into()]),
                    Step::Commit { complete } => { sink.commit(complete); }
                    Step::Remove => { collector.remove(&id(["a", "b"][which])); sink.begin(0); next[which] = 0; }
                }
            }
            for sink in &mut sinks {
                sink.commit(false);
            }
            let appended = spool.stats().appended as usize;
            let mut reading = Reading::default();
            for (i, item) in items(&spool, appended).await.into_iter().enumerate() {
                if let Some(header) = &item.header {
                    let mut fresh = Reading::default();
                    if !header.is_empty() {
                        fresh.define(&Record::decode(&header[..]).unwrap());
                    }
                    assert_eq!(fresh.series, reading.series, "the header before record {i}");
                    // A family whose series are all gone may be missing from the header, and is defined again.
                    reading.families = fresh.families;
                }
                reading.apply(&Record::decode(&item.bytes[..]).unwrap());
            }
            let mut live = Reading::default();
            live.define(&collector.snapshot());
            assert_eq!(live.series, reading.series);
            spool.close().unwrap();
        });
    }
}
