//! The handle by which others reach a stream: to end it, to send a command, to say that something became durable.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use futures_util::task::AtomicWaker;
use hashbrown::HashMap;
use picket_proto::v1;
use tokio::sync::oneshot;

use super::Options;
use crate::store::lock;

/// Commands that may wait for one agent.
const MAX_COMMANDS: usize = 16;

/// What others may do to a stream.
pub(crate) struct Shared {
    pub(super) waker: AtomicWaker,
    pub(super) opened_ms: i64,
    pub(super) greeted: AtomicBool,
    pub(super) not_after_ms: AtomicI64,
    pub(super) durable_moved: AtomicBool,
    pub(super) control: Mutex<Control>,
}

#[derive(Default)]
pub(super) struct Control {
    pub(super) goodbye: Option<v1::Goodbye>,
    pub(super) commands: VecDeque<v1::Command>,
    pub(super) waiting: HashMap<u64, oneshot::Sender<v1::CommandResult>>,
    pub(super) ended: bool,
    /// To be told; a later one takes its place.
    pub(super) offers: Option<v1::PluginOffers>,
}

impl Shared {
    /// Ends the stream with a Goodbye; the first reason given stays.
    pub fn end(&self, reason: &str, message: &str) {
        let goodbye = || v1::Goodbye { reason: reason.to_owned(), message: message.to_owned() };
        lock(&self.control).goodbye.get_or_insert_with(goodbye);
        self.waker.wake();
    }

    pub fn committed(&self) {
        self.durable_moved.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Queues a command. `None`: too many wait, or the stream has ended.
    pub fn command(
        &self,
        id: u64,
        command: v1::command::Command,
    ) -> Option<oneshot::Receiver<v1::CommandResult>> {
        let (answer, receiver) = oneshot::channel();
        let mut control = lock(&self.control);
        if control.ended || control.waiting.len() >= MAX_COMMANDS {
            return None;
        }
        control.waiting.insert(id, answer);
        control.commands.push_back(v1::Command { id, command: Some(command) });
        drop(control);
        self.waker.wake();
        Some(receiver)
    }

    /// Tells what is offered from now on.
    pub fn offer(&self, offers: v1::PluginOffers) {
        let mut control = lock(&self.control);
        if !control.ended {
            control.offers = Some(offers);
        }
        drop(control);
        self.waker.wake();
    }

    pub fn give_up(&self, id: u64) {
        let mut control = lock(&self.control);
        control.waiting.remove(&id);
        control.commands.retain(|c| c.id != id);
    }

    /// Ends the stream if it is past its time.
    pub fn check(&self, now_ms: i64, options: &Options) {
        if now_ms >= self.not_after_ms.load(Ordering::Relaxed) {
            self.end(
                "expired",
                "the certificate of this stream has ended; connect with a renewed one, or enrol again",
            );
        } else if !self.greeted.load(Ordering::Relaxed)
            && now_ms.saturating_sub(self.opened_ms) > crate::clock::millis(options.hello_timeout)
        {
            self.end("protocol", "no Hello came in time");
        }
    }
}
