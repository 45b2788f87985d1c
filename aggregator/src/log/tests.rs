use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use picket_proto::columns::Columns;
use picket_proto::model::{MetricType, NodeId, Part};
use proptest::prelude::*;

use super::{Batch, Committed, Entry, ExportFilter, Log, LogOptions, OpenError, Recovered, segment};
use crate::clock::Clock;
use crate::store::{Node, Selector, Stamp, Store, StoreOptions, Writer};

/// Near the machine's own time, since files have that.
static NOW: LazyLock<i64> = LazyLock::new(|| Clock::system().now_ms());
const LIFE: u64 = 7;

#[derive(Default)]
struct Done(Mutex<BTreeMap<u64, u64>>);

impl Committed for Done {
    fn committed(&self, life: u64, sequence: u64) {
        let before = self.0.lock().unwrap().insert(life, sequence);
        assert!(before.is_none_or(|b| b < sequence), "told out of order");
    }
}

impl Done {
    fn wait(&self, life: u64, sequence: u64) {
        wait_for(
            || self.0.lock().unwrap().get(&life).is_some_and(|&s| s >= sequence),
            "the batch to be durable",
        );
    }
}

fn wait_for(mut ready: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn options(dir: &Path) -> LogOptions {
    LogOptions { dir: dir.to_path_buf(), clock: Clock::system(), ..LogOptions::default() }
}

/// A node with `series` gauges, and its way into the log.
struct Feed {
    store: Arc<Store>,
    node: Arc<Node>,
    writer: Writer,
    done: Arc<Done>,
}

impl Feed {
    fn new(name: &str, series: u32) -> Self {
        let store = Store::new(StoreOptions::default());
        let node = store.know(&NodeId::new(name).unwrap());
        let mut writer = store.writer(&node);
        let values: Vec<String> = (0..series).map(|i| i.to_string()).collect();
        let mut define = writer.define(*NOW);
        define.family(0, "g", MetricType::Gauge, "", "A gauge.").unwrap();
        for (i, v) in values.iter().enumerate() {
            define.series(i as u32, 0, Part::Value, [("v", v.as_str())].into_iter()).unwrap();
        }
        define.finish();
        Self { store, node, writer, done: Arc::default() }
    }

    fn append(&self, log: &Log, sequence: u64, series: &[u32], times: bool) {
        let at_ms = *NOW + sequence as i64;
        let columns = Columns {
            timestamp_ms: at_ms,
            series: series.to_vec(),
            values: series.iter().map(|&s| f64::from(s) + sequence as f64 * 1000.0).collect(),
            times_ms: if times { series.iter().map(|&s| at_ms - i64::from(s)).collect() } else { Vec::new() },
        };
        let block = self.writer.resolve(columns).unwrap();
        let batch = Batch {
            life: LIFE,
            sequence,
            received_ms: at_ms,
            fresh_ms: at_ms,
            blocks: vec![block],
            retired: Vec::new(),
            pin: self.node.pin(),
        };
        log.append(Entry { node: Arc::clone(&self.node), batch, done: self.done.clone() });
    }
}

/// (series label, time, value) of all rows.
fn rows(log: &Log) -> Vec<(String, i64, f64)> {
    log.export(ExportFilter::default()).map(|r| (r.series.labels["v"].clone(), r.ts_ms, r.value)).collect()
}

fn expected(sequences: impl Iterator<Item = u64>, series: &[u32]) -> Vec<(String, i64, f64)> {
    sequences
        .flat_map(|q| {
            series.iter().map(move |s| (s.to_string(), *NOW + q as i64, f64::from(*s) + q as f64 * 1000.0))
        })
        .collect()
}

fn durable(log: &Log, node: &str) -> Option<u64> {
    log.watermarks(&NodeId::new(node).unwrap()).iter().find(|m| m.life == LIFE).map(|m| m.sequence)
}

#[test]
fn what_is_told_durable_is_there_after_a_crash_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Feed::new("n1", 10);
    let all: Vec<u32> = (0..10).collect();
    {
        let (log, recovered) = Log::open(options(dir.path())).unwrap();
        assert_eq!(recovered, Recovered::default());
        assert!(matches!(Log::open(options(dir.path())), Err(OpenError::Locked { .. })));
        for q in 1..=20 {
            feed.append(&log, q, &all, false);
        }
        feed.done.wait(LIFE, 20);
        assert_eq!(rows(&log), expected(1..=20, &all), "the active segment can be read");
        // A crash: the folder as it is now.
        copy(dir.path(), &dir.path().join("crash"));
    }
    let crashed = dir.path().join("crash");
    let (log, recovered) = Log::open(options(&crashed)).unwrap();
    assert_eq!(
        (recovered.segments, recovered.lives, recovered.corrupt_frames, recovered.torn_bytes),
        (1, 1, 0, 0)
    );
    assert_eq!(durable(&log, "n1"), Some(20));
    feed.append(&log, 21, &[3, 1], true);
    feed.done.wait(LIFE, 21);
    let got = rows(&log);
    assert_eq!(got[..200], expected(1..=20, &all)[..]);
    assert_eq!(got[200..], [("3".to_owned(), *NOW + 18, 21003.0), ("1".to_owned(), *NOW + 20, 21001.0)]);
    let filter = ExportFilter {
        selectors: vec![Selector::parse(r#"g{v="3"}"#).unwrap()],
        node: Some(NodeId::new("n1").unwrap()),
        from_ms: Some(*NOW + 5),
        to_ms: Some(*NOW + 7),
    };
    let some: Vec<_> = log.export(filter).collect();
    assert_eq!(some.iter().map(|r| r.value).collect::<Vec<_>>(), [5003.0, 6003.0]);
    let json = serde_json::to_string(&some[0]).unwrap();
    let want = format!(
        r#"{{"node":"n1","name":"g","labels":{{"instance":"n1","v":"3"}},"ts_ms":{},"value":5003.0}}"#,
        *NOW + 5
    );
    assert_eq!(json, want);
    let other = ExportFilter { node: Some(NodeId::new("n2").unwrap()), ..ExportFilter::default() };
    assert_eq!(log.export(other).count(), 0);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap().map(Result::unwrap).filter(|i| i.path().is_file()) {
        std::fs::copy(item.path(), to.join(item.file_name())).unwrap();
    }
}

/// The one raw segment of a log that was never closed.
fn written(dir: &Path, sequences: u64, series: &[u32]) -> Vec<u8> {
    let feed = Feed::new("n1", 10);
    let live = dir.join("live");
    let (log, _) = Log::open(options(&live)).unwrap();
    for q in 1..=sequences {
        feed.append(&log, q, series, false);
        feed.done.wait(LIFE, q);
    }
    std::fs::read(super::segment::raw_path(&live, 1)).unwrap()
}

#[test]
fn a_torn_tail_is_cut_at_every_length() {
    let dir = tempfile::tempdir().unwrap();
    let whole = written(dir.path(), 4, &[0, 1]);
    for length in 0..whole.len() {
        let torn = dir.path().join("torn");
        let _ = std::fs::remove_dir_all(&torn);
        std::fs::create_dir(&torn).unwrap();
        std::fs::write(super::segment::raw_path(&torn, 1), &whole[..length]).unwrap();
        let (log, recovered) = Log::open(options(&torn)).unwrap();
        assert_eq!(recovered.corrupt_frames, 0);
        let last = durable(&log, "n1").unwrap_or(0);
        assert_eq!(rows(&log), expected(1..=last, &[0, 1]), "cut at {length}");
        if length == whole.len() - 1 {
            assert_eq!(last, 3);
        }
        drop(log);
        // What recovery left is whole.
        let (_, again) = Log::open(options(&torn)).unwrap();
        assert_eq!((again.torn_bytes, again.corrupt_frames), (0, 0));
    }
}

#[test]
fn a_flipped_byte_costs_what_it_hit_and_never_invents() {
    let dir = tempfile::tempdir().unwrap();
    let whole = written(dir.path(), 4, &[0, 1]);
    let truth = expected(1..=4, &[0, 1]);
    for at in 0..whole.len() {
        let bad = dir.path().join("bad");
        let _ = std::fs::remove_dir_all(&bad);
        std::fs::create_dir(&bad).unwrap();
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(super::segment::raw_path(&bad, 1), &bytes).unwrap();
        let (log, _) = Log::open(options(&bad)).unwrap();
        let got = rows(&log);
        assert!(got.iter().all(|row| truth.contains(row)), "byte {at}: {got:?}");
        assert!(durable(&log, "n1").unwrap_or(0) <= 4);
    }
}

#[test]
fn segments_rotate_are_compressed_and_go_at_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Feed::new("n1", 500);
    let all: Vec<u32> = (0..500).collect();
    let bounded = LogOptions { segment_bytes: 40_000, max_bytes: 60_000, ..options(dir.path()) };
    let (log, _) = Log::open(bounded.clone()).unwrap();
    for q in 1..=200 {
        feed.append(&log, q, &all, false);
        feed.done.wait(LIFE, q);
    }
    wait_for(|| log.status().bytes <= 100_000 && log.status().segments < 20, "the bound to be kept");
    wait_for(|| log.export(ExportFilter::default()).next().is_some(), "rows");
    let packed = || {
        std::fs::read_dir(dir.path())
            .unwrap()
            .any(|f| f.unwrap().path().extension().is_some_and(|e| e == "zst"))
    };
    wait_for(packed, "a compressed segment");
    let got = rows(&log);
    let first = (got[0].1 - *NOW) as u64;
    assert!(first > 1, "the oldest went");
    assert_eq!(got, expected(first..=200, &all));
    assert_eq!(durable(&log, "n1"), Some(200));
    drop(log);
    // The watermark outlives its segments, by the checkpoint alone.
    for file in std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path()) {
        if file.file_name().is_some_and(|n| n != "watermarks") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let (log, recovered) = Log::open(bounded).unwrap();
    assert_eq!((recovered.segments, recovered.lives, durable(&log, "n1")), (0, 1, Some(200)));
}

#[test]
fn a_damaged_checkpoint_is_made_up_for_by_the_segments() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Feed::new("n1", 3);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    feed.append(&log, 9, &[0], false);
    feed.done.wait(LIFE, 9);
    drop(log);
    std::fs::write(dir.path().join("watermarks"), b"PKTMARK1 nonsense").unwrap();
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert_eq!(durable(&log, "n1"), Some(9));
}

