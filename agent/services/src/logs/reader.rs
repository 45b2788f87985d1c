//! All that one plugin reads: which files there are, who of them is next, and what became of those that went.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engines::{self, Engines, Ways};
use super::find;
use super::journal::{Asked, Journal};
use super::mark::{FileId, Mark, Phase, Position, Print, key, parse_key};
use super::tail::{Linger, PIECE, Tail};
use super::{Chunk, Error, Kind, Page, Totals, Wanted, docker};
use crate::ServiceLimits;
use crate::containers::Permit;
use crate::grants::PathSet;

/// Files that one plugin may follow.
const MAX_FILES: usize = 512;
/// How often the folders are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What one collect may read.
const COLLECT: usize = 1 << 20;
/// Failures that one reading tells.
const MAX_FAILURES: usize = 16;

const JOURNAL: &str = "journal";

/// What a reading is asked for, checked.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub wanted: Wanted,
    /// All granted patterns.
    pub patterns: Vec<String>,
    pub journal: Option<String>,
    /// Engines that are asked for what no file has.
    pub engines: Option<(Arc<Permit>, ServiceLimits)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    File(FileId),
    Journal,
    /// By the container's id.
    Engine(String),
}

#[derive(Debug)]
pub(super) struct Reader {
    linger: Linger,
    totals: Arc<Mutex<Totals>>,
    collect: u64,
    /// Bytes of this collect.
    read: usize,
    /// The last reading came to a bound.
    more: bool,
    /// The source of each chunk of this collect.
    handed: Vec<From>,

    files: Vec<String>,
    patterns: PathSet,
    /// Patterns that were looked for before.
    known: BTreeSet<String>,
    tails: BTreeMap<FileId, Tail>,
    looked: Option<Instant>,
    /// Whose turn is first.
    turn: usize,
    journal: Option<Journal>,
    journal_state: Option<String>,
    engines: Option<Engines>,
    /// Of containers and engines, while none is granted.
    engine_states: Vec<(String, String)>,

    /// Cursors of their own, to be recorded: patterns, and what is no more.
    news: Vec<(String, String)>,
    failures: Vec<(String, String)>,
}

impl Reader {
    pub fn new(restored: Vec<(String, String)>, totals: Arc<Mutex<Totals>>, linger: Linger) -> Self {
        let mut reader = Self {
            linger,
            totals,
            collect: 0,
            read: 0,
            more: false,
            handed: Vec::new(),
            files: Vec::new(),
            patterns: PathSet::default(),
            known: BTreeSet::new(),
            tails: BTreeMap::new(),
            looked: None,
            turn: 0,
            journal: None,
            journal_state: None,
            engines: None,
            engine_states: Vec::new(),
            news: Vec::new(),
            failures: Vec::new(),
        };
        let now = Instant::now();
        for (source, state) in restored {
            if let Some(pattern) = source.strip_prefix("pattern ") {
                reader.known.insert(pattern.to_owned());
            } else if source == JOURNAL {
                reader.journal_state = Some(state);
            } else if source.starts_with("container ") || source.starts_with("engine ") {
                reader.engine_states.push((source, state));
            } else if let (Some((id, path)), Some(mark)) = (parse_key(&source), Mark::parse(&state)) {
                let mut tail = Tail::new(path.to_owned(), id, None, mark, now);
                tail.dirty = false;
                reader.tails.insert(id, tail);
            }
        }
        reader
    }

    /// A collect begins: what the last one read and did not commit is read again.
    pub fn begin(&mut self, collect: u64) {
        if self.collect == collect {
            return;
        }
        self.collect = collect;
        self.read = 0;
        self.handed.clear();
        for tail in self.tails.values_mut() {
            tail.rewind();
        }
        if let Some(journal) = &mut self.journal {
            journal.queue.rewind();
        }
        for follow in self.follows() {
            follow.queue.rewind();
        }
    }

