//! The one long-lived stream to the aggregator: connects, replays what the aggregator does not hold yet, then follows the
//! spool; and answers what comes down the stream.
//!
//! ```text
//! connect ──▶ Hello/Welcome ──▶ replay and follow ──▶ (broken, told to go, …) ──▶ back-off ──▶ connect
//! ```
//!
//! Log lines have a spool of their own and come up the same stream, behind the samples: a batch of them is sent only when
//! no record of samples waits, and few are under way at a time.
//!
//! Contract: at least once, in order, and never more than the aggregator's window unacknowledged. Only what the
//! aggregator acknowledges as durable leaves the spool. Every queue here is short and the spool is read only when there is
//! room, so an aggregator that is slow, stalled or gone costs no memory: what waits, waits on disk. Nothing here
//! ever blocks collection.
//!
//! The task runs until `shutdown`; it never gives up, it only waits longer. Why it is not connected stands in
//! [`Status::last_error`], in words a person can act on.

mod backoff;
mod central;
mod commands;
mod credentials;
mod definitions;
mod error;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod translate;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_spool::Spool;
use picket_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::config;
use crate::identity::{self, Address, random_unit};
use backoff::Backoff;
pub use central::Central;
use credentials::Credentials;
pub use error::UplinkError;
use session::Session;
pub use status::Status;

/// A command of an operator and where its result goes.
pub type CommandCall = (v1::Command, oneshot::Sender<v1::CommandResult>);

/// What the uplink needs.
pub struct UplinkOptions {
    pub config: config::Uplink,
    pub state_dir: PathBuf,
    pub spool: Spool,
    /// This agent's life, as the spool numbers it.
    pub life: u64,
    /// The queue of log lines.
    pub lines: Option<Spool>,
    /// The state of all plugins; reported when a stream begins and whenever it changes.
    pub plugins: watch::Receiver<Vec<v1::PluginState>>,
    /// What the node's actions are and what became of them; reported likewise.
    pub actions: watch::Receiver<v1::ActionReport>,
    pub commands: mpsc::Sender<CommandCall>,
    /// What is offered to this node and what becomes of it.
    pub central: Central,
    /// What this node is called by its operator.
    pub labels: Vec<v1::Label>,
    pub shutdown: CancellationToken,
    pub status: Arc<Status>,
}

/// Starts the uplink. The task ends after `shutdown`, once the aggregator holds what is durable in the spool, or a few
/// seconds later.
pub fn spawn(options: UplinkOptions) -> JoinHandle<()> {
    tokio::spawn(Uplink::new(options, Timing::default()).run())
}

/// The waits of the uplink.
#[derive(Debug, Clone)]
struct Timing {
    /// For TCP, and again for TLS.
    connect: Duration,
    /// From the call to the Welcome.
    welcome: Duration,
    /// How long a record waits for others that leave with it.
    gather: Duration,
    /// How often clocks, losses and files are looked at.
    housekeeping: Duration,
    /// Unacknowledged batches, and no acknowledgement for this long: the aggregator is stuck, try another connection.
    stall: Duration,
    /// At shutdown, for acknowledgements.
    drain: Duration,
    /// A stream that lasted this long was healthy: the next back-off begins anew.
    healthy: Duration,
    /// Between attempts when only a person can mend it.
    hopeless: Duration,
    /// How long a command may take.
    command: Duration,
    /// How often a silent connection is probed, and how long the answer may take: a dead peer is noticed after both.
    ping: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            welcome: Duration::from_secs(20),
            gather: Duration::from_millis(200),
            housekeeping: Duration::from_secs(5),
            stall: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            healthy: Duration::from_secs(60),
            hopeless: Duration::from_secs(300),
            command: Duration::from_secs(30),
            // Longer than the usual interval of a plugin: who hears from the aggregator at each tick needs no ping.
            ping: (Duration::from_secs(20), Duration::from_secs(10)),
        }
    }
}

/// Why a stream ended.
enum End {
    Shutdown,
    Failed(UplinkError),
}

struct Uplink {
    config: config::Uplink,
    spool: Spool,
    life: u64,
    lines: Option<Spool>,
    plugins: watch::Receiver<Vec<v1::PluginState>>,
    actions: watch::Receiver<v1::ActionReport>,
    commands: mpsc::Sender<CommandCall>,
    central: Central,
    labels: Vec<v1::Label>,
    shutdown: CancellationToken,
    status: Arc<Status>,
    timing: Timing,
    state_dir: PathBuf,
    started_ms: i64,
    /// Which of several addresses to try next.
    turn: usize,
    /// Records that cannot be written to a stream, by life and sequence; the last one found.
    unsendable: Option<(u64, u64)>,
    /// The record that came next when the aggregator last ended a stream over the protocol, and how often in a row.
    suspect: Option<((u64, u64), u32)>,
}

