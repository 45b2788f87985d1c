use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::format::{Scan, Source, read_segment_head};
use crate::recovery::segment_name;
use crate::spool::{Progress, Shared};

/// One durable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub life: u64,
    pub sequence: u64,
    /// With the first record of each segment: what `append` was given as its header.
    pub header: Option<Bytes>,
    pub bytes: Bytes,
}

/// Reads durable records in order, in small pieces, on the runtime's threads for blocking work.
pub struct Reader {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    ready: VecDeque<Item>,
    /// Kept here over the waits, so that `next` may be dropped at any time.
    stage: Stage,
}

enum Stage {
    /// More may be there to read.
    Ready(Cursor),
    /// All was read.
    Waiting(Cursor),
    /// The disk refused.
    Failed(Cursor),
    Reading(JoinHandle<(Stage, Vec<Item>)>),
    /// Only while it is changed.
    Between,
}

/// What is read at once: this much, or one record.
const READ_AHEAD: usize = 256 << 10;
/// After a failed read.
const RETRY: Duration = Duration::from_secs(1);
/// A segment that can't be read so often is damaged.
const ATTEMPTS: u32 = 3;

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let progress = shared.progress.subscribe();
        let stage = Stage::Ready(Cursor::new(Arc::clone(&shared)));
        Self { shared, progress, ready: VecDeque::new(), stage }
    }

    /// The next record; waits until there is one that is durable, for ever if the spool was closed. May be dropped at any
    /// time without losing one.
    pub async fn next(&mut self) -> Item {
        loop {
            if let Some(item) = self.next_durable().await {
                return item;
            }
            // The sender lives as long as this reader.
            let _ = self.progress.changed().await;
            self.look_again();
        }
    }

    /// The next of the records that are durable by now; none: all of them were given out. Waits for the disk alone. May be
    /// dropped at any time without losing one.
    pub async fn next_durable(&mut self) -> Option<Item> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            match &mut self.stage {
                Stage::Waiting(_) => {
                    if !self.progress.has_changed().unwrap_or(false) {
                        return None;
                    }
                }
                Stage::Failed(_) => tokio::time::sleep(RETRY).await,
                Stage::Reading(task) => match task.await {
                    Ok((stage, items)) => {
                        self.stage = stage;
                        self.ready.extend(items);
                        continue;
                    }
                    // The runtime is ending.
                    Err(_) => self.stage = Stage::Failed(Cursor::new(Arc::clone(&self.shared))),
                },
                Stage::Ready(_) | Stage::Between => {}
            }
            self.stage = match std::mem::replace(&mut self.stage, Stage::Between) {
                Stage::Ready(mut cursor) | Stage::Waiting(mut cursor) | Stage::Failed(mut cursor) => {
                    // What becomes durable from here on is seen as a change.
                    self.progress.borrow_and_update();
                    Stage::Reading(tokio::task::spawn_blocking(move || {
                        let mut items = Vec::new();
                        let stage = match cursor.read(&mut items) {
                            Ok(true) => Stage::Ready(cursor),
                            Ok(false) => Stage::Waiting(cursor),
                            Err(error) => {
                                warn!(file = segment_name(cursor.number), %error, "the spool can't be read");
                                Stage::Failed(cursor)
                            }
                        };
                        (stage, items)
                    }))
                }
                stage @ Stage::Reading(_) => stage,
                Stage::Between => Stage::Ready(Cursor::new(Arc::clone(&self.shared))),
            };
        }
    }

    /// More may be there to read.
    fn look_again(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Between) {
            Stage::Waiting(cursor) => Stage::Ready(cursor),
            stage => stage,
        };
    }
}

/// Where a reader is.
struct Cursor {
    shared: Arc<Shared>,
    /// The segment that is read, or was read last; 0: none yet.
    number: u64,
    open: Option<Open>,
    attempts: u32,
}

struct Open {
    life: u64,
    source: Source,
    scan: Scan,
    /// Given out with the first record.
    header: Option<Bytes>,
    end: u64,
}