#[test]
fn a_disk_that_refuses_holds_back_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("log");
    let feed = Feed::new("n1", 10);
    let (log, _) = Log::open(LogOptions { queue_bytes: 1000, ..options(&logs) }).unwrap();
    // No new segment can be made here.
    let away = dir.path().join("away");
    std::fs::rename(&logs, &away).unwrap();
    feed.append(&log, 1, &[0], false);
    wait_for(|| log.status().stalled.is_some(), "the log to say that it is stalled");
    for q in 2..=20 {
        feed.append(&log, q, &[0, 1, 2], false);
    }
    let waker = futures_util::task::noop_waker();
    let cx = std::task::Context::from_waker(&waker);
    assert!(log.poll_room(&cx).is_pending());
    assert_eq!(*feed.done.0.lock().unwrap(), BTreeMap::new(), "nothing is told durable");
    assert_eq!(durable(&log, "n1"), None);
    std::fs::rename(&away, &logs).unwrap();
    feed.done.wait(LIFE, 20);
    wait_for(|| log.poll_room(&cx).is_ready(), "room");
    assert_eq!(log.status().stalled, None);
    assert_eq!(rows(&log).len(), 1 + 19 * 3);
}

#[test]
fn a_file_that_a_failed_try_left_holds_up_one_try() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Feed::new("n1", 1);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let left = segment::raw_path(dir.path(), 1);
    std::fs::write(&left, b"PKT").unwrap();
    feed.append(&log, 1, &[0], false);
    feed.done.wait(LIFE, 1);
    assert_eq!(std::fs::read(&left).unwrap(), b"PKT");
    assert_eq!(log.status().stalled, None);
    drop(log);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    assert_eq!((durable(&log, "n1"), rows(&log).len()), (Some(1), 1));
}

