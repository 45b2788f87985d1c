use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use picket_proto::model::NodeId;
use picket_proto::v1;
use proptest::prelude::*;

use super::follow::Next;
use super::logql::parse_log;
use super::push::PushedStream;
use super::query::{Budget, Direction, LogQuery, StreamsQuery};
use super::{LogStore, OpenError, Options, Position, Recovered, Refusal, chunk, wal};
use crate::clock::Clock;

const LIFE: u64 = 7;
const SECOND: i64 = 1_000_000_000;

/// Near the machine's own time; whole seconds.
static NOW_MS: LazyLock<i64> = LazyLock::new(|| Clock::system().now_ms() / 1000 * 1000);

fn now_ns() -> i64 {
    *NOW_MS * 1_000_000
}

pub fn node() -> NodeId {
    NodeId::new("gpu-1").unwrap()
}

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_path_buf(),
        linger: Duration::ZERO,
        clock: Clock::manual(*NOW_MS),
        ..Options::default()
    }
}

/// A store and what it takes to use it.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub options: Options,
    pub store: Arc<LogStore>,
    runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path());
        change(&mut options);
        let (store, _) = LogStore::open(options.clone()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { dir, options, store, runtime }
    }

    pub fn record(&self, sequence: u64, streams: Vec<v1::LogStream>) {
        self.runtime.block_on(self.store.record(&node(), LIFE, sequence, streams)).unwrap();
    }

    fn push(&self, digest: u8, labels: &[(&str, &str)], entries: &[(i64, &str)]) -> Vec<Refusal> {
        let stream = PushedStream {
            labels: labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            entries: entries.iter().map(|(t, l)| (*t, (*l).to_owned())).collect(),
        };
        self.runtime.block_on(self.store.push("shipper", [digest; 16], vec![stream])).unwrap()
    }

    /// All lines, oldest first.
    pub fn lines(&self, query: &str) -> Vec<String> {
        self.some(query, Direction::Forward, 100_000).into_iter().map(|(_, line)| line).collect()
    }

    /// Times (since now, in seconds) and lines in the query's direction, all streams together.
    fn some(&self, query: &str, direction: Direction, limit: usize) -> Vec<(i64, String)> {
        let query =
            LogQuery { log: parse_log(query).unwrap(), from_ns: i64::MIN, to_ns: i64::MAX, direction, limit };
        let found = self.store.lines(&query, &budget()).unwrap();
        let lines = found.streams.iter().flat_map(|s| &s.lines);
        let mut lines: Vec<(i64, String)> =
            lines.map(|(t, l)| ((t - now_ns()) / SECOND, l.to_string())).collect();
        match direction {
            Direction::Forward => lines.sort_by_key(|(time, _)| *time),
            Direction::Backward => lines.sort_by_key(|(time, _)| -*time),
        }
        lines
    }

    fn reopen(&mut self) -> Recovered {
        self.store.close();
        let (store, recovered) = LogStore::open(self.options.clone()).unwrap();
        self.store = store;
        recovered
    }

    /// The files with this ending.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.dir.path()).unwrap().map(|item| item.unwrap().path());
        let mut files: Vec<PathBuf> = all.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        files.sort();
        files
    }

    /// Until all but the active segment is packed.
    fn wait_packed(&self, chunks: usize) {
        wait_for(
            || self.files(".chunks").len() >= chunks && self.files(".wal").len() <= 1,
            "the segments to be packed",
        );
    }
}

pub fn budget() -> Budget {
    Budget::new(Duration::from_secs(60), u64::MAX)
}

/// Lines of one stream; times are seconds from now.
pub fn stream(labels: &[(&str, &str)], lines: &[(i64, &str)]) -> v1::LogStream {
    v1::LogStream {
        labels: labels
            .iter()
            .map(|(name, value)| v1::Label { name: (*name).to_owned(), value: (*value).to_owned() })
            .collect(),
        timestamps_ns: lines.iter().map(|(time, _)| now_ns() + time * SECOND).collect(),
        lines: lines.iter().map(|(_, line)| (*line).to_owned()).collect(),
    }
}