impl Uplink {
    fn new(options: UplinkOptions, timing: Timing) -> Self {
        let UplinkOptions {
            config,
            state_dir,
            spool,
            life,
            lines,
            plugins,
            actions,
            commands,
            central,
            labels,
            shutdown,
            status,
        } = options;
        Self {
            config,
            spool,
            life,
            lines,
            plugins,
            actions,
            commands,
            central,
            labels,
            shutdown,
            status,
            timing,
            state_dir,
            started_ms: session::now_ms(),
            turn: 0,
            unsendable: None,
            suspect: None,
        }
    }

    async fn run(mut self) {
        let mut backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        let mut credentials = None;
        let mut told = String::new();
        loop {
            let began = Instant::now();
            let end = self.attempt(&mut credentials).await;
            let connected = self.status.disconnected();
            let error = match end {
                End::Shutdown => return,
                End::Failed(error) => error,
            };
            let text = error.to_string();
            if connected || text != told {
                warn!(error = %text, "not connected to the aggregator");
            } else {
                debug!(error = %text, "still not connected to the aggregator");
            }
            self.status.failed(&text);
            told = text;
            if connected && began.elapsed() >= self.timing.healthy {
                backoff.reset();
            }
            let newer = credentials.as_ref().is_some_and(Credentials::has_newer);
            let wait = self.wait_after(&error, newer, &mut backoff);
            debug!(wait_ms = wait.as_millis() as u64, "next attempt to connect");
            if self.pause(wait, &error, &mut credentials).await {
                return;
            }
        }
    }

    /// One connection, from the first packet to the end of its stream.
    async fn attempt(&mut self, credentials: &mut Option<Credentials>) -> End {
        let shutdown = self.shutdown.clone();
        let opened = tokio::select! {
            biased;
            () = shutdown.cancelled() => return End::Shutdown,
            opened = self.open(credentials) => opened,
        };
        match opened {
            Ok((opened, credentials)) => Session::new(self, opened, credentials).run().await,
            Err(error) => End::Failed(error),
        }
    }

    async fn open<'c>(
        &mut self,
        credentials: &'c mut Option<Credentials>,
    ) -> Result<((tonic::transport::Channel, identity::Watch), &'c mut Credentials), UplinkError> {
        let credentials = match credentials {
            Some(credentials) => credentials,
            none => none.insert(Credentials::new(&self.config, &self.state_dir)?),
        };
        let current = credentials.refresh().await?;
        self.status.certificate(Some(current.info.not_after));
        let config = current.client_config();
        let not_after = current.info.not_after;
        let address = self.address(&current)?;
        let meter = self.status.meter();
        let opened =
            match identity::connect(&address, config, Some(not_after), meter, self.timing.connect).await {
                Ok(connected) => identity::channel(connected, self.timing.ping).await,
                Err(error) => Err(error),
            };
        if opened.is_err() {
            self.turn = self.turn.wrapping_add(1);
        }
        Ok((opened.map_err(UplinkError::Connect)?, credentials))
    }

    /// The configured address, else those that enrolment learned, in turn.
    fn address(&self, identity: &identity::Identity) -> Result<Address, UplinkError> {
        if let Some(text) = &self.config.aggregator {
            return Ok(text.parse::<Address>()?);
        }
        let known = &identity.aggregators;
        let index = self.turn.checked_rem(known.len()).ok_or(UplinkError::NoAddress)?;
        known.get(index).cloned().ok_or(UplinkError::NoAddress)
    }

    /// `newer`: the identity that failed has been replaced meanwhile.
    fn wait_after(&self, error: &UplinkError, newer: bool, backoff: &mut Backoff) -> Duration {
        if error.needs_a_person() && !newer {
            self.timing.hopeless.mul_f64(0.5 + random_unit())
        } else if error.wants_distance() {
            // Another agent may have this identity: two that answer each other at once would never end.
            self.config.backoff_max.mul_f64(0.5 + random_unit() / 2.0)
        } else {
            backoff.next(random_unit())
        }
    }

    /// Waits; shorter when the identity on disk changes (enrolled anew, renewed). True: shut down.
    async fn pause(
        &self,
        wait: Duration,
        error: &UplinkError,
        credentials: &mut Option<Credentials>,
    ) -> bool {
        let until = Instant::now() + wait;
        loop {
            let step = until.min(Instant::now() + self.timing.housekeeping);
            tokio::select! {
                () = self.shutdown.cancelled() => return true,
                () = tokio::time::sleep_until(step) => {}
            }
            if step >= until {
                return false;
            }
            if error.is_about_identity()
                && let Some(credentials) = credentials
                && credentials.changed().await
            {
                info!("the identity on disk has changed: connecting with it");
                return false;
            }
        }
    }
}