    /// The containers whose engine is asked.
    fn follows(&mut self) -> impl Iterator<Item = &mut super::follow::Follow> {
        self.engines.iter_mut().flat_map(|engines| engines.followed.values_mut())
    }

    pub fn read(&mut self, ask: Ask, most: usize, held: &[u32], now: Instant) -> Result<Page, Error> {
        let files = if ask.wanted.files.is_empty() { &ask.patterns } else { &ask.wanted.files };
        if *files != self.files {
            self.patterns = PathSet::new(files).map_err(|e| Error::Invalid(e.to_string()))?;
            self.files.clone_from(files);
            self.looked = None;
        }
        self.turn_to_engines(&ask, now);
        if self.looked.is_none_or(|at| now.saturating_duration_since(at) >= LOOK) {
            self.looked = Some(now);
            self.look(ask.wanted.from_the_end, now);
        }
        let mut room = most.min(COLLECT.saturating_sub(self.read));
        let mut page = Page::default();
        let held: Vec<From> = held.iter().filter_map(|id| self.handed.get(*id as usize).cloned()).collect();
        self.read_files(&mut page, &mut room, &held, now);
        if !held.contains(&From::Journal) {
            self.read_journal(&ask, &mut page, &mut room, now);
        }
        self.read_engines(&mut page, &mut room, &held, now);
        self.retire(now);
        self.more = page.more;
        page.failures = std::mem::take(&mut self.failures);
        Ok(page)
    }

    fn read_files(&mut self, page: &mut Page, room: &mut usize, held: &[From], now: Instant) {
        let mut order: Vec<FileId> = self
            .tails
            .values()
            .filter(|tail| tail.file.is_some() && !held.contains(&From::File(tail.id)))
            .map(|tail| tail.id)
            .collect();
        if order.is_empty() {
            return;
        }
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn % order.len();
        order.rotate_left(first);
        // What a file held before it was emptied comes to the others meanwhile, and has its turn in the next reading.
        while !order.is_empty() {
            let mut next = Vec::new();
            for id in order {
                if *room < PIECE {
                    page.more = true;
                    return;
                }
                if let Some(chunk) = self.piece(id, now) {
                    *room -= chunk.bytes.len();
                    self.read += chunk.bytes.len();
                    page.chunks.push(chunk);
                    next.push(id);
                }
            }
            order = next;
        }
    }

    fn piece(&mut self, id: FileId, now: Instant) -> Option<Chunk> {
        let linger = self.linger;
        let tail = self.tails.get_mut(&id)?;
        match tail.look(now) {
            Ok(true) => {}
            Ok(false) => {
                self.emptied(id, now);
                return None;
            }
            Err(e) => {
                let path = tail.path.clone();
                self.fail("io", format!("{path}: {e}"));
                return None;
            }
        }
        let tail = self.tails.get_mut(&id)?;
        match tail.read(now, linger) {
            Ok(piece) => {
                let piece = piece?;
                let number = u32::try_from(self.handed.len()).ok()?;
                self.handed.push(From::File(id));
                let chunk = Chunk {
                    id: number,
                    kind: Kind::File,
                    name: tail.path.clone(),
                    labels: tail.labels.clone(),
                    bytes: piece.bytes,
                    waited: u64::try_from(piece.waited.as_millis()).unwrap_or(u64::MAX),
                    last: piece.last,
                    cut: piece.cut,
                };
                if piece.cut {
                    self.lost("long-line");
                }
                Some(chunk)
            }
            Err(e) => {
                let path = tail.path.clone();
                self.fail("io", format!("{path}: {e}"));
                None
            }
        }
    }

