//! One file that is followed.
//!
//! What is read in a collect is read again in the next one unless it was committed: [`Tail::read`] moves a place of the
//! collect's own, [`Tail::prepare`] says which mark would stand for it, [`Tail::commit`] makes it the file's.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::find;
use super::mark::{self, FileId, Mark, Phase, Position, Print};

/// The most that is handed out at once of one file; a line that is longer is cut there.
pub(super) const PIECE: usize = 128 << 10;

/// The most of a too long line that is left out at once, so that a reading ends in time.
const MAX_SKIP: u64 = 32 << 20;

/// How long a file that has left its path may be silent before it is done with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    /// Its writer may still have it open.
    pub renamed: Duration,
    /// Nobody can open it any more.
    pub deleted: Duration,
}

/// What was read at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub bytes: Vec<u8>,
    /// The file ends here, with or without a newline.
    pub last: bool,
    /// The last line is longer than that, the rest of it is left out.
    pub cut: bool,
    /// How long the first of these bytes has been held back.
    pub waited: Duration,
}

#[derive(Debug)]
pub(super) struct Tail {
    /// The name under which it was found.
    pub path: String,
    pub id: FileId,
    pub labels: Vec<(String, String)>,
    /// None: not opened since the agent began, or done with.
    pub file: Option<File>,
    pub mark: Mark,
    /// The mark on record is another one.
    pub dirty: bool,
    /// Where the collect under way has read to, and what the file was known by then.
    next: Option<(Position, Print)>,
    /// Prepared, to be committed.
    prepared: Option<(Mark, bool)>,
    /// Size and time of the last look.
    looked: Option<(u64, i64, i64)>,
    grew: Instant,
    held_since: Option<Instant>,
}

impl Tail {
    pub fn new(path: String, id: FileId, file: Option<File>, mark: Mark, now: Instant) -> Self {
        Self {
            path,
            id,
            labels: Vec::new(),
            file,
            mark,
            dirty: true,
            next: None,
            prepared: None,
            looked: None,
            grew: now,
            held_since: None,
        }
    }

    /// What was read and not committed is to be read again.
    pub fn rewind(&mut self) {
        self.next = None;
        self.prepared = None;
    }

    /// Looks at what has changed since the last time. False: it is no longer the file that was read.
    pub fn look(&mut self, now: Instant) -> io::Result<bool> {
        let (Some(file), None) = (&self.file, self.next) else { return Ok(true) };
        let meta = file.metadata()?;
        let looked = (meta.len(), meta.mtime(), meta.mtime_nsec());
        if self.looked == Some(looked) {
            return Ok(true);
        }
        self.grew = now;
        let offset = self.mark.position.offset;
        if meta.len() < offset || !self.mark.print.fits(file, offset)? {
            return Ok(false);
        }
        self.looked = Some(looked);
        Ok(true)
    }

    /// The file was emptied: it begins anew.
    pub fn begin_again(&mut self) {
        self.mark.position = Position::default();
        self.mark.print = Print::default();
        self.dirty = true;
        self.held_since = None;
        self.looked = None;
    }

    /// The next whole lines.
    pub fn read(&mut self, now: Instant, linger: Linger) -> io::Result<Option<Piece>> {
        let Some(file) = &self.file else { return Ok(None) };
        let start = self.next.map_or(self.mark.position, |(position, _)| position);
        let mut position = start;
        let left = file.metadata()?.len().saturating_sub(position.offset);
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        loop {
            let count = mark::read(file, &mut buffer, position.offset)?;
            let bytes = buffer.get(..count).unwrap_or_default();
            if bytes.is_empty() {
                // What was left out counts as read.
                if position != start
                    && let Some(next) = self.reached(file, position, &[])?
                {
                    self.next = Some(next);
                }
                return Ok(None);
            }
            if position.skipping {
                let end = bytes.iter().position(|b| *b == b'\n').map(|at| at + 1);
                let left_out = end.unwrap_or(bytes.len()) as u64;
                position = Position { offset: position.offset + left_out, skipping: end.is_none() };
                if position.offset - start.offset > MAX_SKIP {
                    if let Some(next) = self.reached(file, position, &[])? {
                        self.next = Some(next);
                    }
                    return Ok(None);
                }
                continue;
            }
            let ends = count < PIECE && self.mark.phase == Phase::Leaving && self.idle(now, linger)?;
            let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            let (length, cut) = match whole {
                _ if ends => (count, false),
                0 if count == PIECE => (count, true),
                0 => {
                    if position != start
                        && let Some(next) = self.reached(file, position, &[])?
                    {
                        self.next = Some(next);
                    }
                    return Ok(None);
                }
                whole => (whole, false),
            };
            let fresh = self.next.is_none();
            let waited = self.held_since.filter(|_| fresh).map_or(Duration::ZERO, |since| now - since);
            buffer.truncate(length);
            let end = Position { offset: position.offset + length as u64, skipping: cut };
            let Some(next) = self.reached(file, end, &buffer)? else { return Ok(None) };
            self.next = Some(next);
            return Ok(Some(Piece { bytes: buffer, last: ends, cut, waited }));
        }
    }