#[test]
fn latest_values_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let feed = Feed::new("n1", 4);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    feed.append(&log, 1, &[0, 1, 2, 3], false);
    feed.append(&log, 2, &[1], true);
    let block = Columns { timestamp_ms: *NOW + 3, series: vec![0], values: vec![5.0], times_ms: vec![] };
    let batch = Batch {
        life: LIFE,
        sequence: 3,
        received_ms: *NOW + 3,
        fresh_ms: *NOW + 3,
        blocks: vec![feed.writer.resolve(block).unwrap()],
        retired: feed.writer.undefine(&[2]),
        pin: feed.node.pin(),
    };
    log.append(Entry { node: Arc::clone(&feed.node), batch, done: feed.done.clone() });
    feed.done.wait(LIFE, 3);
    drop(log);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    let store = Store::new(StoreOptions::default());
    assert_eq!(crate::ingest::UplinkService::restore(&store, &log, *NOW + 4), 3);
    let mut found: Vec<_> =
        store.series(&[], 10, *NOW + 4).into_iter().map(|s| (s.labels["v"].clone(), s.value)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, [("0".to_owned(), 5.0), ("1".to_owned(), 2001.0), ("3".to_owned(), 1003.0)]);
    let late = Store::new(StoreOptions::default());
    assert_eq!(crate::ingest::UplinkService::restore(&late, &log, *NOW + 3_600_000), 0);
}

