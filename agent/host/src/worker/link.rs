//! The agent's end of one worker: who is in it, what each is waited for, and what the worker may say next.
//!
//! A worker is never believed. Each frame must be of a kind that is due for its instance, no longer than that plugin may pass
//! in a host call, and readable to its last byte; the first one that is not ends the worker. Between two frames of one
//! instance stands always an answer of the agent's, so that a worker can make the agent hold no more than one host call of
//! each plugin.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::out::Out;
use super::wire::{self, Broken, HEAD, Head, NotLoaded, Order, Report};
use crate::body::Put;

/// Reading ahead, in bytes.
const BUFFER: usize = 16 << 10;
/// How long a worker may take to map a component, or to let go of an instance.
const PROMPT: Duration = Duration::from_secs(10);

/// One worker.
#[derive(Debug)]
pub(crate) struct Link {
    pub number: u64,
    out: Out,
    table: Mutex<Table>,
    next: AtomicU64,
    /// Set once: why it is to be ended.
    condemned: watch::Sender<Option<Reason>>,
    /// Set once, after the process has ended: why.
    dead: watch::Sender<Option<Arc<str>>>,
    /// Nobody needs it any more.
    idle: Notify,
}

/// Why a worker ended, or is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reason {
    /// The word in metrics.
    pub word: &'static str,
    pub text: String,
}

#[derive(Debug, Default)]
struct Table {
    /// Closed: nothing is put in any more.
    closed: bool,
    loads: HashMap<u64, oneshot::Sender<Result<(), NotLoaded>>>,
    instances: HashMap<u64, Row>,
}

#[derive(Debug)]
struct Row {
    turn: Turn,
    hostcall_bytes: u64,
    /// None: nobody listens any more; it is to end.
    listener: Option<mpsc::Sender<Report>>,
}

/// What a worker may say of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Ask, or say that it is made.
    Making,
    /// Nothing.
    Idle,
    /// Ask, or be done.
    Entered,
    /// Be done (its time may be over while it waits for an answer).
    Waiting { making: bool },
    /// What was under way, and that it has ended.
    Leaving,
}

impl Link {
    pub(crate) fn new(number: u64, out: Out) -> Self {
        Self {
            number,
            out,
            table: Mutex::default(),
            next: AtomicU64::new(1),
            condemned: watch::Sender::new(None),
            dead: watch::Sender::new(None),
            idle: Notify::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn alive(&self) -> bool {
        self.condemned.borrow().is_none() && !self.table().closed
    }

    /// To be ended, for this reason. The first reason counts.
    pub(crate) fn condemn(&self, word: &'static str, text: impl Into<String>) {
        self.condemned.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(Reason { word, text: text.into() });
            }
            first
        });
    }

    pub(crate) async fn condemned(&self) -> Reason {
        let mut seen = self.condemned.subscribe();
        match seen.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            _ => std::future::pending().await,
        }
    }

    /// The process has ended: whoever waits hears why.
    pub(crate) fn bury(&self, why: &str) {
        self.dead.send_replace(Some(why.into()));
        let mut table = self.table();
        table.closed = true;
        let (loads, instances) = (std::mem::take(&mut table.loads), std::mem::take(&mut table.instances));
        drop(table);
        drop((loads, instances));
    }

    /// Why it ended: waits for it where that is not known yet.
    pub(crate) async fn epitaph(&self) -> String {
        let mut seen = self.dead.subscribe();
        let known = tokio::time::timeout(PROMPT, seen.wait_for(Option::is_some)).await;
        match known {
            Ok(Ok(why)) => why.as_deref().unwrap_or_default().to_owned(),
            _ => "the worker does not answer".to_owned(),
        }
    }

    pub(crate) fn release(&self) {
        self.idle.notify_one();
    }

    pub(crate) async fn unneeded(&self) {
        self.idle.notified().await;
    }

    pub(crate) async fn flush(&self, patience: Duration) -> Reason {
        let unsent = self.out.flush(patience).await;
        Reason { word: "stalled", text: unsent.to_string() }
    }

    /// False: the worker is no more, or the order is too large for it.
    fn order(&self, number: u64, order: &Order, file: Option<Arc<File>>) -> bool {
        order.encode(number).is_some_and(|frame| self.send(frame, file))
    }

    fn send(&self, frame: Vec<u8>, file: Option<Arc<File>>) -> bool {
        if !self.alive() {
            return false;
        }
        match self.out.send(frame, file) {
            Ok(()) => true,
            Err(e) => {
                self.condemn("stalled", e.to_string());
                false
            }
        }
    }

    /// Maps a component in the worker; its number there.
    pub(crate) async fn load(&self, put: &Put) -> Result<u64, Unloaded> {
        let length = put.compiled.metadata().map_err(|e| Unloaded::Lost(e.to_string()))?.len();
        let seat = self.next.fetch_add(1, Ordering::Relaxed);
        let load = wire::Load {
            capabilities: put.capabilities.iter().map(|c| c.word().to_owned()).collect(),
            world: put.world,
            bounds: put.bounds.clone(),
            length,
        };
        let (sender, loaded) = oneshot::channel();
        {
            let mut table = self.table();
            if table.closed {
                return Err(Unloaded::Lost(String::new()));
            }
            table.loads.insert(seat, sender);
        }
        if self.order(seat, &Order::Load(load), Some(put.compiled.clone())) {
            match tokio::time::timeout(PROMPT, loaded).await {
                Ok(Ok(Ok(()))) => return Ok(seat),
                Ok(Ok(Err(not))) => return Err(Unloaded::Not(not)),
                Ok(Err(_)) => {}
                Err(_) => self.condemn("stalled", "it did not map a component in time"),
            }
        }
        Err(Unloaded::Lost(self.epitaph().await))
    }

    pub(crate) fn unload(&self, seat: u64) {
        self.order(seat, &Order::Unload, None);
    }

    /// Begins an instance of the seat; none: the worker is no more.
    pub(crate) fn begin(self: &Arc<Self>, seat: u64, put: &Put) -> Option<Held> {
        let instance = self.next.fetch_add(1, Ordering::Relaxed);
        // A host call and, at its time's end, that the call is over.
        let (listener, heard) = mpsc::channel(2);
        let row =
            Row { turn: Turn::Making, hostcall_bytes: put.bounds.hostcall_bytes, listener: Some(listener) };
        {
            let mut table = self.table();
            if table.closed {
                return None;
            }
            table.instances.insert(instance, row);
        }
        let held = Held { link: self.clone(), instance, heard };
        self.order(instance, &Order::Make { seat }, None).then_some(held)
    }

    /// Reads until the worker ends, or says what it may not.
    pub(crate) async fn listen(&self, stream: OwnedReadHalf) -> Result<(), Broken> {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        loop {
            let mut head = [0; HEAD];
            if stream.read_exact(&mut head).await.is_err() {
                return Ok(());
            }
            let head = Head::read(head);
            let most = self.most(head)?;
            // Grows with what comes, not by what is said.
            let mut body = Vec::with_capacity(head.length.min(BUFFER));
            let read = (&mut stream).take(head.length as u64).read_to_end(&mut body).await;
            if read.is_err() || body.len() != head.length {
                return Ok(());
            }
            self.take(head.number, Report::decode(head.kind, &body, most)?)?;
        }
    }

    /// How long a frame with this head may be.
    fn most(&self, head: Head) -> Result<usize, Broken> {
        let hostcall = self.table().instances.get(&head.number).map_or(0, |row| row.hostcall_bytes);
        let most = wire::most(head.kind, hostcall);
        if head.length > most { Err(Broken::Length { length: head.length, most }) } else { Ok(most) }
    }

    fn take(&self, number: u64, report: Report) -> Result<(), Broken> {
        let mut table = self.table();
        if let Report::Loaded(loaded) = report {
            let waiting = table.loads.remove(&number).ok_or(Broken::Turn("a component that nobody loads"))?;
            // Who loaded it may have gone.
            let _ = waiting.send(loaded);
            return Ok(());
        }
        let row = table.instances.get_mut(&number).ok_or(Broken::Turn("an instance that is not there"))?;
        match (row.turn, &report) {
            (Turn::Leaving, Report::Ended) => {
                table.instances.remove(&number);
                return Ok(());
            }
            // Under way when it was told to end.
            (Turn::Leaving, Report::Ask(_) | Report::Made(_) | Report::Done(..)) => return Ok(()),
            (Turn::Making, Report::Made(_)) | (Turn::Waiting { making: true }, Report::Made(_)) => {
                row.turn = Turn::Idle;
            }
            (Turn::Entered, Report::Done(..)) | (Turn::Waiting { making: false }, Report::Done(..)) => {
                row.turn = Turn::Idle;
            }
            (Turn::Making, Report::Ask(_)) => row.turn = Turn::Waiting { making: true },
            (Turn::Entered, Report::Ask(_)) => row.turn = Turn::Waiting { making: false },
            (_, Report::Ready(_)) => return Err(Broken::Turn("ready a second time")),
            _ => return Err(Broken::Turn("more than it was asked")),
        }
        let Some(listener) = &row.listener else { return Ok(()) };
        match listener.try_send(report) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Broken::Turn("more than is taken")),
        }
    }
}

