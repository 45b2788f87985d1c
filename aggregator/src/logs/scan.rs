//! Walks over the lines of a time and of the streams that match, part by part, nearest first, and gives each run to a sink.
//! One page or one batch is in memory at a time.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use picket_proto::model::Labels;

use super::chunk::{ChunkFile, RunAt};
use super::logql::ast::Selector;
use super::query::{Budget, Direction, QueryError};
use super::run::{Run, take_packed};
use super::segments::Snapshot;
use super::wal::FrameAt;
use super::{Shared, wal};

/// Where a run's first line came in the order of arrival; lines of one time are told in it.
pub type Place = (u64, u64);

/// What is looked for.
pub(super) struct Scan<'a> {
    pub selector: &'a Selector,
    /// Lines with `from_ns <= time < to_ns`.
    pub from_ns: i64,
    pub to_ns: i64,
    pub direction: Direction,
}

pub(super) trait Sink {
    /// Whether lines of this time still matter.
    fn wants(&self, min_ns: i64, max_ns: i64) -> bool;

    /// Takes a run. Its lines may be outside the time that is asked for.
    fn take(&mut self, labels: &Arc<Labels>, place: Place, run: &Run<'_>) -> Result<(), QueryError>;
}

enum Part<'a> {
    Frame { segment: u64, file: &'a std::fs::File, frame: FrameAt },
    Chunk(&'a ChunkFile),
}

impl Part<'_> {
    fn times(&self) -> (i64, i64) {
        match self {
            Self::Frame { frame, .. } => (frame.min_ns, frame.max_ns),
            Self::Chunk(chunk) => (chunk.footer.min_ns, chunk.footer.max_ns),
        }
    }
}

impl Direction {
    /// Sorts so that what is told first comes first.
    fn sort<T>(self, list: &mut [T], times: impl Fn(&T) -> (i64, i64)) {
        match self {
            Self::Forward => list.sort_by_key(|item| times(item).0),
            Self::Backward => list.sort_by_key(|item| std::cmp::Reverse(times(item).1)),
        }
    }
}

pub(super) fn scan(
    shared: &Shared,
    snapshot: &Snapshot,
    request: &Scan<'_>,
    budget: &Budget,
    sink: &mut impl Sink,
) -> Result<(), QueryError> {
    let frames = snapshot.wals.iter().flat_map(|part| {
        part.frames.iter().map(|frame| Part::Frame { segment: part.id, file: &part.file, frame: *frame })
    });
    let chunks = snapshot.chunks.iter().map(|chunk| Part::Chunk(chunk));
    let mut parts: Vec<Part<'_>> = frames.chain(chunks).collect();
    request.direction.sort(&mut parts, Part::times);
    let mut buffer = Vec::new();
    for part in parts {
        budget.check()?;
        let (min_ns, max_ns) = part.times();
        if !sink.wants(min_ns, max_ns) {
            continue;
        }
        match part {
            Part::Frame { segment, file, frame } => {
                buffer.resize(frame.length as usize, 0);
                if file.read_exact_at(&mut buffer, frame.offset).is_ok() {
                    scan_frame(&buffer, (segment, frame.offset << 32), request, budget, sink)?;
                }
            }
            Part::Chunk(chunk) => scan_chunk(shared, chunk, request, budget, sink)?,
        }
    }
    Ok(())
}

fn scan_frame(
    payload: &[u8],
    place: Place,
    request: &Scan<'_>,
    budget: &Budget,
    sink: &mut impl Sink,
) -> Result<(), QueryError> {
    let Some((_, mut streams)) = wal::open(payload) else { return Ok(()) };
    let mut number = 0;
    while let Some((labels, run)) = streams.next(|labels| request.selector.matches(labels)) {
        if let Some(run) = run {
            budget.charge(run.text.len())?;
            sink.take(&Arc::new(labels), (place.0, place.1 + number), &run)?;
            number += run.times.len() as u64;
        }
    }
    Ok(())
}

fn scan_chunk(
    shared: &Shared,
    chunk: &ChunkFile,
    request: &Scan<'_>,
    budget: &Budget,
    sink: &mut impl Sink,
) -> Result<(), QueryError> {
    let Some((file, index)) = chunk.index(&shared.indexes) else { return Ok(()) };
    let mut pages: BTreeMap<u32, Vec<(&Arc<Labels>, RunAt)>> = BTreeMap::new();
    for stream in &index.streams {
        let touches = |run: &&RunAt| run.max_ns >= request.from_ns && run.min_ns < request.to_ns;
        if !stream.runs.iter().any(|run| touches(&run)) || !request.selector.matches(&stream.labels) {
            continue;
        }
        for run in stream.runs.iter().filter(touches) {
            pages.entry(run.page).or_default().push((&stream.labels, *run));
        }
    }
    let mut pages: Vec<_> = pages.into_iter().collect();
    let times = |runs: &[(&Arc<Labels>, RunAt)]| {
        let min = runs.iter().map(|(_, run)| run.min_ns).min().unwrap_or(i64::MAX);
        let max = runs.iter().map(|(_, run)| run.max_ns).max().unwrap_or(i64::MIN);
        (min, max)
    };
    request.direction.sort(&mut pages, |(_, runs)| times(runs));
    for (number, runs) in pages {
        budget.check()?;
        let (min_ns, max_ns) = times(&runs);
        if !sink.wants(min_ns, max_ns) {
            continue;
        }
        let Some(page) = index.pages.get(number as usize) else { continue };
        let Some(bytes) = chunk.page(&file, page) else { continue };
        for (labels, at) in runs {
            if !sink.wants(at.min_ns, at.max_ns) {
                continue;
            }
            let raw = bytes.get(at.at as usize..).and_then(|rest| rest.get(..at.bytes as usize));
            let Some(run) = raw.and_then(|raw| take_packed(raw, at.lines as usize)) else { continue };
            budget.charge(run.text.len())?;
            // A page's lines are fewer than its bytes.
            sink.take(labels, (chunk.id, (u64::from(number) << 32) + u64::from(at.at)), &run)?;
        }
    }
    Ok(())
}