    fn read_journal(&mut self, ask: &Ask, page: &mut Page, room: &mut usize, now: Instant) {
        if ask.wanted.units.is_empty() {
            return self.leave_journal();
        }
        let asked = Asked { units: ask.wanted.units.clone(), folder: ask.journal.clone() };
        if self.journal.as_ref().is_none_or(|journal| *journal.asked() != asked) {
            self.leave_journal();
            let state = self.journal_state.clone();
            self.journal = Some(Journal::new(asked, state, ask.wanted.from_the_end));
        }
        let Some(journal) = &mut self.journal else { return };
        if *room < PIECE {
            page.more = true;
            return;
        }
        match journal.read(now, *room) {
            Ok(None) => {}
            Ok(Some((bytes, waited))) => {
                *room = room.saturating_sub(bytes.len());
                self.read += bytes.len();
                let Ok(id) = u32::try_from(self.handed.len()) else { return };
                self.handed.push(From::Journal);
                page.chunks.push(Chunk {
                    id,
                    kind: Kind::Journal,
                    name: String::new(),
                    labels: Vec::new(),
                    bytes,
                    waited: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                    last: false,
                    cut: false,
                });
            }
            Err(why) => self.fail("journal", why),
        }
    }

    fn turn_to_engines(&mut self, ask: &Ask, now: Instant) {
        let Some((permit, limits)) = &ask.engines else { return };
        if self.engines.as_ref().is_none_or(|engines| !engines.is_of(permit)) {
            // The grant was changed: what was read goes on from where it is.
            if let Some(mut before) = self.engines.take() {
                let followed = std::mem::take(&mut before.followed).into_values();
                let states = followed.map(|follow| (engines::key(&follow.id), follow.queue.into_state()));
                self.engine_states.extend(states);
                let restored = std::mem::take(&mut before.restored).into_iter();
                self.engine_states.extend(restored.map(|(id, state)| (engines::key(&id), state)));
                self.engine_states
                    .extend(before.known.iter().map(|socket| (format!("engine {socket}"), String::new())));
                self.news.append(&mut before.news);
            }
            let mut engines = Engines::new(permit.clone(), limits.clone());
            for (source, state) in self.engine_states.drain(..) {
                match source.split_once(' ') {
                    Some(("engine", socket)) => drop(engines.known.insert(socket.to_owned())),
                    Some((_, id)) => drop(engines.restored.insert(id.to_owned(), state)),
                    None => {}
                }
            }
            self.engines = Some(engines);
        }
        let Some(engines) = &mut self.engines else { return };
        let (from_the_end, journal) = (ask.wanted.from_the_end, !ask.wanted.units.is_empty());
        engines.turn(&Ways { patterns: &self.patterns, from_the_end, journal }, now);
        let (lost, failures) = (std::mem::take(&mut engines.lost), std::mem::take(&mut engines.failures));
        self.news.append(&mut engines.news);
        lost.into_iter().for_each(|reason| self.lost(reason));
        failures.into_iter().for_each(|(reason, message)| self.fail(reason, message));
    }

    fn read_engines(&mut self, page: &mut Page, room: &mut usize, held: &[From], now: Instant) {
        let Some(engines) = &mut self.engines else { return };
        for follow in engines.followed.values_mut() {
            let from = From::Engine(follow.id.clone());
            if held.contains(&from) || follow.queue.is_handed_out() {
                continue;
            }
            if *room < PIECE {
                page.more = true;
                return;
            }
            let Ok(id) = u32::try_from(self.handed.len()) else { return };
            let Some((bytes, waited)) = follow.queue.read(now, PIECE) else { continue };
            // So much at once is a backlog, of which more waits with the engine.
            page.more |= bytes.len() >= PIECE / 4 || !follow.queue.is_handed_out();
            *room = room.saturating_sub(bytes.len());
            self.read += bytes.len();
            self.handed.push(from);
            page.chunks.push(Chunk {
                id,
                kind: Kind::File,
                name: follow.name(),
                labels: follow.labels.clone(),
                bytes,
                waited: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
                last: follow.is_at_its_end(),
                cut: false,
            });
        }
    }

