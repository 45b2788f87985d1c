//! What the rest of the agent sees of the uplink: read by `/metrics`, `/readyz` and the log, written by the uplink alone.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::identity::Meter;

/// The uplink's state and running totals since this agent began.
#[derive(Debug, Default)]
pub struct Status {
    connected: AtomicBool,
    streams: AtomicU64,
    failures: AtomicU64,
    acked: AtomicU64,
    in_flight: AtomicU64,
    sent_batches: AtomicU64,
    undefined_samples: AtomicU64,
    unsendable_records: AtomicU64,
    renewals: AtomicU64,
    renewal_failures: AtomicU64,
    /// Unix seconds; 0: none.
    certificate_not_after: AtomicI64,
    meter: Arc<Meter>,
    words: Mutex<Words>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Words {
    last_error: Option<String>,
    node: Option<String>,
    aggregator_version: Option<String>,
}

impl Status {
    /// A stream is open and was welcomed.
    pub fn connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Ends when a stream has opened or ended since the last call; for one waiter.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Why there is no stream, or why the last attempt failed; `None` while connected.
    pub fn last_error(&self) -> Option<String> {
        self.words().last_error.clone()
    }

    /// The node's name as the aggregator said it.
    pub fn node(&self) -> Option<String> {
        self.words().node.clone()
    }

    pub fn aggregator_version(&self) -> Option<String> {
        self.words().aggregator_version.clone()
    }

    /// Streams opened after the first one.
    pub fn reconnects(&self) -> u64 {
        self.streams.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// Attempts that failed and streams that broke.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// The last sequence of this agent life that the aggregator holds; 0: none yet.
    pub fn acked_sequence(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    /// Batches sent and not acknowledged yet.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Batches sent, those sent again included.
    pub fn batches_sent(&self) -> u64 {
        self.sent_batches.load(Ordering::Relaxed)
    }

    /// On the wire, TLS included.
    pub fn bytes_sent(&self) -> u64 {
        self.meter.sent.load(Ordering::Relaxed)
    }

    /// On the wire, TLS included.
    pub fn bytes_received(&self) -> u64 {
        self.meter.received.load(Ordering::Relaxed)
    }

    /// Connections that resumed an earlier TLS session.
    pub fn tls_resumptions(&self) -> u64 {
        self.meter.resumed.load(Ordering::Relaxed)
    }

    /// Samples left out because the record that defined their series was lost.
    pub fn undefined_samples(&self) -> u64 {
        self.undefined_samples.load(Ordering::Relaxed)
    }

    /// Records of the spool that are damaged or too large for one message, left out.
    pub fn unsendable_records(&self) -> u64 {
        self.unsendable_records.load(Ordering::Relaxed)
    }

    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::Relaxed)
    }

    pub fn renewal_failures(&self) -> u64 {
        self.renewal_failures.load(Ordering::Relaxed)
    }

    /// The end of the certificate that the next connection will use, Unix seconds.
    pub fn certificate_expiry(&self) -> Option<i64> {
        Some(self.certificate_not_after.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    pub(super) fn welcomed(&self, node: &str, aggregator_version: &str) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        {
            let bounded = |text: &str| Some(text.chars().take(256).collect());
            let mut words = self.words();
            words.last_error = None;
            words.node = bounded(node);
            words.aggregator_version = bounded(aggregator_version);
        }
        self.connected.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Tells whether there was a stream.
    pub(super) fn disconnected(&self) -> bool {
        self.in_flight.store(0, Ordering::Relaxed);
        let was = self.connected.swap(false, Ordering::Relaxed);
        self.changed.notify_one();
        was
    }

    pub(super) fn failed(&self, error: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.words().last_error = Some(error.to_owned());
    }

    pub(super) fn flying(&self, batches: usize) {
        self.in_flight.store(batches as u64, Ordering::Relaxed);
    }

    pub(super) fn sent(&self) {
        self.sent_batches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn acked(&self, sequence: u64) {
        self.acked.fetch_max(sequence, Ordering::Relaxed);
    }

    pub(super) fn undefined(&self, samples: u64) {
        self.undefined_samples.fetch_add(samples, Ordering::Relaxed);
    }

    pub(super) fn unsendable(&self) {
        self.unsendable_records.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn renewed(&self, worked: bool) {
        let counter = if worked { &self.renewals } else { &self.renewal_failures };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn certificate(&self, not_after: Option<i64>) {
        self.certificate_not_after.store(not_after.unwrap_or(0), Ordering::Relaxed);
    }

    fn words(&self) -> std::sync::MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
