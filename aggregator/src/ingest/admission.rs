//! What the uplink asks of the rest of the aggregator.

use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use picket_proto::model::NodeId;
use picket_proto::v1;
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

/// Who is at the other end of a stream, by its certificate.
#[derive(Debug, Clone)]
pub struct Peer {
    pub node: NodeId,
    /// The leaf's serial number, hex.
    pub serial: String,
    /// When the certificate that was presented ends.
    pub not_after: SystemTime,
    /// Cancelled when the node is revoked: the stream is cut.
    pub revoked: CancellationToken,
}

/// A renewed certificate.
#[derive(Debug, Clone)]
pub struct Renewed {
    /// The chain, DER, leaf first.
    pub certificates: Vec<Vec<u8>>,
    /// The authorities to trust from now on, DER.
    pub authorities: Vec<Vec<u8>>,
    /// Moves the end of the stream.
    pub not_after: SystemTime,
}

/// Says who may stream.
pub trait Admission: Send + Sync + 'static {
    /// Judges the certificates that TLS presented and verified, leaf first; empty when there were none. Fast, no disk.
    fn admit(&self, peer_certs: &[CertificateDer<'_>]) -> Result<Peer, tonic::Status>;

    /// Issues a new certificate to a peer. Blocking. `Err` is the text for the agent.
    fn renew(&self, peer: &Peer, csr: &[u8]) -> Result<Renewed, String>;
}

/// Keeps events.
pub trait EventSink: Send + Sync + 'static {
    /// Keeps a batch's events: durable on return, and without effect when the same batch is recorded again. Blocking.
    /// Called before the batch is acknowledged.
    fn record(&self, node: &NodeId, life: u64, sequence: u64, events: &[v1::Event]) -> Result<(), String>;
}

/// Ready when log lines are durable. `Err`: the store is closing, and they aren't.
pub type Recording = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Keeps log lines.
pub trait LogSink: Send + Sync + 'static {
    /// Keeps a batch's lines, without effect when the same batch is recorded again. Waits while the disk refuses. The batch is
    /// acknowledged after it.
    fn record(&self, node: &NodeId, life: u64, sequence: u64, streams: Vec<v1::LogStream>) -> Recording;
}

/// Takes what nodes report of their actions.
pub trait ActionSink: Send + Sync {
    /// Called on the streams' threads: never blocks. A later report of the same node takes the place of one that waits.
    fn take(&self, node: &NodeId, report: v1::ActionReport);
}

/// Offers plugins to nodes, and hears what becomes of it.
pub trait RolloutSink: Send + Sync {
    /// What a node is offered, asked when its stream begins. Never blocks for long.
    fn offers(&self, node: &NodeId) -> v1::PluginOffers;

    /// Called on the streams' threads: never blocks.
    fn said(&self, node: &NodeId, report: v1::OfferReport);

    /// A piece of what is offered to this node. Blocking.
    fn chunk(&self, node: &NodeId, fetch: &v1::PluginFetch) -> v1::PluginChunk;
}
