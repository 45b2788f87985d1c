//! One stream, from Hello to its end: one loop that owns all of the stream's state.
//!
//! The spool is read only while nothing waits to be sent and the window has room; the aggregator is listened to only
//! while answers to it don't pile up. So memory is bounded in both directions by the other side's pace.
//!
//! What is fixed of a message on the wire (TLS record, HTTP/2 frame, TCP segments, its acknowledgement's) is more than the
//! samples of a small batch. So records that become durable shortly after each other, as those of one tick do, leave
//! together; one with an event does not wait.

use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use picket_agent_spool::{Item, Reader, Spool};
use picket_proto::model::LOG_LIFE;
use picket_proto::v1;
use picket_proto::v1::downlink_message::Message as Down;
use picket_proto::v1::uplink_client::UplinkClient;
use picket_proto::v1::uplink_message::Message as Up;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use tracing::{debug, info, warn};

use super::commands::Commands;
use super::credentials::Credentials;
use super::error::UplinkError;
use super::translate::{TranslateError, Translated, Translator, message};
use super::{End, Uplink, translate};
use crate::identity::{RenewError, Watch};

/// Groups of messages between this loop and HTTP/2.
const OUTGOING: usize = 1;
/// A group leaves when it has so many messages or bytes, however young it is.
const GROUP: usize = 16;
const GROUP_BYTES: usize = 64 << 10;
/// The most batches in flight, whatever the aggregator allows.
const MAX_WINDOW: u32 = 4096;
/// The aggregator's messages are small.
const MAX_DOWN_BYTES: usize = 4 << 20;
/// Answers that wait to be sent; with more the aggregator is no longer listened to.
const MAX_ANSWERS: usize = 16;
/// Batches of log lines in flight: more would only stand in the samples' way.
const MAX_LOG_WINDOW: usize = 4;
/// Streams that may end over one record.
const MAX_REFUSALS: u32 = 3;
/// Files of the operator's own are looked at this often while connected.
const RELOAD: std::time::Duration = std::time::Duration::from_secs(60);

pub(super) struct Session<'u> {
    uplink: &'u mut Uplink,
    credentials: &'u mut Credentials,
    channel: Channel,
    watch: Watch,
    translator: Translator,
    /// To be sent, in order: what one record needs, or a report.
    outgoing: VecDeque<v1::UplinkMessage>,
    /// The bytes of it that records brought, and when it leaves at the latest.
    outgoing_bytes: usize,
    leaves: Instant,
    /// To be sent before that: answers to commands, renewal requests.
    answers: VecDeque<v1::UplinkMessage>,
    /// Life and sequence of each unacknowledged batch, in the order sent.
    in_flight: VecDeque<(u64, u64)>,
    /// Of these, how many are log lines.
    log_batches: usize,
    /// The last record of log lines for which no batch was sent, while others before it were under way.
    skipped: Option<(u64, u64)>,
    /// What the aggregator holds and what it was sent: an acknowledgement beyond that is a lie.
    lives: HashMap<u64, Progress>,
    /// When the last batch was acknowledged, or the first one was sent after all were.
    progress: Instant,
    /// The totals that were sent.
    losses: HashMap<&'static str, u64>,
    commands: Commands,
    reloaded: Instant,
}

#[derive(Default, Clone, Copy)]
struct Progress {
    held: u64,
    sent: u64,
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

impl<'u> Session<'u> {
    pub fn new(uplink: &'u mut Uplink, opened: (Channel, Watch), credentials: &'u mut Credentials) -> Self {
        let (channel, watch) = opened;
        let commands = Commands::new(uplink.commands.clone(), uplink.timing.command);
        Self {
            uplink,
            credentials,
            channel,
            watch,
            translator: Translator::default(),
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            leaves: Instant::now(),
            answers: VecDeque::new(),
            in_flight: VecDeque::new(),
            log_batches: 0,
            skipped: None,
            lives: HashMap::new(),
            progress: Instant::now(),
            losses: HashMap::new(),
            commands,
            reloaded: Instant::now(),
        }
    }