    /// The place that was read to, with what the file is known by there; none where the file was emptied during the reading.
    ///
    /// The print must be of the file that `bytes` were read from: one taken later, of a file that was emptied meanwhile,
    /// would fit neither it nor its copy, and the copy would be read again from its beginning.
    fn reached(
        &self,
        file: &File,
        position: Position,
        bytes: &[u8],
    ) -> io::Result<Option<(Position, Print)>> {
        let print = Print::of(file, position.offset)?;
        let Mark { position: from, print: before, .. } = self.mark;
        let whole = file.metadata()?.len() >= position.offset
            && before.fits(file, from.offset)?
            && print.ends_with(bytes, position.offset)
            && print.fits(file, position.offset)?;
        Ok(whole.then_some((position, print)))
    }

    /// Nothing was added for so long that nothing will be.
    fn idle(&self, now: Instant, linger: Linger) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(true) };
        let wait = if file.metadata()?.nlink() == 0 { linger.deleted } else { linger.renamed };
        Ok(now.saturating_duration_since(self.grew) >= wait)
    }

    /// It has left its path and is read to its end.
    pub fn finished(&self, now: Instant, linger: Linger) -> io::Result<bool> {
        let (Some(file), Phase::Leaving, None) = (&self.file, self.mark.phase, self.next) else {
            return Ok(false);
        };
        Ok(file.metadata()?.len() <= self.mark.position.offset && self.idle(now, linger)?)
    }

    /// The mark that stands for what was read, less the last `held` bytes of it; none where it has not changed.
    pub fn prepare(&mut self, held: u64) -> io::Result<Option<Mark>> {
        let (end, known) = self.next.unwrap_or((self.mark.position, self.mark.print));
        let position = match held {
            0 => end,
            held => Position { offset: end.offset.saturating_sub(held), skipping: false },
        };
        let position =
            if position.offset < self.mark.position.offset { self.mark.position } else { position };
        if position == self.mark.position && !self.dirty {
            self.prepared = Some((self.mark, held > 0));
            return Ok(None);
        }
        let print = match &self.file {
            _ if position == end => known,
            _ if position == self.mark.position => self.mark.print,
            Some(file) => self.print_at(file, position.offset, (end.offset, &known))?,
            None => known,
        };
        let mark = Mark { position, print, phase: self.mark.phase };
        self.prepared = Some((mark, held > 0));
        Ok(Some(mark))
    }

    /// The print at a place before the one that was read to; of the file's copy, where it was emptied since.
    fn print_at(&self, file: &File, offset: u64, (end, known): (u64, &Print)) -> io::Result<Print> {
        let print = Print::of(file, offset)?;
        if known.fits(file, end)? {
            return Ok(print);
        }
        match find::copy(&self.path, self.id, known, end) {
            Some((_, copy)) => Print::of(&copy, offset),
            None => Ok(*known),
        }
    }

    pub fn commit(&mut self, now: Instant) {
        let Some((mark, held)) = self.prepared.take() else { return };
        self.held_since = match (held, self.held_since) {
            (true, Some(since)) if mark.position == self.mark.position => Some(since),
            (true, _) => Some(now),
            (false, _) => None,
        };
        self.mark = mark;
        self.dirty = false;
        self.next = None;
    }

    pub fn set_phase(&mut self, phase: Phase) {
        if self.mark.phase != phase {
            self.mark.phase = phase;
            self.dirty = true;
        }
    }
}