enum Next {
    None,
    Opened,
    Damaged,
}

impl Cursor {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, number: 0, open: None, attempts: 0 }
    }

    /// True: there may be more at once.
    fn read(&mut self, items: &mut Vec<Item>) -> io::Result<bool> {
        let mut bytes = 0;
        while bytes < READ_AHEAD {
            let result = self.step();
            match result {
                Ok(Step::Item(item)) => {
                    self.attempts = 0;
                    bytes += item.bytes.len() + item.header.as_ref().map_or(0, Bytes::len);
                    items.push(item);
                }
                Ok(Step::Again) => {}
                Ok(Step::End) => return Ok(false),
                Err(_) if self.attempts + 1 >= ATTEMPTS => self.give_up(),
                Err(error) => {
                    self.attempts += 1;
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    fn step(&mut self) -> io::Result<Step> {
        let Some(open) = &mut self.open else {
            return Ok(match self.open_next()? {
                Next::None => Step::End,
                Next::Opened => Step::Again,
                Next::Damaged => {
                    self.give_up();
                    Step::Again
                }
            });
        };
        if let Some(record) = open.scan.step(&mut open.source, open.end, true)? {
            let header = open.header.take();
            return Ok(Step::Item(Item {
                life: open.life,
                sequence: record.sequence,
                header,
                bytes: record.bytes,
            }));
        }
        let mut state = self.shared.lock();
        let active = state.active == Some(self.number);
        if let Some(segment) = state.segments.get(&self.number) {
            if segment.bytes > open.end {
                open.end = segment.bytes;
                return Ok(Step::Again);
            }
            if let Some(bad) = open.scan.first_bad {
                state.damaged(self.number, bad);
            }
            if active {
                return Ok(Step::End);
            }
        }
        self.open = None;
        Ok(Step::Again)
    }

    /// The first segment behind with anything that isn't acknowledged.
    fn open_next(&mut self) -> io::Result<Next> {
        let state = self.shared.lock();
        let mut behind = state.segments.range(self.number.saturating_add(1)..);
        let Some((&number, segment)) = behind.find(|(_, segment)| state.pending(segment) > 0) else {
            return Ok(Next::None);
        };
        let end = segment.bytes;
        drop(state);
        let file = match self.shared.disk.open(&segment_name(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // It was dropped just now, or someone else removed it.
                self.number = number;
                return Ok(Next::Damaged);
            }
            Err(error) => return Err(self.failed(number, error)),
        };
        let mut source = Source::new(file);
        match read_segment_head(&mut source, end) {
            Ok(Some(head)) => {
                self.number = number;
                let scan = Scan::new(&head);
                let header = Some(head.header);
                self.open = Some(Open { life: head.life, source, scan, header, end });
                Ok(Next::Opened)
            }
            Ok(None) => {
                self.number = number;
                Ok(Next::Damaged)
            }
            Err(error) => Err(self.failed(number, error)),
        }
    }

    /// At the last attempt the number moves on, for `give_up`.
    fn failed(&mut self, number: u64, error: io::Error) -> io::Error {
        if self.attempts + 1 >= ATTEMPTS {
            self.number = number;
        }
        error
    }

    /// What is left of this segment is lost.
    fn give_up(&mut self) {
        self.attempts = 0;
        let mut state = self.shared.lock();
        if let Some(segment) = state.segments.get(&self.number) {
            let bad = self.open.take().map_or(segment.first, |open| open.scan.next);
            state.damaged(self.number, bad);
        }
    }
}

enum Step {
    Item(Item),
    /// Nothing yet, and not the end.
    Again,
    End,
}

/// All that a new reader would give before it waits.
#[cfg(test)]
pub(crate) fn read_all(shared: &Arc<Shared>) -> io::Result<Vec<Item>> {
    let (mut cursor, mut items) = (Cursor::new(Arc::clone(shared)), Vec::new());
    while cursor.read(&mut items)? {}
    Ok(items)
}