#[test]
fn reclaimed_slots_get_new_definitions() {
    let dir = tempfile::tempdir().unwrap();
    let mut feed = Feed::new("n1", 100);
    let (log, _) = Log::open(options(dir.path())).unwrap();
    feed.append(&log, 1, &[0, 99], false);
    feed.done.wait(LIFE, 1);
    // A new stream names but one of them; the rest goes.
    feed.writer = feed.store.writer(&feed.node);
    let mut define = feed.writer.define(*NOW);
    define.family(0, "g", MetricType::Gauge, "", "").unwrap();
    define.series(0, 0, Part::Value, [("v", "99")].into_iter()).unwrap();
    define.finish();
    let settled = || {
        feed.store.sweep(*NOW + 100_000_000);
        feed.node.epoch() == 1
    };
    wait_for(settled, "the reclaim");
    feed.append(&log, 2, &[0], false);
    feed.done.wait(LIFE, 2);
    let got: Vec<_> = rows(&log).into_iter().map(|r| (r.0, r.2)).collect();
    assert_eq!(got, [("0".to_owned(), 1000.0), ("99".to_owned(), 1099.0), ("99".to_owned(), 2000.0)]);
    feed.node.take(
        &feed
            .writer
            .resolve(Columns { timestamp_ms: *NOW, series: vec![0], values: vec![1.0], times_ms: vec![] })
            .unwrap(),
        Stamp { timestamp_ms: *NOW, fresh_ms: *NOW, in_order: true },
    );
    assert_eq!(feed.store.series(&[], 10, *NOW).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any batches, in any shapes, over rotations and restarts, read back as they were.
    #[test]
    fn batches_read_back(batches in prop::collection::vec((prop::collection::vec(0u32..50, 0..40), any::<bool>()), 1..40), restart in 0usize..40) {
        let dir = tempfile::tempdir().unwrap();
        let feed = Feed::new("n1", 50);
        let small = LogOptions { segment_bytes: 2000, ..options(dir.path()) };
        let (mut log, _) = Log::open(small.clone()).unwrap();
        let mut want = Vec::new();
        for (i, (series, timed)) in batches.iter().enumerate() {
            let sequence = i as u64 + 1;
            feed.append(&log, sequence, series, *timed);
            for &s in series {
                let at = *NOW + sequence as i64 - if *timed { i64::from(s) } else { 0 };
                want.push((s.to_string(), at, f64::from(s) + sequence as f64 * 1000.0));
            }
            if i % 7 == 0 {
                feed.done.wait(LIFE, sequence);
            }
            if i == restart {
                drop(log);
                log = Log::open(small.clone()).unwrap().0;
            }
        }
        feed.done.wait(LIFE, batches.len() as u64);
        prop_assert_eq!(rows(&log), want);
        prop_assert_eq!(durable(&log, "n1"), Some(batches.len() as u64));
    }

    /// No bytes make the reader fail.
    #[test]
    fn any_segment_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = super::frame::MAGIC.to_vec();
        segment.extend_from_slice(&1u64.to_le_bytes());
        // A payload with a good checksum, so that its fields are read.
        let at = segment.len();
        segment.extend_from_slice(&[0; 8]);
        segment.extend_from_slice(&bytes);
        super::frame::end(&mut segment, at);
        std::fs::write(super::segment::raw_path(dir.path(), 1), &segment).unwrap();
        let (log, _) = Log::open(options(dir.path())).unwrap();
        prop_assert_eq!(log.export(ExportFilter::default()).count(), 0);
    }
}
