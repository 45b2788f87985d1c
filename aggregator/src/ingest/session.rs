//! One uplink stream: a state machine that is polled as the response's body. It reads, accepts, and says what is durable.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::task::AtomicWaker;
use picket_proto::columns::{CODEC, Columns, Decoder};
use picket_proto::definitions;
use picket_proto::model::LOG_LIFE;
use picket_proto::v1::{self, downlink_message::Message as Down, uplink_message::Message as Up};
use tokio::task::JoinHandle;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use super::admission::{Peer, Renewed};
use super::agent_clock::AgentClock;
use super::nodes::NodeState;
use super::shared::Shared;
use super::violation::{MAX_LIVES, MAX_SAMPLES, Violation};
use super::waiting::{Prepared, Waiting};
use super::{Inner, telemetry};
use crate::log::{Batch, Entry};
use crate::store::{Stamp, Writer, lock};
use crate::transport::PeerInfo;

/// Messages taken before other tasks get their turn.
const BUDGET: usize = 16;
/// Events that one batch may bring; more are dropped and counted.
const MAX_EVENTS: usize = 4096;

/// The response's body.
pub struct Session {
    inner: Arc<Inner>,
    id: u64,
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    revoked: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` when the agent has ended its side.
    inbound: Option<Streaming<v1::UplinkMessage>>,
    /// `None` before Hello.
    node: Option<Arc<NodeState>>,
    current: Option<Box<Current>>,
    lives: Vec<StreamLife>,
    clock: AgentClock,
    waiting: Option<Waiting>,
    renewal: Option<JoinHandle<Result<Renewed, String>>>,
    /// A piece of a plugin that is being read.
    fetching: Option<JoinHandle<v1::PluginChunk>>,
    /// What is asked for meanwhile: the last of it.
    fetch_next: Option<v1::PluginFetch>,
    outbox: VecDeque<Down>,
    ended: bool,
}

/// The life that batches are of at the moment.
struct Current {
    life: u64,
    writer: Writer,
    decoder: Decoder,
}

struct StreamLife {
    life: u64,
    received: u64,
    acknowledged: u64,
}

impl Session {
    pub(super) fn open(
        inner: &Arc<Inner>,
        request: tonic::Request<Streaming<v1::UplinkMessage>>,
    ) -> Result<Self, Status> {
        if inner.closing.load(Ordering::SeqCst) {
            return Err(Status::unavailable("the aggregator is stopping; connect again"));
        }
        let connection = request.extensions().get::<PeerInfo>();
        let certificates = connection.and_then(|c| c.certificates.as_deref()).unwrap_or_default();
        let peer = inner.admission.admit(certificates)?;
        if connection.is_some_and(|c| !c.trust()) {
            return Err(Status::resource_exhausted(
                "the aggregator has all the connections it may have; try later",
            ));
        }
        let id = inner.next_id.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            waker: AtomicWaker::new(),
            opened_ms: inner.options.clock.now_ms(),
            greeted: AtomicBool::new(false),
            not_after_ms: AtomicI64::new(unix_ms(peer.not_after)),
            durable_moved: AtomicBool::new(false),
            control: Mutex::default(),
        });
        lock(&inner.streams).insert(id, Arc::downgrade(&shared));
        Ok(Self {
            inner: Arc::clone(inner),
            id,
            shared,
            revoked: Box::pin(peer.revoked.clone().cancelled_owned()),
            peer: Arc::new(peer),
            inbound: Some(request.into_inner()),
            node: None,
            current: None,
            lives: Vec::new(),
            clock: AgentClock::default(),
            waiting: None,
            renewal: None,
            fetching: None,
            fetch_next: None,
            outbox: VecDeque::new(),
            ended: false,
        })
    }

    fn take(&mut self, message: v1::UplinkMessage, cx: &mut Context<'_>) -> Result<(), Violation> {
        let message = message.message.ok_or(Violation::Empty)?;
        let Some(node) = self.node.clone() else {
            return match message {
                Up::Hello(hello) => self.hello(hello),
                _ => Err(Violation::NoHello),
            };
        };
        match message {
            Up::Hello(_) => return Err(Violation::HelloTwice),
            Up::Life(life) => self.begin_life(&node, life.life)?,
            Up::Definitions(definitions) => self.define(&definitions)?,
            Up::Batch(batch) => self.batch(&node, batch, cx)?,
            Up::Renew(request) => self.renew(request)?,
            Up::CommandResult(result) => {
                if let Some(answer) = lock(&self.shared.control).waiting.remove(&result.id) {
                    // Whoever asked may have given up.
                    let _ = answer.send(result);
                }
            }
            Up::Loss(loss) => node.lost(loss),
            Up::Actions(report) => {
                if let Some(sink) = self.inner.actions.get() {
                    sink.take(&self.peer.node, report);
                }
            }
            Up::Plugins(report) => node.report(report),
            Up::Grants(report) => node.granted(report),
            Up::Fetch(fetch) => self.fetch(fetch),
            Up::Offers(report) => {
                if let Some(sink) = self.inner.rollouts.get() {
                    sink.said(&self.peer.node, report);
                }
            }
        }
        Ok(())
    }

    fn hello(&mut self, hello: v1::Hello) -> Result<(), Violation> {
        if !hello.codecs.contains(&CODEC) {
            return Err(Violation::Codec { theirs: hello.codecs.into_iter().take(16).collect() });
        }
        let now_ms = self.inner.options.clock.now_ms();
        if hello.now_ms != 0 {
            self.clock.skew_ms = Some(now_ms.saturating_sub(hello.now_ms));
        }
        let node = self.inner.state(&self.peer.node);
        self.shared.greeted.store(true, Ordering::Relaxed);
        node.store.connected();
        if let Some(replaced) = node.connect(&self.shared, hello, now_ms) {
            replaced.end("replaced", "the node has opened another stream");
        }
        metrics::counter!(telemetry::HELLOS).increment(1);
        self.outbox.push_back(Down::Welcome(v1::Welcome {
            node: self.peer.node.to_string(),
            codec: CODEC,
            aggregator_version: env!("CARGO_PKG_VERSION").to_owned(),
            window: self.inner.options.window,
            watermarks: node.watermarks(),
        }));
        if let Some(sink) = self.inner.rollouts.get() {
            let offers = sink.offers(&self.peer.node);
            if !offers.offers.is_empty() {
                self.outbox.push_back(Down::Offers(offers));
            }
        }
        self.node = Some(node);
        Ok(())
    }

    fn begin_life(&mut self, node: &NodeState, life: u64) -> Result<(), Violation> {
        self.follow_life(life)?;
        // The old one's numbers go before the new one's come.
        self.current = None;
        let writer = self.inner.store.writer(&node.store);
        self.current = Some(Box::new(Current { life, writer, decoder: Decoder::new() }));
        self.clock.last_ms = None;
        Ok(())
    }

    /// Acknowledges this life's batches from now on.
    fn follow_life(&mut self, life: u64) -> Result<&mut StreamLife, Violation> {
        let at = match self.lives.iter().position(|l| l.life == life) {
            Some(at) => at,
            None => {
                let current = self.current.as_ref().map(|c| c.life);
                let goes_on = |l: &StreamLife| Some(l.life) == current || l.life & LOG_LIFE != 0;
                self.lives.retain(|l| goes_on(l) || l.acknowledged < l.received);
                if self.lives.len() >= MAX_LIVES {
                    return Err(Violation::Lives);
                }
                self.lives.push(StreamLife { life, received: 0, acknowledged: 0 });
                self.lives.len() - 1
            }
        };
        self.lives.get_mut(at).ok_or(Violation::Lives)
    }

    /// A batch of the agent's queue of log lines: of a life of its own, beside the stream's.
    fn log_batch(
        &mut self,
        node: &Arc<NodeState>,
        batch: v1::Batch,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        let v1::Batch { life, sequence, columns, events, retired, logs } = batch;
        if sequence == 0 {
            return Err(Violation::Sequence);
        }
        if life & LOG_LIFE == 0 || !columns.is_empty() || !retired.is_empty() || !events.is_empty() {
            return Err(Violation::NotLogs);
        }
        let seen = self.follow_life(life)?;
        seen.received = seen.received.max(sequence);
        if node.is_accepted(life, sequence) {
            self.duplicate();
            return Ok(());
        }
        let received_ms = self.inner.options.clock.now_ms();
        let batch = Batch {
            life,
            sequence,
            received_ms,
            fresh_ms: received_ms,
            blocks: Vec::new(),
            retired: Vec::new(),
            pin: node.store.pin(),
        };
        self.keep(node, Box::new(Prepared { batch, events: Arc::default(), logs }), cx);
        Ok(())
    }

    fn define(&mut self, message: &v1::Definitions) -> Result<(), Violation> {
        let current = self.current.as_mut().ok_or(Violation::NoLife { what: "Definitions" })?;
        let reader = definitions::read(message)?;
        let mut definer = current.writer.define(self.inner.options.clock.now_ms());
        for family in reader.families() {
            definer.family(family.number, family.name, family.metric_type, family.unit, family.help)?;
        }
        for series in reader.series() {
            definer.series(series.number, series.family, series.part, series.labels)?;
        }
        let outcome = definer.finish();
        if let Some(refusal) = outcome.first_refusal {
            tracing::warn!(node = %self.peer.node, refused = outcome.refused, first = %refusal, "definitions were refused; their samples are dropped");
        }
        Ok(())
    }

    fn batch(
        &mut self,
        node: &Arc<NodeState>,
        batch: v1::Batch,
        cx: &mut Context<'_>,
    ) -> Result<(), Violation> {
        if batch.life != 0 {
            return self.log_batch(node, batch, cx);
        }
        let current = self.current.as_mut().ok_or(Violation::NoLife { what: "a batch" })?;
        if batch.sequence == 0 {
            return Err(Violation::Sequence);
        }
        // Always: the decoder must see every block.
        let mut decoded = Vec::with_capacity(batch.columns.len().min(16));
        let mut samples = 0;
        for bytes in &batch.columns {
            let mut columns = Columns::default();
            current.decoder.decode(bytes, &mut columns)?;
            samples += columns.series.len();
            if samples > MAX_SAMPLES {
                return Err(Violation::TooLarge { samples });
            }
            decoded.push(columns);
        }
        current.decoder.forget(&batch.retired);
        let life = current.life;
        let seen = self.lives.iter_mut().find(|l| l.life == life);
        if let Some(seen) = seen {
            seen.received = seen.received.max(batch.sequence);
        }
        if node.is_accepted(life, batch.sequence) {
            current.writer.undefine(&batch.retired);
            self.duplicate();
            return Ok(());
        }
        let received_ms = self.inner.options.clock.now_ms();
        let fresh_ms = match decoded.iter().map(|c| c.timestamp_ms).max() {
            Some(agent_ms) => self.clock.ours(agent_ms, received_ms),
            None => received_ms,
        };
        let pin = node.store.pin();
        let blocks = decoded.into_iter().map(|c| current.writer.resolve(c)).collect::<Result<Vec<_>, _>>()?;
        let retired = current.writer.undefine(&batch.retired);
        let mut events = batch.events;
        if events.len() > MAX_EVENTS {
            metrics::counter!(telemetry::EVENTS_DROPPED).increment((events.len() - MAX_EVENTS) as u64);
            events.truncate(MAX_EVENTS);
        }
        let (events, logs) = (Arc::new(events), batch.logs);
        let sequence = batch.sequence;
        let batch = Batch { life, sequence, received_ms, fresh_ms, blocks, retired, pin };
        self.keep(node, Box::new(Prepared { batch, events, logs }), cx);
        Ok(())
    }

    /// Makes a batch's log lines durable, then its events, then accepts it.
    fn keep(&mut self, node: &Arc<NodeState>, mut prepared: Box<Prepared>, cx: &Context<'_>) {
        let logs = std::mem::take(&mut prepared.logs);
        if !logs.is_empty() {
            let (life, sequence) = (prepared.batch.life, prepared.batch.sequence);
            let recording = self.inner.logs.record(&self.peer.node, life, sequence, logs);
            self.waiting = Some(Waiting::Logs(recording, prepared));
        } else if prepared.events.is_empty() {
            self.submit(node, prepared, cx);
        } else {
            self.record(prepared);
        }
    }

    /// Records a batch's events off this thread; the batch goes on when they are durable.
    fn record(&mut self, prepared: Box<Prepared>) {
        let (sink, peer, events) =
            (Arc::clone(&self.inner.events), Arc::clone(&self.peer), Arc::clone(&prepared.events));
        let (life, sequence) = (prepared.batch.life, prepared.batch.sequence);
        let handle = tokio::task::spawn_blocking(move || sink.record(&peer.node, life, sequence, &events));
        self.waiting = Some(Waiting::Events(handle, prepared));
    }

    /// Accepts a batch if the log has room, else keeps it until it has.
    fn submit(&mut self, node: &Arc<NodeState>, prepared: Box<Prepared>, cx: &Context<'_>) {
        if self.inner.log.poll_room(cx).is_pending() {
            metrics::counter!(telemetry::STALLS).increment(1);
            self.waiting = Some(Waiting::Room(prepared));
            return;
        }
        let Prepared { batch, events, .. } = *prepared;
        let Batch { life, sequence, received_ms, fresh_ms, .. } = batch;
        let samples: usize = batch.blocks.iter().map(|b| b.slots.len()).sum();
        let accepted = node.accept(life, sequence, received_ms, |in_order| {
            for block in &batch.blocks {
                node.store.take(block, Stamp { timestamp_ms: block.timestamp_ms, fresh_ms, in_order });
            }
            if !batch.retired.is_empty() {
                let at_ms = batch.blocks.first().map_or(received_ms, |b| b.timestamp_ms);
                node.store.retire(&batch.retired, at_ms);
            }
            node.store.received(received_ms);
            let done = Arc::clone(node) as Arc<dyn crate::log::Committed>;
            self.inner.log.append(Entry { node: Arc::clone(&node.store), batch, done });
        });
        if accepted {
            metrics::counter!(telemetry::BATCHES).increment(1);
            metrics::counter!(telemetry::SAMPLES).increment(samples as u64);
            if !events.is_empty() {
                metrics::counter!(telemetry::EVENTS).increment(events.len() as u64);
            }
        } else {
            self.duplicate();
        }
    }

    fn duplicate(&self) {
        metrics::counter!(telemetry::DUPLICATES).increment(1);
        // It may be durable long since: look.
        self.shared.durable_moved.store(true, Ordering::Release);
    }

    fn renew(&mut self, request: v1::RenewRequest) -> Result<(), Violation> {
        if self.renewal.is_some() {
            return Err(Violation::Renewal);
        }
        let (admission, peer) = (Arc::clone(&self.inner.admission), Arc::clone(&self.peer));
        self.renewal = Some(tokio::task::spawn_blocking(move || admission.renew(&peer, &request.csr)));
        Ok(())
    }

    fn fetch(&mut self, fetch: v1::PluginFetch) {
        if self.fetching.is_some() {
            self.fetch_next = Some(fetch);
            return;
        }
        // Who has none answers nothing, and nothing was offered.
        let Some(sink) = self.inner.rollouts.get().cloned() else { return };
        let peer = Arc::clone(&self.peer);
        self.fetching = Some(tokio::task::spawn_blocking(move || sink.chunk(&peer.node, &fetch)));
    }

    fn poll_fetch(&mut self, cx: &mut Context<'_>) {
        let Some(handle) = &mut self.fetching else { return };
        let Poll::Ready(done) = Pin::new(handle).poll(cx) else { return };
        self.fetching = None;
        // A lost one is asked for again.
        if let Ok(chunk) = done {
            self.outbox.push_back(Down::Chunk(chunk));
        }
        if let Some(next) = self.fetch_next.take() {
            self.fetch(next);
            self.poll_fetch(cx);
        }
    }

    fn poll_renewal(&mut self, cx: &mut Context<'_>) {
        let Some(handle) = &mut self.renewal else { return };
        let Poll::Ready(done) = Pin::new(handle).poll(cx) else { return };
        self.renewal = None;
        let result = done.unwrap_or_else(|_| Err("the aggregator failed; its log says why".to_owned()));
        self.outbox.push_back(Down::Renew(match result {
            Ok(renewed) => {
                self.shared.not_after_ms.store(unix_ms(renewed.not_after), Ordering::Relaxed);
                v1::RenewResponse {
                    certificates: renewed.certificates,
                    authorities: renewed.authorities,
                    refused: String::new(),
                }
            }
            Err(refused) => {
                tracing::warn!(node = %self.peer.node, refused, "a certificate was not renewed");
                v1::RenewResponse { refused, ..v1::RenewResponse::default() }
            }
        }));
    }

    /// Goes on with a batch that had to wait. `false`: it still has to.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let (Some(waiting), Some(node)) = (self.waiting.take(), self.node.clone()) else { return true };
        match waiting {
            Waiting::Room(prepared) => self.submit(&node, prepared, cx),
            Waiting::Logs(mut recording, prepared) => match recording.as_mut().poll(cx) {
                Poll::Pending => {
                    self.waiting = Some(Waiting::Logs(recording, prepared));
                    return false;
                }
                Poll::Ready(Ok(())) => self.keep(&node, prepared, cx),
                Poll::Ready(Err(error)) => {
                    // Nothing after it may be taken: the agent brings it again on another stream.
                    tracing::debug!(node = %self.peer.node, error, "log lines were not kept; the stream is ended");
                    self.inbound = None;
                    self.ended = true;
                    return false;
                }
            },
            Waiting::Retry(mut sleep, prepared) => match sleep.as_mut().poll(cx) {
                Poll::Ready(()) => self.record(prepared),
                Poll::Pending => {
                    self.waiting = Some(Waiting::Retry(sleep, prepared));
                    return false;
                }
            },
            Waiting::Events(mut handle, prepared) => match Pin::new(&mut handle).poll(cx) {
                Poll::Pending => {
                    self.waiting = Some(Waiting::Events(handle, prepared));
                    return false;
                }
                Poll::Ready(Ok(Ok(()))) => self.submit(&node, prepared, cx),
                Poll::Ready(failed) => {
                    let error = failed.map_or_else(|e| e.to_string(), |r| r.err().unwrap_or_default());
                    tracing::error!(node = %self.peer.node, error, "events can't be kept; the stream waits and tries again");
                    let sleep = Box::pin(tokio::time::sleep(std::time::Duration::from_secs(1)));
                    self.waiting = Some(Waiting::Retry(sleep, prepared));
                }
            },
        }
        match &self.waiting {
            None => true,
            // The new future has not been polled yet.
            Some(Waiting::Logs(..) | Waiting::Events(..) | Waiting::Retry(..)) => self.poll_waiting(cx),
            Some(Waiting::Room(_)) => false,
        }
    }

    /// Reads until nothing is there, a batch has to wait, or the budget is spent (`true`: there may be more).
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..BUDGET {
            if !self.poll_waiting(cx) {
                return false;
            }
            let Some(inbound) = &mut self.inbound else { return false };
            match futures_util::Stream::poll_next(Pin::new(inbound), cx) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(message))) => {
                    if let Err(violation) = self.take(message, cx) {
                        tracing::warn!(node = %self.peer.node, %violation, "the stream is ended: its agent broke the protocol");
                        self.shared.end("protocol", &violation.to_string());
                        return true;
                    }
                }
                Poll::Ready(Some(Err(status))) => {
                    tracing::debug!(node = %self.peer.node, %status, "the stream broke");
                    self.inbound = None;
                    self.ended = true;
                    return false;
                }
                Poll::Ready(None) => {
                    self.inbound = None;
                    return false;
                }
            }
        }
        true
    }

    /// The acknowledgements that are due, one a life.
    fn collect_acks(&mut self) {
        let Some(node) = &self.node else { return };
        if !self.shared.durable_moved.swap(false, Ordering::AcqRel) {
            return;
        }
        for life in &mut self.lives {
            let sequence = node.durable(life.life).min(life.received);
            if sequence > life.acknowledged {
                life.acknowledged = sequence;
                self.outbox.push_back(Down::Ack(v1::Ack { life: life.life, sequence }));
            }
        }
    }

    /// The agent has ended its side and has all its acknowledgements.
    fn is_drained(&self) -> bool {
        self.inbound.is_none()
            && self.waiting.is_none()
            && self.lives.iter().all(|l| l.acknowledged >= l.received)
    }

    fn goodbye(&mut self, cx: &mut Context<'_>) -> Option<v1::Goodbye> {
        if self.revoked.as_mut().poll(cx).is_ready() {
            let message = "the node was revoked; it must be enrolled again by an operator";
            return Some(v1::Goodbye { reason: "revoked".to_owned(), message: message.to_owned() });
        }
        let mut control = lock(&self.shared.control);
        while let Some(command) = control.commands.pop_front() {
            self.outbox.push_back(Down::Command(command));
        }
        if self.node.is_some()
            && let Some(offers) = control.offers.take()
        {
            self.outbox.push_back(Down::Offers(offers));
        }
        control.goodbye.take()
    }
}

impl futures_util::Stream for Session {
    type Item = Result<v1::DownlinkMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let say = |message| Poll::Ready(Some(Ok(v1::DownlinkMessage { message: Some(message) })));
        if this.ended {
            return Poll::Ready(None);
        }
        this.shared.waker.register(cx.waker());
        if let Some(message) = this.outbox.pop_front() {
            return say(message);
        }
        let mut more = false;
        for round in 0..2 {
            if let Some(goodbye) = this.goodbye(cx) {
                metrics::counter!(telemetry::ENDED, "reason" => goodbye.reason.clone()).increment(1);
                this.ended = true;
                this.inbound = None;
                return say(Down::Goodbye(goodbye));
            }
            // A violation found while reading is said in the second round.
            if round == 0 {
                more = this.read(cx);
                this.poll_renewal(cx);
                this.poll_fetch(cx);
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        this.collect_acks();
        if let Some(message) = this.outbox.pop_front() {
            return say(message);
        }
        if this.is_drained() {
            this.ended = true;
            return Poll::Ready(None);
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        lock(&self.inner.streams).remove(&self.id);
        if let Some(node) = &self.node {
            node.disconnect(&self.shared);
            node.store.disconnected();
        }
        let mut control = lock(&self.shared.control);
        control.ended = true;
        // Whoever waits for an answer is told by the drop.
        control.waiting.clear();
        control.commands.clear();
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