    fn leave_journal(&mut self) {
        if let Some(journal) = self.journal.take() {
            self.journal_state = Some(journal.queue.into_state());
        }
    }

    /// The cursors that stand for what this collect read, less the last bytes of these chunks.
    pub fn prepare(&mut self, collect: u64, held: &[(u32, u32)]) -> Result<Vec<(String, String)>, Error> {
        self.begin(collect);
        let held_of = |from: From| -> u64 {
            let of = |(id, bytes): &(u32, u32)| {
                (self.handed.get(*id as usize) == Some(&from)).then_some(u64::from(*bytes))
            };
            held.iter().rev().find_map(of).unwrap_or(0)
        };
        let by_file: Vec<(FileId, u64)> =
            self.tails.keys().map(|id| (*id, held_of(From::File(*id)))).collect();
        let of_journal = held_of(From::Journal);
        let of_engines: Vec<(String, u64)> = match &self.engines {
            Some(engines) => {
                engines.followed.keys().map(|id| (id.clone(), held_of(From::Engine(id.clone())))).collect()
            }
            None => Vec::new(),
        };
        let mut cursors = self.news.clone();
        for (id, held) in by_file {
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            let mark = tail.prepare(held).map_err(|e| Error::Other(format!("{}: {e}", tail.path)))?;
            cursors.extend(mark.map(|mark| (key(id, &tail.path), mark.text())));
        }
        if let Some(journal) = &mut self.journal {
            cursors.extend(journal.queue.prepare(of_journal).map(|state| (JOURNAL.to_owned(), state)));
        }
        for (id, held) in of_engines {
            let follow = self.engines.as_mut().and_then(|engines| engines.followed.get_mut(&id));
            let state = follow.and_then(|follow| follow.queue.prepare(held));
            cursors.extend(state.map(|state| (engines::key(&id), state)));
        }
        Ok(cursors)
    }

    /// Whether there was more to read than the collect could take.
    pub fn commit(&mut self, collect: u64, now: Instant) -> bool {
        if self.collect != collect {
            return false;
        }
        let mut bytes = 0;
        for tail in self.tails.values_mut() {
            let before = tail.mark.position.offset;
            tail.commit(now);
            bytes += tail.mark.position.offset.saturating_sub(before);
        }
        if let Some(journal) = &mut self.journal {
            bytes += journal.queue.commit(now);
        }
        for follow in self.follows() {
            bytes += follow.queue.commit(now);
        }
        self.news.clear();
        let files = self.tails.values().filter(|tail| tail.file.is_some()).count() + self.follows().count();
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        totals.bytes += bytes;
        totals.files = files as u64;
        self.more && bytes > 0
    }

    /// Looks which files are there, which are new, and which have left their path.
    fn look(&mut self, from_the_end: bool, now: Instant) {
        let found = find::granted(&self.patterns, MAX_FILES);
        if found.cut {
            self.fail("too-many", format!("more than {MAX_FILES} files match; the rest is not read"));
        }
        let fresh: Vec<String> = self.files.iter().filter(|p| !self.known.contains(*p)).cloned().collect();
        let before: Vec<String> = self.files.iter().filter(|p| self.known.contains(*p)).cloned().collect();
        let before = PathSet::new(&before).unwrap_or_default();
        let mut at_home = HashSet::new();
        let mut present = HashSet::new();
        for (path, id) in found.files {
            let container = docker::container(&path).map(|(_, id)| id);
            if container.is_some_and(|id| self.engines.as_ref().is_some_and(|engines| engines.has(id))) {
                // Its engine is asked already.
                continue;
            }
            present.insert(id);
            let end = from_the_end && before.find(&path).is_none();
            match self.tails.get(&id) {
                None => self.add(&path, id, end, now),
                Some(tail) if tail.file.is_none() => self.find_again(&path, id, end, now),
                Some(_) => {}
            }
            if self.tails.get(&id).is_some_and(|tail| tail.path == path) {
                at_home.insert(id);
            }
        }
        for id in self.tails.keys().copied().collect::<Vec<_>>() {
            let Some(tail) = self.tails.get_mut(&id) else { continue };
            if self.patterns.find(&tail.path).is_none() {
                // No longer asked for: its place is kept, should it be again.
                tail.file = None;
                tail.rewind();
            } else if !at_home.contains(&id) {
                self.away(id, present.contains(&id), now);
            }
        }
        for pattern in fresh {
            self.news.push((format!("pattern {pattern}"), "1".to_owned()));
            self.known.insert(pattern);
        }
    }