    pub async fn run(mut self) -> End {
        let (sender, receiver) = mpsc::channel(OUTGOING);
        // The channel is empty and has room.
        let _ = sender.try_send(vec![message(Up::Hello(hello(self.uplink.started_ms, &self.uplink.labels)))]);
        let after = self.uplink.timing.welcome;
        let shutdown = self.uplink.shutdown.clone();
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return End::Shutdown,
            opened = tokio::time::timeout(after, self.open(receiver)) => opened,
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(_) => {
                Err(self.watch.explain().map_or(UplinkError::NoWelcome { after }, UplinkError::Connect))
            }
        };
        let (mut incoming, window) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Failed(error),
        };
        match self.follow(sender, &mut incoming, window).await {
            Ok(()) => End::Shutdown,
            Err(error) => End::Failed(error),
        }
    }

    /// Opens the stream and takes the Welcome.
    async fn open(
        &mut self,
        receiver: mpsc::Receiver<Vec<v1::UplinkMessage>>,
    ) -> Result<(Streaming<v1::DownlinkMessage>, usize), UplinkError> {
        let mut client = UplinkClient::new(self.channel.clone()).max_decoding_message_size(MAX_DOWN_BYTES);
        let failed =
            |status: tonic::Status, watch: &Watch| UplinkError::of_status(&status, watch.explain(), false);
        let messages = ReceiverStream::new(receiver).flat_map(futures_util::stream::iter);
        let response = client.stream(messages).await.map_err(|e| failed(e, &self.watch))?;
        let mut incoming = response.into_inner();
        let first = incoming.message().await.map_err(|e| failed(e, &self.watch))?;
        let welcome = match first.and_then(|first| first.message) {
            Some(Down::Welcome(welcome)) => welcome,
            Some(Down::Goodbye(goodbye)) => return Err(UplinkError::of_goodbye(&goodbye)),
            Some(_) => {
                return Err(UplinkError::Protocol { what: "its first message is not Welcome".to_owned() });
            }
            None => return Err(UplinkError::Ended),
        };
        if welcome.codec != picket_proto::columns::CODEC {
            return Err(UplinkError::Codec { wanted: welcome.codec });
        }
        for watermark in &welcome.watermarks {
            self.lives.insert(watermark.life, Progress { held: watermark.sequence, sent: 0 });
            self.acknowledge(watermark.life, watermark.sequence);
            if watermark.life == self.uplink.life {
                self.uplink.status.acked(watermark.sequence);
            }
        }
        self.uplink.status.welcomed(&welcome.node, &welcome.aggregator_version);
        info!(node = %welcome.node, aggregator = %welcome.aggregator_version, "connected to the aggregator");
        Ok((incoming, welcome.window.clamp(1, MAX_WINDOW) as usize))
    }

    async fn follow(
        &mut self,
        sender: mpsc::Sender<Vec<v1::UplinkMessage>>,
        incoming: &mut Streaming<v1::DownlinkMessage>,
        window: usize,
    ) -> Result<(), UplinkError> {
        let mut reader = self.uplink.spool.reader();
        let mut lines = self.uplink.lines.as_ref().map(Spool::reader);
        let mut tick = tokio::time::interval(self.uplink.timing.housekeeping);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut plugins = self.uplink.plugins.clone();
        plugins.mark_changed();
        let mut plugins_gone = false;
        let mut actions = self.uplink.actions.clone();
        if *actions.borrow() != v1::ActionReport::default() {
            actions.mark_changed();
        }
        let mut actions_gone = false;
        let mut central = self.uplink.central.listen();
        let mut drain_until = None;
        let shutdown = self.uplink.shutdown.clone();
        self.progress = Instant::now();

        loop {
            if let Some(until) = drain_until
                && (self.drained() || Instant::now() >= until)
            {
                return Ok(());
            }
            let sending = drain_until.is_some() && !self.outgoing.is_empty() || self.is_due();
            let reading = !sending && self.in_flight.len() < window;
            // The last place of the window is the samples'.
            let room = self.in_flight.is_empty() || self.in_flight.len() + 1 < window;
            let reading_lines = !sending && room && self.log_batches < MAX_LOG_WINDOW && lines.is_some();
            tokio::select! {
                () = shutdown.cancelled(), if drain_until.is_none() => {
                    drain_until = Some(Instant::now() + self.uplink.timing.drain);
                }
                // While draining, the spool's state is looked at again now and then.
                () = tokio::time::sleep(std::time::Duration::from_millis(50)), if drain_until.is_some() => {}
                received = incoming.message(), if self.answers.len() < MAX_ANSWERS => match received {
                    Ok(Some(down)) => self.received(down).await?,
                    Ok(None) => return Err(UplinkError::Ended),
                    Err(status) => return Err(UplinkError::of_status(&status, self.watch.explain(), true)),
                },
                () = tokio::time::sleep_until(self.leaves), if !sending && !self.outgoing.is_empty() => {}
                permit = sender.reserve(), if sending => match permit {
                    Ok(permit) => {
                        self.outgoing_bytes = 0;
                        permit.send(self.answers.drain(..).chain(self.outgoing.drain(..)).collect());
                    }
                    // HTTP/2 has let go of the stream; the incoming half knows why.
                    Err(_) => return Err(self.broken(incoming).await),
                },
                item = next_record(&mut reader, reading, &mut lines, reading_lines), if reading || reading_lines => {
                    match item {
                        Next::Samples(item) => self.record(&item)?,
                        Next::Lines(item) => self.lines(&item),
                    }
                }
                result = self.commands.next(), if !self.commands.is_empty() => {
                    self.answers.push_back(message(Up::CommandResult(result)));
                }
                changed = plugins.changed(), if !plugins_gone && !sending => match changed {
                    Ok(()) => {
                        let plugins = plugins.borrow_and_update().clone();
                        self.begin_group();
                        self.outgoing.push_back(message(Up::Plugins(v1::PluginReport { plugins })));
                    }
                    Err(_) => plugins_gone = true,
                },
                changed = actions.changed(), if !actions_gone && !sending => match changed {
                    Ok(()) => {
                        let report = actions.borrow_and_update().clone();
                        // Somebody waits for it.
                        self.begin_group();
                        self.leaves = Instant::now();
                        self.outgoing.push_back(message(Up::Actions(report)));
                    }
                    Err(_) => actions_gone = true,
                },
                up = central.next(), if !sending => {
                    // Somebody waits for it.
                    self.begin_group();
                    self.leaves = Instant::now();
                    self.outgoing.push_back(message(up));
                }
                _ = tick.tick() => self.housekeeping().await?,
            }
        }
    }

    /// Nothing durable is left to send or to be acknowledged.
    fn drained(&self) -> bool {
        self.in_flight.is_empty()
            && self.outgoing.is_empty()
            && self.answers.is_empty()
            && self.uplink.spool.stats().records_pending == 0
    }

    /// A group that begins now leaves after a while.
    fn begin_group(&mut self) {
        if self.outgoing.is_empty() {
            self.leaves = Instant::now() + self.uplink.timing.gather;
        }
    }

    /// What is to be sent is to be sent now.
    fn is_due(&self) -> bool {
        if self.outgoing.is_empty() {
            return !self.answers.is_empty();
        }
        !self.answers.is_empty()
            || self.outgoing.len() >= GROUP
            || self.outgoing_bytes >= GROUP_BYTES
            || Instant::now() >= self.leaves
    }

    /// Queues one record of the spool.
    fn record(&mut self, item: &Item) -> Result<(), UplinkError> {
        let key = (item.life, item.sequence);
        let progress = self.lives.entry(item.life).or_default();
        let held = item.sequence <= progress.held || self.uplink.unsendable == Some(key);
        let before = self.outgoing.len();
        if before == 0 {
            self.leaves = Instant::now() + self.uplink.timing.gather;
        }
        match self.translator.translate(item, held, &mut self.outgoing) {
            Ok(Translated::Skipped) => self.left_out(item),
            Ok(Translated::Batch { undefined }) => {
                progress.sent = progress.sent.max(item.sequence);
                if self.in_flight.is_empty() {
                    self.progress = Instant::now();
                }
                self.in_flight.push_back(key);
                self.uplink.status.sent();
                self.uplink.status.undefined(undefined);
                self.uplink.status.flying(self.in_flight.len());
                for message in self.outgoing.range(before..) {
                    self.outgoing_bytes += message.encoded_len();
                    if matches!(&message.message, Some(Up::Batch(batch)) if !batch.events.is_empty()) {
                        self.leaves = Instant::now();
                    }
                }
            }
            Err(error @ TranslateError::Columns { .. }) => {
                self.uplink.status.unsendable();
                self.uplink.unsendable = Some(key);
                return Err(error.into());
            }
            Err(error) => {
                self.uplink.status.unsendable();
                warn!(error = %error, "a record of the spool is left out");
                self.left_out(item);
            }
        }
        Ok(())
    }

    /// Queues one record of log lines.
    fn lines(&mut self, item: &Item) {
        let key = (item.life, item.sequence);
        let progress = self.lives.entry(item.life).or_default();
        let held = item.sequence <= progress.held || self.uplink.unsendable == Some(key);
        let translated = if held { Ok(None) } else { translate::lines(item) };
        match translated {
            Ok(Some(batch)) => {
                progress.sent = progress.sent.max(item.sequence);
                self.begin_group();
                self.outgoing.push_back(batch);
                self.outgoing_bytes += item.bytes.len();
                if self.in_flight.is_empty() {
                    self.progress = Instant::now();
                }
                self.in_flight.push_back(key);
                self.log_batches += 1;
                self.uplink.status.sent();
                self.uplink.status.flying(self.in_flight.len());
            }
            Ok(None) => self.skip_lines(key),
            Err(error) => {
                self.uplink.status.unsendable();
                warn!(error = %error, "a record of log lines is left out");
                self.skip_lines(key);
            }
        }
    }

    /// Nothing is to be expected for this record of log lines: it leaves the queue now, or behind those under way.
    fn skip_lines(&mut self, (life, sequence): (u64, u64)) {
        if self.log_batches == 0 {
            self.acknowledge(life, sequence);
        } else {
            self.skipped = Some((life, sequence));
        }
    }

    /// All of this life up to here may leave its queue.
    fn acknowledge(&self, life: u64, sequence: u64) {
        let spool = if life & LOG_LIFE == 0 { Some(&self.uplink.spool) } else { self.uplink.lines.as_ref() };
        if let Some(spool) = spool {
            spool.ack(life, sequence);
        }
    }

    /// Nothing is to be expected for this record: with nothing before it under way it leaves the spool now, else with
    /// the next acknowledgement.
    fn left_out(&mut self, item: &Item) {
        if self.in_flight.is_empty() {
            self.uplink.spool.ack(item.life, item.sequence);
        }
    }

    async fn received(&mut self, down: v1::DownlinkMessage) -> Result<(), UplinkError> {
        match down.message {
            Some(Down::Ack(ack)) => self.acked(&ack),
            Some(Down::Command(command)) => {
                if let Some(refused) = self.commands.start(command) {
                    self.answers.push_back(message(Up::CommandResult(refused)));
                }
                Ok(())
            }
            Some(Down::Renew(answer)) => {
                match self.credentials.renewed(answer).await {
                    Some(outcome) => self.renewed(outcome),
                    None => debug!("the aggregator sent a certificate that nobody asked for"),
                }
                Ok(())
            }
            Some(Down::Goodbye(goodbye)) => {
                if goodbye.reason == "protocol" {
                    self.suspect();
                }
                Err(UplinkError::of_goodbye(&goodbye))
            }
            Some(Down::Offers(offers)) => {
                self.uplink.central.offered(offers);
                Ok(())
            }
            Some(Down::Chunk(chunk)) => {
                self.uplink.central.brought(chunk);
                Ok(())
            }
            Some(Down::Welcome(_)) => Err(UplinkError::Protocol { what: "it said Welcome twice".to_owned() }),
            // A message of a later version: nothing depends on it.
            None => Ok(()),
        }
    }

    fn acked(&mut self, ack: &v1::Ack) -> Result<(), UplinkError> {
        let known = self.lives.get(&ack.life).copied().unwrap_or_default();
        if ack.sequence > known.sent.max(known.held) {
            return Err(UplinkError::Protocol {
                what: format!(
                    "it acknowledged batch {} of life {:016x}, which it was not sent",
                    ack.sequence, ack.life
                ),
            });
        }
        let before = self.in_flight.len();
        self.in_flight.retain(|(life, sequence)| *life != ack.life || *sequence > ack.sequence);
        if self.in_flight.len() < before {
            self.progress = Instant::now();
        }
        self.acknowledge(ack.life, ack.sequence);
        self.log_batches = self.in_flight.iter().filter(|(life, _)| life & LOG_LIFE != 0).count();
        if self.log_batches == 0
            && let Some((life, sequence)) = self.skipped.take()
        {
            self.acknowledge(life, sequence);
        }
        self.uplink.status.flying(self.in_flight.len());
        if ack.life == self.uplink.life {
            self.uplink.status.acked(ack.sequence);
        }
        Ok(())
    }

    /// One record that the aggregator cannot take must not hold up all those behind it for ever: what is the first
    /// unacknowledged one each time is left out in the end.
    fn suspect(&mut self) {
        let Some(first) = self.in_flight.front().copied() else { return };
        let times = match self.uplink.suspect {
            Some((suspect, times)) if suspect == first => times + 1,
            _ => 1,
        };
        self.uplink.suspect = Some((first, times));
        if times >= MAX_REFUSALS {
            let (life, sequence) = first;
            warn!(life, sequence, "the aggregator ended {times} streams over this record: it is left out");
            self.uplink.unsendable = Some(first);
            self.uplink.status.unsendable();
        }
    }

    fn renewed(&mut self, outcome: Result<(), RenewError>) {
        self.uplink.status.renewed(outcome.is_ok());
        self.uplink.status.certificate(self.credentials.not_after());
        if let Err(error) = outcome {
            warn!(error = %error, "the certificate was not renewed; another attempt follows");
        }
    }

    async fn housekeeping(&mut self) -> Result<(), UplinkError> {
        let after = self.uplink.timing.stall;
        if !self.in_flight.is_empty() && self.progress.elapsed() >= after {
            return Err(UplinkError::Stalled { after });
        }
        match self.credentials.renewal() {
            Ok(Some(csr)) => self.answers.push_back(message(Up::Renew(v1::RenewRequest { csr }))),
            Ok(None) => {}
            Err(error) => self.renewed(Err(error)),
        }
        if self.reloaded.elapsed() >= RELOAD {
            self.reloaded = Instant::now();
            if self.credentials.changed().await {
                info!("the identity on disk has changed: the next connection uses it");
                self.uplink.status.certificate(self.credentials.not_after());
            }
        }
        // Totals: one that waits to be sent is not outdated, only not the last.
        if self.outgoing.is_empty() {
            for (reason, records) in self.uplink.spool.stats().lost {
                if records > 0 && self.losses.insert(reason, records) != Some(records) {
                    let loss = v1::Loss { reason: reason.to_owned(), records };
                    self.begin_group();
                    self.outgoing.push_back(message(Up::Loss(loss)));
                }
            }
        }
        Ok(())
    }

    /// The sending half is gone: what the receiving half says of it.
    async fn broken(&mut self, incoming: &mut Streaming<v1::DownlinkMessage>) -> UplinkError {
        loop {
            match tokio::time::timeout(self.uplink.timing.connect, incoming.message()).await {
                Ok(Ok(Some(down))) => {
                    if let Err(error) = self.received(down).await {
                        return error;
                    }
                }
                Ok(Ok(None)) | Err(_) => return UplinkError::Ended,
                Ok(Err(status)) => return UplinkError::of_status(&status, self.watch.explain(), true),
            }
        }
    }
}

fn hello(started_ms: i64, labels: &[v1::Label]) -> v1::Hello {
    let system = rustix::system::uname();
    v1::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        codecs: vec![picket_proto::columns::CODEC],
        started_ms,
        kernel: system.release().to_string_lossy().into_owned(),
        arch: system.machine().to_string_lossy().into_owned(),
        now_ms: now_ms(),
        labels: labels.to_vec(),
    }
}

enum Next {
    Samples(Item),
    Lines(Item),
}

/// The next record of either queue that is read; lines only where no sample that is durable waits. May be dropped without
/// losing one.
async fn next_record(
    samples: &mut Reader,
    reading: bool,
    lines: &mut Option<Reader>,
    reading_lines: bool,
) -> Next {
    if reading
        && reading_lines
        && let Some(item) = samples.next_durable().await
    {
        return Next::Samples(item);
    }
    let next_of_lines = async {
        match lines {
            Some(lines) => lines.next().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        item = samples.next(), if reading => Next::Samples(item),
        item = next_of_lines, if reading_lines => Next::Lines(item),
        else => std::future::pending().await,
    }
}
