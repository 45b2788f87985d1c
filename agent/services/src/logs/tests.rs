use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use proptest::prelude::*;

use super::reader::Ask;
use super::*;

const LINGER: Linger = Linger { renamed: Duration::from_secs(60), deleted: Duration::from_secs(5) };

/// An agent's life beside a folder of logs: its reader, and what is durable.
struct World {
    folder: tempfile::TempDir,
    reader: Reader,
    totals: Arc<Mutex<Totals>>,
    cursors: BTreeMap<String, String>,
    lines: Vec<String>,
    collect: u64,
    now: Instant,
    patterns: Vec<String>,
    from_the_end: bool,
}

impl World {
    fn new(pattern: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pattern = folder.path().join(pattern).to_str().unwrap().to_owned();
        let totals = Arc::<Mutex<Totals>>::default();
        Self {
            reader: Reader::new(Vec::new(), totals.clone(), LINGER),
            totals,
            folder,
            cursors: BTreeMap::new(),
            lines: Vec::new(),
            collect: 0,
            now: Instant::now(),
            patterns: vec![pattern],
            from_the_end: false,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy_and_empty(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        self.empty(from);
    }

    fn empty(&self, name: &str) {
        fs::OpenOptions::new().write(true).truncate(true).open(self.path(name)).unwrap();
    }

    fn pages(&mut self) -> Vec<Chunk> {
        self.now += Duration::from_secs(2);
        self.collect += 1;
        self.reader.begin(self.collect);
        let mut chunks = Vec::new();
        loop {
            let wanted = Wanted { from_the_end: self.from_the_end, ..Wanted::default() };
            let ask = Ask { wanted, patterns: self.patterns.clone(), journal: None, engines: None };
            let page = self.reader.read(ask, 512 << 10, &[], self.now).unwrap();
            let none = page.chunks.is_empty();
            chunks.extend(page.chunks);
            if none {
                return chunks;
            }
        }
    }

    /// Reads all there is, holding back the last bytes of each source's last chunk.
    fn collect_holding(&mut self, held: u32) -> Vec<Chunk> {
        let chunks = self.pages();
        self.record(&chunks, held);
        chunks
    }

    /// What the guest does with what it was handed.
    fn record(&mut self, chunks: &[Chunk], held: u32) {
        let mut last: BTreeMap<&str, &Chunk> = BTreeMap::new();
        for chunk in chunks {
            last.insert(&chunk.name, chunk);
        }
        // Whole lines, as a guest holds them back.
        let lines = |chunk: &Chunk| {
            let keep = chunk.bytes.len().saturating_sub(held as usize);
            let whole = chunk.bytes[..keep].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            if held == 0 { 0 } else { u32::try_from(chunk.bytes.len() - whole).unwrap() }
        };
        let back: Vec<(u32, u32)> = last.values().map(|c| (c.id, lines(c))).collect();
        let cursors = self.reader.prepare(self.collect, &back).unwrap();
        for chunk in chunks {
            let keep = chunk.bytes.len()
                - back.iter().find(|(id, _)| *id == chunk.id).map_or(0, |(_, b)| *b as usize);
            let text = String::from_utf8(chunk.bytes[..keep].to_vec()).unwrap();
            self.lines.extend(text.split_inclusive('\n').map(|l| l.trim_end_matches('\n').to_owned()));
        }
        for (source, state) in cursors {
            if state.is_empty() {
                self.cursors.remove(&source);
            } else {
                self.cursors.insert(source, state);
            }
        }
        self.reader.commit(self.collect, self.now);
    }

    fn collect(&mut self) -> Vec<Chunk> {
        self.collect_holding(0)
    }

    /// The agent is killed, and starts with what is durable.
    fn restart(&mut self) {
        self.reader = Reader::new(self.cursors.clone().into_iter().collect(), self.totals.clone(), LINGER);
    }

    fn lost(&self, reason: &str) -> u64 {
        self.totals.lock().unwrap().lost.get(reason).copied().unwrap_or(0)
    }
}

fn numbered(range: std::ops::Range<usize>) -> String {
    range.map(|n| format!("line number {n} of this log\n")).collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    numbered(range).lines().map(str::to_owned).collect()
}

#[test]
fn lines_come_once_and_only_whole_ones() {
    let mut world = World::new("*.log");
    world.write("a.log", "one\ntwo\nthr");
    world.collect();
    assert_eq!(world.lines, ["one", "two"]);
    world.write("a.log", "ee\n");
    world.collect();
    world.collect();
    assert_eq!(world.lines, ["one", "two", "three"]);
    assert_eq!(world.totals.lock().unwrap().bytes, 14);
}

#[test]
fn what_was_not_committed_is_read_again() {
    let mut world = World::new("*.log");
    world.write("a.log", &numbered(0..10));
    assert_eq!(world.pages().len(), 1);
    assert_eq!(world.pages().len(), 1);
    world.collect();
    assert!(world.pages().is_empty());
    assert_eq!(world.lines, expected(0..10));
}

#[test]
fn what_is_held_back_comes_again_with_its_age() {
    let mut world = World::new("*.log");
    world.write("a.log", "one\ntwo\n");
    world.collect_holding(4);
    assert_eq!(world.lines, ["one"]);
    world.write("a.log", "three\n");
    let chunks = world.collect_holding(10);
    assert_eq!((chunks[0].bytes.as_slice(), chunks[0].waited), (b"two\nthree\n".as_slice(), 2000));
    assert_eq!(world.collect()[0].waited, 4000);
    assert_eq!(world.lines, ["one", "two", "three"]);
}

#[test]
fn an_existing_file_may_begin_at_its_end_and_a_later_one_never() {
    let mut world = World::new("*.log");
    world.from_the_end = true;
    world.write("old.log", "before\nhalf of a li");
    world.collect();
    assert!(world.lines.is_empty());
    world.restart();
    world.write("old.log", "ne\nafter\n");
    world.write("new.log", "first\n");
    world.collect();
    world.lines.sort();
    assert_eq!(world.lines, ["after", "first"]);
}

/// Each way in which a log is rotated, with the agent running or down meanwhile, and with the rotated names granted too or not.
#[test]
fn rotation_loses_and_repeats_nothing() {
    for pattern in ["app.log", "app.log*"] {
        for down in [false, true] {
            for way in ["rename", "copy", "rename twice"] {
                let mut world = World::new(pattern);
                world.write("app.log", &numbered(0..100));
                world.collect();
                // Not read before it is rotated.
                world.write("app.log", &numbered(100..150));
                match way {
                    "rename" => world.rename("app.log", "app.log.1"),
                    "copy" => world.copy_and_empty("app.log", "app.log.1"),
                    _ => {
                        world.rename("app.log", "app.log.1");
                        world.rename("app.log.1", "app.log.2");
                    }
                }
                world.write("app.log", &numbered(150..160));
                if down {
                    world.restart();
                }
                for _ in 0..3 {
                    world.collect();
                }
                world.write("app.log", &numbered(160..170));
                // Long enough for the rotated one to be done with.
                for _ in 0..40 {
                    world.collect();
                }
                world.restart();
                world.collect();
                let mut lines = world.lines.clone();
                lines.sort_by_key(|line| line.split(' ').nth(2).unwrap().parse::<usize>().unwrap());
                assert_eq!(lines, expected(0..170), "{pattern} {way} down={down}");
                let lost = world.totals.lock().unwrap().lost.clone();
                assert!(lost.is_empty(), "{pattern} {way} down={down}: {lost:?}");
            }
        }
    }
}

#[test]
fn a_copy_that_is_made_first_is_not_read_twice() {
    let mut world = World::new("app.log*");
    world.write("app.log", &numbered(0..100));
    world.collect();
    world.write("app.log", &numbered(100..110));
    fs::copy(world.path("app.log"), world.path("app.log.1")).unwrap();
    // The original is followed meanwhile, and emptied only then.
    world.collect();
    world.collect();
    world.empty("app.log");
    world.write("app.log", &numbered(110..111));
    for _ in 0..40 {
        world.collect();
    }
    assert_eq!(world.lines, expected(0..111));
}

#[test]
fn a_deleted_file_is_read_to_its_end() {
    let mut world = World::new("*.log");
    world.write("a.log", &numbered(0..5));
    world.collect();
    world.write("a.log", "the end has no newline");
    fs::remove_file(world.path("a.log")).unwrap();
    for _ in 0..8 {
        world.collect();
    }
    assert_eq!(world.lines.last().map(String::as_str), Some("the end has no newline"));
    assert_eq!(world.lost("deleted"), 0);
    assert!(world.cursors.keys().all(|key| !key.starts_with("file ")), "{:?}", world.cursors);
}

#[test]
fn what_went_while_the_agent_was_down_is_counted() {
    let mut world = World::new("*.log");
    world.write("a.log", &numbered(0..5));
    world.collect();
    fs::remove_file(world.path("a.log")).unwrap();
    // The inode may be used again at once.
    world.write("b.log", "another\n");
    world.restart();
    world.collect();
    assert_eq!(world.lost("deleted"), 1);
    assert_eq!(world.lines.last().map(String::as_str), Some("another"));
    // An emptied one with no copy.
    fs::OpenOptions::new().write(true).truncate(true).open(world.path("b.log")).unwrap();
    world.write("b.log", "anew\n");
    world.collect();
    world.collect();
    assert_eq!((world.lost("truncated"), world.lines.last().map(String::as_str)), (1, Some("anew")));
}

#[test]
fn a_line_that_is_too_long_is_cut_also_over_a_restart() {
    let mut world = World::new("*.log");
    world.write("a.log", &"x".repeat(400 << 10));
    let chunks = world.collect();
    assert_eq!((chunks.len(), chunks[0].cut, chunks[0].bytes.len()), (1, true, tail::PIECE));
    world.restart();
    world.write("a.log", "and its end\nnext\n");
    world.collect();
    assert_eq!(world.lines[1..], ["next"]);
    assert_eq!(world.lost("long-line"), 1);
}

#[test]
fn one_flooded_file_does_not_starve_the_others() {
    let mut world = World::new("*.log");
    world.write("a.log", &numbered(0..200_000));
    world.write("z.log", "quiet\n");
    for _ in 0..2 {
        let chunks = world.collect();
        let bytes: usize = chunks.iter().map(|c| c.bytes.len()).sum();
        assert!(bytes <= 1 << 20, "{bytes}");
    }
    assert!(world.lines.iter().any(|line| line == "quiet"));
    for _ in 0..10 {
        world.collect();
    }
    world.lines.retain(|line| line != "quiet");
    assert_eq!(world.lines, expected(0..200_000));
}

#[test]
fn a_file_that_is_asked_for_again_goes_on_where_it_was() {
    let mut world = World::new("*.log");
    world.write("a.log", "one\n");
    world.collect();
    let patterns = std::mem::replace(&mut world.patterns, vec!["/nowhere/*.log".to_owned()]);
    world.write("a.log", "two\n");
    world.collect();
    world.restart();
    world.collect();
    world.patterns = patterns;
    world.collect();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.lost("deleted"), 0);
}

#[test]
fn links_do_not_lead_out() {
    let mut world = World::new("in/*.log");
    fs::create_dir(world.path("in")).unwrap();
    world.write("secret.log", "secret\n");
    std::os::unix::fs::symlink(world.path("secret.log"), world.path("in/a.log")).unwrap();
    std::os::unix::fs::symlink("b.txt", world.path("in/b.log")).unwrap();
    world.write("in/b.txt", "not granted either\n");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("in/pipe.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert!(world.pages().is_empty());
}

#[tokio::test]
async fn what_is_not_granted_is_denied() {
    let logs = Logs::default();
    let plugin = PluginId::new("logs").unwrap();
    let scope = Compiled {
        patterns: vec!["/var/log/app/*".to_owned()],
        units: vec!["a.service".to_owned()],
        journal: None,
        containers: None,
    };
    let limits = ServiceLimits::default();
    for (files, units) in [
        (vec!["/var/log/**".to_owned()], vec![]),
        (vec!["/etc/shadow".to_owned()], vec![]),
        (vec![], vec!["*".to_owned()]),
        (vec![], vec!["b.service".to_owned()]),
    ] {
        let wanted = Wanted { files, units, from_the_end: true };
        let request = Request::Read { collect: 1, wanted: wanted.clone(), most: 1 << 20, held: Vec::new() };
        let answer = logs.call(&plugin, &scope, &limits, request).await;
        assert!(matches!(answer, Err(Error::Denied(_))), "{wanted:?}: {answer:?}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize),
    Half,
    Rename,
    Copy,
    /// While what was read is still to be recorded.
    CopyBetween,
    /// With a look at each of its moments.
    CopySlowly,
    Collect,
    Fail,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1usize..40).prop_map(Step::Write),
        1 => Just(Step::Half),
        1 => Just(Step::Rename),
        1 => Just(Step::Copy),
        1 => Just(Step::CopyBetween),
        1 => Just(Step::CopySlowly),
        4 => Just(Step::Collect),
        2 => Just(Step::Fail),
        2 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

fn rotate(next: &mut usize) -> String {
    *next += 1;
    format!("app.log.{next}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done to a log that the agent could follow, each line arrives exactly once.
    #[test]
    fn every_line_arrives_once(steps in steps(), granted in prop::bool::ANY) {
        let mut world = World::new(if granted { "app.log*" } else { "app.log" });
        let (mut written, mut rotated, mut half) = (0, 0, false);
        world.write("app.log", "");
        world.collect();
        for step in steps {
            match step {
                Step::Write(count) => {
                    if std::mem::take(&mut half) {
                        world.write("app.log", " of this log\n");
                    }
                    world.write("app.log", &numbered(written..written + count));
                    written += count;
                }
                Step::Half => {
                    if !half {
                        world.write("app.log", &format!("line number {written}"));
                        written += 1;
                        half = true;
                    }
                }
                // A line that is cut apart by its own rotation is not one line any more.
                Step::Rename | Step::Copy | Step::CopyBetween | Step::CopySlowly if half => {}
                Step::Rename => {
                    // Seen once, as by a writer that begins its file and goes on.
                    world.collect();
                    world.rename("app.log", &rotate(&mut rotated));
                    world.write("app.log", "");
                }
                Step::Copy => {
                    // Read once, so that the copy can be known by what was read.
                    world.write("app.log", &numbered(written..written + 3));
                    world.collect();
                    world.write("app.log", &numbered(written + 3..written + 6));
                    written += 6;
                    world.copy_and_empty("app.log", &rotate(&mut rotated));
                    world.collect();
                }
                Step::CopyBetween => {
                    world.write("app.log", &numbered(written..written + 3));
                    let chunks = world.pages();
                    world.write("app.log", &numbered(written + 3..written + 6));
                    written += 6;
                    world.copy_and_empty("app.log", &rotate(&mut rotated));
                    world.record(&chunks, u32::try_from(written % 50).unwrap());
                    // Seen to be empty, so that the next rotation is another one.
                    world.collect();
                }
                Step::CopySlowly => {
                    let to = rotate(&mut rotated);
                    world.write("app.log", &numbered(written..written + 3));
                    written += 3;
                    world.write(&to, "");
                    world.collect();
                    fs::copy(world.path("app.log"), world.path(&to)).unwrap();
                    world.collect();
                    world.empty("app.log");
                    world.collect();
                }
                Step::Collect => {
                    world.collect_holding(u32::try_from(written % 50).unwrap());
                }
                Step::Fail => {
                    world.pages();
                }
                Step::Restart => world.restart(),
            }
        }
        if half {
            world.write("app.log", " of this log\n");
        }
        for _ in 0..6 {
            world.collect();
        }
        let mut lines = world.lines.clone();
        lines.sort_by_key(|line| line.split(' ').nth(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or(usize::MAX));
        prop_assert_eq!(lines, expected(0..written));
        prop_assert!(world.totals.lock().unwrap().lost.is_empty());
    }
}