    /// A file that was never seen.
    fn add(&mut self, path: &str, id: FileId, from_the_end: bool, now: Instant) {
        if self.tails.len() >= MAX_FILES * 2 {
            return self.fail("too-many", format!("{path} is not read: too many files are known"));
        }
        let file = match find::open(&self.patterns, path) {
            Ok(file) => file,
            Err(crate::files::Error::NotFound(_)) => return,
            Err(e) => return self.fail("open", e.to_string()),
        };
        let Ok(meta) = file.metadata() else { return };
        // Replaced in between: the next look finds it.
        if find::id(&meta) != id {
            return;
        }
        let copied = self.tails.values().find(|tail| {
            let Mark { position, print, phase } = tail.mark;
            let followed = tail.file.is_some() && matches!(phase, Phase::Following | Phase::Leaving);
            followed
                && position.offset > 0
                && print.telling()
                && find::may_be_rotated(&tail.path, path)
                && print.fits(&file, position.offset).unwrap_or(false)
        });
        if let Some(original) = copied {
            let mark = Mark { phase: Phase::Aside, ..original.mark };
            self.tails.insert(id, Tail::new(path.to_owned(), id, None, mark, now));
            return;
        }
        let begun = |tail: &Tail| {
            let followed = matches!(tail.mark.phase, Phase::Following | Phase::Leaving);
            let original = tail.file.as_ref().filter(|_| followed && find::may_be_rotated(&tail.path, path));
            original.is_some_and(|original| is_beginning(&file, meta.len(), original))
        };
        if self.tails.values().any(begun) {
            // A copy under way, or of what is still to be read under the first name: a later look tells.
            return;
        }
        let position = if from_the_end { end_of(&file, meta.len()) } else { Position::default() };
        let Ok(print) = Print::of(&file, position.offset) else { return };
        let mark = Mark { position, print, phase: Phase::Following };
        let mut tail = Tail::new(path.to_owned(), id, Some(file), mark, now);
        tail.labels = docker::facts(path);
        self.tails.insert(id, tail);
    }

    /// A file that is known and not open stands at this path.
    fn find_again(&mut self, path: &str, id: FileId, from_the_end: bool, now: Instant) {
        let file = match find::open(&self.patterns, path) {
            Ok(file) => file,
            Err(crate::files::Error::NotFound(_)) => return,
            Err(e) => return self.fail("open", e.to_string()),
        };
        let Ok(meta) = file.metadata() else { return };
        let Some(tail) = self.tails.get_mut(&id) else { return };
        if find::id(&meta) != id {
            return;
        }
        let offset = tail.mark.position.offset;
        let same = meta.len() >= offset && tail.mark.print.fits(&file, offset).unwrap_or(false);
        let over = matches!(tail.mark.phase, Phase::Done | Phase::Aside);
        if same && over && (meta.len() == offset || tail.mark.phase == Phase::Aside) {
            return;
        }
        if !same && (over || tail.path != path) {
            // The inode is another file's by now.
            if !over {
                self.lost("deleted");
            }
            self.forget(id);
            return self.add(path, id, from_the_end, now);
        }
        tail.file = Some(file);
        tail.labels = docker::facts(&tail.path);
        let phase = if tail.path == path { Phase::Following } else { Phase::Leaving };
        tail.set_phase(phase);
        if !same {
            self.emptied(id, now);
        }
    }