/// Why a component is not mapped.
#[derive(Debug)]
pub(crate) enum Unloaded {
    Not(NotLoaded),
    Lost(String),
}

/// One instance in a worker, held by its owner. Dropped, it ends there.
#[derive(Debug)]
pub(crate) struct Held {
    link: Arc<Link>,
    instance: u64,
    heard: mpsc::Receiver<Report>,
}

impl Held {
    pub(crate) const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What the worker says of it next; none: the worker is no more.
    pub(crate) async fn hear(&mut self) -> Option<Report> {
        self.heard.recv().await
    }

    /// False: the worker is no more.
    pub(crate) fn enter(&self, call: crate::call::Call) -> bool {
        self.turn(Turn::Entered);
        self.link.order(self.instance, &Order::Enter(call), None)
    }

    /// False: the worker is no more.
    pub(crate) fn tell(&self, told: crate::ask::Told) -> bool {
        {
            let mut table = self.link.table();
            let Some(row) = table.instances.get_mut(&self.instance) else { return false };
            match row.turn {
                Turn::Waiting { making: true } => row.turn = Turn::Making,
                Turn::Waiting { making: false } => row.turn = Turn::Entered,
                // Its time is over meanwhile.
                _ => return true,
            }
        }
        match Order::Tell(told).encode(self.instance) {
            Some(frame) => self.link.send(frame, None),
            None => self.link.order(self.instance, &Order::Tell(crate::ask::Told::TooLarge), None),
        }
    }

    fn turn(&self, turn: Turn) {
        if let Some(row) = self.link.table().instances.get_mut(&self.instance) {
            row.turn = turn;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        {
            let mut table = self.link.table();
            let Some(row) = table.instances.get_mut(&self.instance) else { return };
            row.turn = Turn::Leaving;
            row.listener = None;
        }
        if !self.link.order(self.instance, &Order::End, None) {
            return;
        }
        let (link, instance) = (self.link.clone(), self.instance);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            tokio::time::sleep(PROMPT).await;
            if link.table().instances.contains_key(&instance) {
                link.condemn("stalled", "it did not end an instance in time");
            }
        });
    }
}
