//! Writing frames: at once where the socket takes them, else from a queue that one task empties. Nobody waits who sends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

/// What may wait to be written, in bytes.
const MAX_WAITING: usize = 96 << 20;

#[derive(Debug)]
pub(crate) struct Out {
    stream: OwnedWriteHalf,
    waiting: Mutex<Waiting>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    bytes: Vec<u8>,
    written: usize,
    /// Goes with the first byte.
    file: Option<Arc<File>>,
}

/// The other side takes nothing, or is no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    #[error("it takes no more: {MAX_WAITING} bytes wait for it")]
    Full,
    #[error("it took nothing for {0:?}")]
    Stalled(Duration),
    #[error("it cannot be written to: {0}")]
    Io(#[from] io::Error),
}

impl Out {
    pub(crate) fn new(stream: OwnedWriteHalf) -> Self {
        Self { stream, waiting: Mutex::default(), more: Notify::new() }
    }

    pub(crate) fn send(&self, bytes: Vec<u8>, file: Option<Arc<File>>) -> Result<(), Unsent> {
        let mut frame = Frame { bytes, written: 0, file };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.frames.is_empty() && frame.write(self.stream.as_ref())? {
            return Ok(());
        }
        if waiting.bytes.saturating_add(frame.bytes.len()) > MAX_WAITING {
            return Err(Unsent::Full);
        }
        waiting.bytes += frame.bytes.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    /// Writes what waits; ends when the other side does not take anything for so long.
    pub(crate) async fn flush(&self, patience: Duration) -> Unsent {
        loop {
            self.more.notified().await;
            while !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).frames.is_empty() {
                match tokio::time::timeout(patience, self.stream.writable()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => return e.into(),
                    Err(_) => return Unsent::Stalled(patience),
                }
                if let Err(e) = self.step() {
                    return e.into();
                }
            }
        }
    }

    fn step(&self) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(frame) = waiting.frames.front_mut() {
            if !frame.write(self.stream.as_ref())? {
                return Ok(());
            }
            let done = waiting.frames.pop_front();
            waiting.bytes -= done.map_or(0, |f| f.bytes.len());
        }
        Ok(())
    }
}

impl Frame {
    /// Whether all of it is written now.
    fn write(&mut self, stream: &UnixStream) -> io::Result<bool> {
        while let Some(rest) = self.bytes.get(self.written..).filter(|rest| !rest.is_empty()) {
            let sent = match &self.file {
                Some(file) => stream.try_io(Interest::WRITABLE, || with_file(stream, rest, file)),
                None => stream.try_write(rest),
            };
            match sent {
                Ok(count) => {
                    self.written += count;
                    self.file = None;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

fn with_file(stream: &UnixStream, bytes: &[u8], file: &File) -> io::Result<usize> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("a file does not fit into a message"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}