fn wait_for(mut ready: impl FnMut() -> bool, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn lines_are_there_when_they_are_durable_and_know_their_node() {
    let mut rig = Rig::new();
    rig.record(1, vec![stream(&[("container", "x"), ("node", "liar")], &[(-3, "one"), (-2, "two")])]);
    for _ in 0..2 {
        assert_eq!(rig.lines(r#"{node="gpu-1"}"#), ["one", "two"]);
        assert_eq!(rig.lines(r#"{instance="gpu-1", container="x"} |= "w""#), ["two"]);
        assert_eq!(rig.lines(r#"{node="liar"}"#), [""; 0]);
        assert_eq!(rig.reopen().corrupt, 0);
    }
}

#[test]
fn a_batch_that_comes_again_counts_once_before_and_after_a_restart() {
    let mut rig = Rig::new();
    let batch = || vec![stream(&[("container", "x")], &[(-1, "once")])];
    rig.record(1, batch());
    rig.record(1, batch());
    assert_eq!(rig.lines(r#"{container="x"}"#), ["once"]);
    assert_eq!(rig.reopen().lives, 1);
    rig.record(1, batch());
    assert_eq!(rig.lines(r#"{container="x"}"#), ["once"]);
    // Packed, the watermark is in the checkpoint alone.
    rig.reopen();
    rig.wait_packed(1);
    rig.reopen();
    rig.record(1, batch());
    rig.record(2, vec![stream(&[("container", "x")], &[(0, "two")])]);
    assert_eq!(rig.lines(r#"{container="x"}"#), ["once", "two"]);
}

#[test]
fn a_push_that_comes_again_counts_once() {
    let mut rig = Rig::new();
    for _ in 0..2 {
        assert_eq!(rig.push(1, &[("job", "j")], &[(now_ns(), "pushed")]), []);
    }
    rig.reopen();
    assert_eq!(rig.push(1, &[("job", "j")], &[(now_ns(), "pushed")]), []);
    assert_eq!(rig.lines(r#"{pushed_by="shipper"}"#), ["pushed"]);
    assert_eq!(rig.push(2, &[("job", "j")], &[(now_ns(), "pushed")]), [], "another push may say the same");
    assert_eq!(rig.lines(r#"{job="j"}"#), ["pushed", "pushed"]);
}

#[test]
fn what_is_refused_of_a_push_is_told_and_the_rest_is_kept() {
    let rig = Rig::with(|options| options.max_streams = 1);
    let long = "x".repeat(super::MAX_LINE + 1);
    let week = 8 * 24 * 3600 * SECOND;
    let entries = [
        (now_ns() - week, "old"),
        (now_ns() + 3600 * SECOND, "new"),
        (now_ns(), long.as_str()),
        (now_ns(), "good"),
    ];
    let refused = rig.push(1, &[("job", "j")], &entries);
    let kinds = |list: &[Refusal]| {
        list.iter()
            .map(|refusal| match refusal {
                Refusal::TooOld { .. } => "old",
                Refusal::TooNew { .. } => "new",
                Refusal::TooLong { .. } => "long",
                Refusal::Labels { .. } => "labels",
                Refusal::NoLabels => "none",
                Refusal::Streams { .. } => "streams",
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds(&refused), ["old", "new", "long"]);
    assert!(
        refused
            .iter()
            .any(|r| r.to_string().starts_with("entry for stream '{job=\"j\"}' has timestamp too old: "))
    );
    assert_eq!(kinds(&rig.push(2, &[("bad-name", "j")], &[(now_ns(), "l")])), ["labels"]);
    assert_eq!(kinds(&rig.push(3, &[], &[(now_ns(), "l")])), ["none"]);
    assert_eq!(kinds(&rig.push(4, &[("job", "another")], &[(now_ns(), "l")])), ["streams"]);
    assert_eq!(rig.lines(r#"{job=~".+"}"#), ["good"]);
}

#[test]
fn an_agents_lines_outside_the_window_are_dropped_and_long_ones_cut() {
    let rig = Rig::new();
    let long = "ü".repeat(super::MAX_LINE);
    let week = 8 * 24 * 3600;
    rig.record(1, vec![stream(&[("c", "x")], &[(-week, "old"), (3600, "new"), (0, &long), (0, "good")])]);
    let lines = rig.lines(r#"{c="x"}"#);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().any(|line| line == "good"));
    assert!(lines.iter().any(|line| line.len() == super::MAX_LINE && line.chars().all(|c| c == 'ü')));
}

#[test]
fn packing_changes_nothing_that_is_told() {
    let rig = Rig::with(|options| options.segment_bytes = 4096);
    let mut want = Vec::new();
    for sequence in 1..=40u64 {
        let at = sequence as i64 - 100;
        let text = format!("batch {sequence} {}", "filler ".repeat(40));
        let other = format!("other {sequence}");
        want.push(text.clone());
        // Late and out of order within the batch.
        let streams = vec![
            stream(&[("c", "x")], &[(at, &text)]),
            stream(&[("c", "y")], &[(at - 50, "late"), (at, &other), (at - 1, "before")]),
        ];
        rig.record(sequence, streams);
    }
    rig.wait_packed(2);
    assert_eq!(rig.lines(r#"{c="x"}"#), want);
    assert_eq!(rig.lines(r#"{c="y"} |= "other 7""#), ["other 7"]);
    assert_eq!(rig.lines(r#"{c="y"} |= "late""#).len(), 40);
    let newest: Vec<i64> =
        rig.some(r#"{c="y"}"#, Direction::Backward, 3).into_iter().map(|(t, _)| t).collect();
    assert_eq!(newest, [-60, -61, -61]);
    let oldest: Vec<i64> =
        rig.some(r#"{c="y"}"#, Direction::Forward, 2).into_iter().map(|(t, _)| t).collect();
    assert_eq!(oldest, [-149, -148]);
    let query = StreamsQuery { selectors: Vec::new(), from_ns: 0, to_ns: i64::MAX };
    assert_eq!(rig.store.label_names(&query, &budget()).unwrap(), ["c", "instance", "node"]);
    assert_eq!(rig.store.label_values("c", &query, &budget()).unwrap(), ["x", "y"]);
    assert_eq!(rig.store.series(&query, &budget()).unwrap().len(), 2);
    let stats = rig.store.stats(&query, &budget()).unwrap();
    assert_eq!((stats.streams, stats.entries), (2, 160));
}

#[test]
fn lines_of_one_time_stay_in_the_order_in_which_they_came() {
    let rig = Rig::with(|options| options.segment_bytes = 1);
    let lines: Vec<String> = (0..20).map(|n| format!("line {n}")).collect();
    let batch: Vec<(i64, &str)> = lines.iter().map(|line| (0, line.as_str())).collect();
    rig.record(1, vec![stream(&[("c", "x")], &batch[..10])]);
    rig.record(2, vec![stream(&[("c", "x")], &batch[10..])]);
    for _ in 0..2 {
        assert_eq!(rig.lines(r#"{c="x"}"#), lines);
        let last = rig.some(r#"{c="x"}"#, Direction::Backward, 2);
        assert_eq!(last.iter().map(|(_, l)| l.as_str()).collect::<Vec<_>>(), ["line 19", "line 18"]);
        rig.wait_packed(2);
    }
}

#[test]
fn a_torn_tail_is_cut_and_a_damaged_frame_skipped() {
    let mut rig = Rig::new();
    for sequence in 1..=3 {
        rig.record(sequence, vec![stream(&[("c", "x")], &[(0, &format!("line {sequence}"))])]);
    }
    rig.store.close();
    let file = rig.files(".wal").pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let frames = wal::read(&whole, |_| {}).frames;
    // The last frame torn, the first one damaged.
    let mut bytes = whole[..whole.len() - 3].to_vec();
    bytes[frames[0].offset as usize + 40] ^= 0xff;
    std::fs::write(&file, bytes).unwrap();
    // A crash writes no checkpoint.
    std::fs::remove_file(rig.dir.path().join("watermarks")).unwrap();
    let recovered = rig.reopen();
    assert_eq!(recovered.corrupt, 1);
    assert!(recovered.torn_bytes > 0, "{recovered:?}");
    assert_eq!(rig.lines(r#"{c="x"}"#), ["line 2"]);
    // What was torn was never acknowledged: it comes again.
    rig.record(3, vec![stream(&[("c", "x")], &[(0, "line 3")])]);
    assert_eq!(rig.lines(r#"{c="x"}"#), ["line 2", "line 3"]);
}

#[test]
fn every_cut_of_the_write_ahead_file_leaves_whole_batches() {
    let rig = Rig::new();
    for sequence in 1..=3 {
        rig.record(sequence, vec![stream(&[("c", "x")], &[(0, &format!("line {sequence}"))])]);
    }
    rig.store.close();
    let file = rig.files(".wal").pop().unwrap();
    let whole = std::fs::read(&file).unwrap();
    let ends: Vec<u64> = wal::read(&whole, |_| {}).frames.iter().map(wal::FrameAt::end).collect();
    for cut in 0..=whole.len() {
        let found = wal::read(&whole[..cut], |_| {});
        let want = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!((found.frames.len(), found.corrupt), (want, 0), "cut at {cut}");
    }
}

#[test]
fn a_damaged_page_or_footer_loses_only_its_lines() {
    let mut rig = Rig::with(|options| options.segment_bytes = 1);
    for sequence in 1..=3 {
        rig.record(sequence, vec![stream(&[("c", "x")], &[(0, &format!("line {sequence}"))])]);
    }
    rig.wait_packed(3);
    rig.store.close();
    let files = rig.files(".chunks");
    for (file, at) in [(&files[0], 20), (&files[1], usize::MAX)] {
        let mut bytes = std::fs::read(file).unwrap();
        let at = at.min(bytes.len() - 20);
        bytes[at] ^= 0xff;
        std::fs::write(file, bytes).unwrap();
    }
    assert_eq!(rig.reopen().corrupt, 1, "the footer is looked at when opening");
    assert_eq!(rig.lines(r#"{c="x"}"#), ["line 3"]);
    assert_eq!(rig.files(".damaged").len(), 1);
}

#[test]
fn a_crash_between_two_renames_leaves_one_of_the_two_files() {
    let mut rig = Rig::new();
    rig.record(1, vec![stream(&[("c", "x")], &[(0, "line")])]);
    rig.store.close();
    let file = rig.files(".wal").pop().unwrap();
    let before = std::fs::read(&file).unwrap();
    rig.reopen();
    rig.wait_packed(1);
    rig.store.close();
    std::fs::write(&file, &before).unwrap();
    std::fs::write(chunk::temporary_path(rig.dir.path(), 9), b"half").unwrap();
    rig.reopen();
    assert_eq!(rig.lines(r#"{c="x"}"#), ["line"], "and not twice");
    assert_eq!((rig.files(".wal").len(), rig.files(".new").len()), (0, 0));
}

#[test]
fn the_bound_of_size_drops_the_oldest_first() {
    let rig = Rig::with(|options| {
        options.segment_bytes = 1;
        options.max_bytes = 4000;
    });
    for sequence in 1..=30 {
        rig.record(sequence, vec![stream(&[("c", "x")], &[(0, &format!("line {sequence:04}"))])]);
    }
    wait_for(|| rig.store.status().bytes <= 4000 && rig.files(".wal").len() <= 1, "the store to fit");
    let lines = rig.lines(r#"{c="x"}"#);
    assert!(!lines.is_empty() && lines.len() < 30, "{}", lines.len());
    assert_eq!(lines.last().unwrap(), "line 0030");
    assert!(lines.is_sorted());
}

#[test]
fn the_bound_of_age_hides_and_then_drops() {
    let rig = Rig::with(|options| options.segment_bytes = 1);
    rig.record(1, vec![stream(&[("c", "x")], &[(-3600, "old"), (0, "line")])]);
    rig.wait_packed(1);
    rig.options.clock.advance(rig.options.max_age - Duration::from_secs(60));
    assert_eq!(
        rig.lines(r#"{c="x"}"#),
        ["line"],
        "a line past its age isn't told, though its segment is there"
    );
    rig.options.clock.advance(Duration::from_secs(120));
    let dropped = || {
        crate::durable::Packer::keep_bounds(&*rig.store.shared);
        rig.files(".chunks").is_empty()
    };
    wait_for(dropped, "the old segment to be dropped");
}

#[test]
fn two_stores_cannot_share_a_folder() {
    let rig = Rig::new();
    assert!(matches!(LogStore::open(rig.options.clone()), Err(OpenError::Locked { .. })));
}

#[test]
fn followers_see_all_in_order_through_packing_and_restarts() {
    let mut rig = Rig::with(|options| options.segment_bytes = 300);
    let mut position = Position { segment: 0, offset: 0 };
    let mut seen = Vec::new();
    let mut sequence = 0;
    for round in 0..6 {
        for _ in 0..5 {
            sequence += 1;
            rig.record(sequence, vec![stream(&[("c", "x")], &[(0, &format!("line {sequence}"))])]);
        }
        let mut follower = rig.store.follow(position);
        loop {
            match follower.read() {
                Next::Piece(piece) => {
                    seen.extend(piece.streams.into_iter().flat_map(|(_, l)| l).map(|(_, l)| l))
                }
                // Packed before it was read: told as a whole, in the order of streams and times.
                Next::Packed(piece) => {
                    seen.extend(piece.streams.into_iter().flat_map(|(_, l)| l).map(|(_, l)| l))
                }
                Next::Gone { segments } => panic!("{segments} gone"),
                Next::End => break,
            }
        }
        position = follower.position();
        if round % 2 == 1 {
            rig.reopen();
            rig.wait_packed(1);
        }
    }
    seen.sort_by_key(|line| line.trim_start_matches("line ").parse::<u64>().unwrap());
    seen.dedup();
    let want: Vec<String> = (1..=sequence).map(|n| format!("line {n}")).collect();
    assert_eq!(seen, want);
    let mut follower = rig.store.follow(rig.store.end());
    assert_eq!(follower.read(), Next::End);
}

#[test]
fn a_file_that_a_failed_try_left_holds_up_one_try() {
    let mut rig = Rig::new();
    let left = wal::path(rig.dir.path(), 1);
    std::fs::write(&left, b"PKT").unwrap();
    rig.record(1, vec![stream(&[("c", "x")], &[(0, "kept")])]);
    assert_eq!(std::fs::read(&left).unwrap(), b"PKT");
    assert_eq!(rig.store.status().stalled, None);
    let recovered = rig.reopen();
    assert_eq!(recovered.torn_bytes, 3);
    assert_eq!(rig.lines("{c=\"x\"}"), ["kept"]);
    assert!(!left.exists());
}

#[test]
fn closing_tells_those_that_wait_that_nothing_was_kept() {
    let rig = Rig::new();
    rig.store.close();
    let kept =
        rig.runtime.block_on(rig.store.record(&node(), LIFE, 1, vec![stream(&[("c", "x")], &[(0, "l")])]));
    assert!(kept.is_err());
}

#[derive(Debug, Clone)]
enum Act {
    Batch(Vec<(u8, i64, String)>),
    Again,
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let line = (0u8..3, -1000i64..0, "[a-c]{0,12}");
    prop_oneof![
        4 => proptest::collection::vec(line, 0..8).prop_map(Act::Batch),
        1 => Just(Act::Again),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever order things happen in, what is told is what was acknowledged: as a plain list would tell it.
    #[test]
    fn the_store_tells_what_a_list_would(acts in proptest::collection::vec(act(), 1..20), limit in 1usize..12) {
        let mut rig = Rig::with(|options| options.segment_bytes = 400);
        let mut model: Vec<(i64, usize, u8, String)> = Vec::new();
        let (mut sequence, mut last) = (0, Vec::new());
        for act in acts {
            match act {
                Act::Batch(lines) => {
                    sequence += 1;
                    let streams: Vec<_> = lines
                        .iter()
                        .map(|(s, time, line)| stream(&[("s", &s.to_string())], &[(*time, line)]))
                        .collect();
                    rig.record(sequence, streams.clone());
                    for (s, time, line) in lines {
                        model.push((time, model.len(), s, line));
                    }
                    last = streams;
                }
                Act::Again if sequence > 0 => rig.record(sequence, last.clone()),
                Act::Again => {}
                Act::Reopen => drop(rig.reopen()),
            }
        }
        model.sort_by_key(|(time, at, ..)| (*time, *at));
        for (query, keep) in [("{s=~\".+\"}", None), ("{s=\"1\"}", Some(1u8))] {
            let want: Vec<_> = model.iter().filter(|(_, _, s, _)| keep.is_none_or(|k| k == *s)).collect();
            let forward: Vec<i64> = rig.some(query, Direction::Forward, limit).into_iter().map(|(t, _)| t).collect();
            prop_assert_eq!(forward, want.iter().take(limit).map(|(t, ..)| *t).collect::<Vec<_>>());
            let backward: Vec<i64> = rig.some(query, Direction::Backward, limit).into_iter().map(|(t, _)| t).collect();
            prop_assert_eq!(backward, want.iter().rev().take(limit).map(|(t, ..)| *t).collect::<Vec<_>>());
            let mut lines = rig.lines(query);
            let mut all: Vec<String> = want.iter().map(|(.., line)| line.clone()).collect();
            lines.sort();
            all.sort();
            prop_assert_eq!(lines, all);
        }
    }
}