    /// A file that is not at its path any more.
    fn away(&mut self, id: FileId, present: bool, now: Instant) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        match (tail.mark.phase, &tail.file) {
            (Phase::Done | Phase::Aside, _) if present => {}
            (Phase::Done | Phase::Aside, _) => self.forget(id),
            (_, Some(_)) => tail.set_phase(Phase::Leaving),
            (_, None) if present => {}
            (_, None) => {
                let offset = tail.mark.position.offset;
                let file = find::renamed(&tail.path, id)
                    .filter(|file| tail.mark.print.fits(file, offset).unwrap_or(false));
                match file {
                    Some(file) => {
                        *tail = Tail::new(tail.path.clone(), id, Some(file), tail.mark, now);
                        tail.labels = docker::facts(&tail.path);
                        tail.set_phase(Phase::Leaving);
                    }
                    None => {
                        self.lost("deleted");
                        self.forget(id);
                    }
                }
            }
        }
    }

    /// A file was emptied, or written anew under the same inode. What was not read of it may be in a copy.
    fn emptied(&mut self, id: FileId, now: Instant) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        let (path, mark, labels) = (tail.path.clone(), tail.mark, tail.labels.clone());
        tail.begin_again();
        let copy = if mark.print.telling() {
            find::copy(&path, id, &mark.print, mark.position.offset)
        } else {
            None
        };
        match copy {
            Some((copy, file)) => {
                let mark = Mark { phase: Phase::Leaving, ..mark };
                let followed = self.tails.get(&copy).is_some_and(|tail| tail.file.is_some());
                if !followed {
                    if let Some(aside) = self.tails.get(&copy).filter(|aside| aside.path != path) {
                        self.news.push((key(copy, &aside.path), String::new()));
                    }
                    let mut tail = Tail::new(path, copy, Some(file), mark, now);
                    tail.labels = labels;
                    self.tails.insert(copy, tail);
                }
            }
            None if mark.position.offset > 0 => self.lost("truncated"),
            None => {}
        }
    }

    /// Closes what has left its path and is read to its end.
    fn retire(&mut self, now: Instant) {
        let linger = self.linger;
        let done = |tail: &Tail| tail.finished(now, linger).unwrap_or(true);
        let finished: Vec<FileId> = self
            .tails
            .values()
            .filter(|tail| tail.file.is_some() && done(tail))
            .map(|tail| tail.id)
            .collect();
        for id in finished {
            if let Some(tail) = self.tails.get_mut(&id)
                && tail.mark.phase == Phase::Leaving
            {
                tail.file = None;
                tail.set_phase(Phase::Done);
            }
        }
    }

    fn forget(&mut self, id: FileId) {
        if let Some(tail) = self.tails.remove(&id) {
            self.news.push((key(id, &tail.path), String::new()));
        }
    }

    fn lost(&self, reason: &'static str) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner).lost.entry(reason).or_default() += 1;
    }

    fn fail(&mut self, reason: &str, message: String) {
        if self.failures.len() < MAX_FAILURES {
            self.failures.push((reason.to_owned(), message));
        }
    }
}

/// Whether all of a file, of this length, is what another one begins with; true of an empty one.
fn is_beginning(file: &std::fs::File, length: u64, of: &std::fs::File) -> bool {
    let begins = |print: Print| print.telling() && print.fits(of, length).unwrap_or(false);
    length == 0 || Print::of(file, length).is_ok_and(begins)
}

/// The end of a file; where it ends within a line, what is left of that line is not handed out.
fn end_of(file: &std::fs::File, size: u64) -> Position {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    let whole =
        size == 0 || (file.read_at(&mut last, size - 1).is_ok_and(|count| count == 1) && last == [b'\n']);
    Position { offset: size, skipping: !whole }
}
