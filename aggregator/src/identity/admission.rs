//! The door of the uplink: from the certificates of a TLS connection to a node that may stream.
//!
//! The handshake has verified the chain. What it can't know is checked here, for each stream: the name, the end of
//! the certificate (a resumed TLS session is not verified again), and revocation.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use tonic::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authority::Authority;
use super::names::{NameRule, name_in, serial_number};
use super::registry::{IssueNumber, Presented, Registry};
use crate::clock::Clock;
use crate::ingest::{Admission, Peer, Renewed};

/// Who signs the nodes' certificates.
#[derive(Clone)]
pub enum Mode {
    /// Picket's own CA; certificates last `life`.
    Picket { authority: Arc<Authority>, life: Duration },
    /// A CA of the operator's.
    Own,
}

/// Admits nodes and renews their certificates.
pub struct Gatekeeper {
    registry: Arc<Registry>,
    mode: Mode,
    clock: Clock,
}

impl Gatekeeper {
    pub fn new(registry: Arc<Registry>, mode: Mode, clock: Clock) -> Self {
        Self { registry, mode, clock }
    }
}

impl Admission for Gatekeeper {
    fn admit(&self, peer_certs: &[CertificateDer<'_>]) -> Result<Peer, Status> {
        let Some(leaf) = peer_certs.first() else {
            return Err(Status::unauthenticated(
                "no client certificate: enrol this node with `picket-agent enroll`, or configure its certificate",
            ));
        };
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| {
            Status::unauthenticated(format!("the client certificate cannot be parsed: {error}"))
        })?;
        let validity = certificate.validity();
        let not_before_ms = validity.not_before.timestamp().saturating_mul(1000);
        let not_after_ms = validity.not_after.timestamp().saturating_mul(1000);
        let now = self.clock.now_ms();
        if now >= not_after_ms {
            return Err(Status::unauthenticated(format!(
                "the client certificate expired at {}; enrol the node again, or check its clock",
                validity.not_after
            )));
        }
        let rule = match self.mode {
            Mode::Picket { .. } => NameRule::Uri,
            Mode::Own => NameRule::Any,
        };
        let node = name_in(&certificate, rule).map_err(|error| Status::unauthenticated(error.to_string()))?;
        let presented = match self.mode {
            Mode::Picket { .. } => Presented::Issued(issue_number(&certificate).ok_or_else(|| {
                Status::unauthenticated(
                    "the client certificate was not issued by this aggregator: its serial is foreign",
                )
            })?),
            Mode::Own => Presented::Foreign { not_before_ms },
        };
        let revoked = self
            .registry
            .admit(&node, presented)
            .map_err(|revoked| Status::permission_denied(revoked.to_string()))?;
        Ok(Peer {
            node,
            serial: certificate.raw_serial_as_string(),
            not_after: system_time(not_after_ms),
            revoked,
        })
    }

    fn renew(&self, peer: &Peer, csr: &[u8]) -> Result<Renewed, String> {
        let Mode::Picket { authority, life } = &self.mode else {
            return Err("this aggregator does not issue certificates: yours come from your own CA".into());
        };
        let number = peer_number(&peer.serial).ok_or("the certificate's serial is foreign")?;
        let request = authority.check_request(csr).map_err(|error| error.to_string())?;
        let leaf = self
            .registry
            .renew(&peer.node, Presented::Issued(number), |next| {
                authority.issue_node(&request, &peer.node, next, *life)
            })
            .map_err(|error| error.to_string())?;
        metrics::counter!("picket_aggregator_certificates_issued_total", "reason" => "renewal").increment(1);
        tracing::info!(node = %peer.node, serial = format!("{:x}", leaf.serial), "renewed a certificate");
        let authority = authority.certificate().to_vec();
        Ok(Renewed {
            certificates: vec![leaf.certificate.to_vec(), authority.clone()],
            authorities: vec![authority],
            not_after: system_time(leaf.not_after_ms),
        })
    }
}

fn issue_number(certificate: &X509Certificate<'_>) -> Option<IssueNumber> {
    serial_number(certificate).and_then(IssueNumber::of_serial)
}

/// The number in a serial as `raw_serial_as_string` writes it: hex, a colon after each byte.
fn peer_number(serial: &str) -> Option<IssueNumber> {
    let digits: String = serial.chars().filter(|c| *c != ':').collect();
    u128::from_str_radix(&digits, 16).ok().and_then(IssueNumber::of_serial)
}

fn system_time(unix_ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unix_ms.max(0).unsigned_abs())
}
