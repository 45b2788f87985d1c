//! Enrolment: the one gRPC call that needs no certificate. A one-time secret and a certificate request in, a
//! certificate out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use picket_proto::v1::enrolment_server::Enrolment;
use picket_proto::v1::{EnrolRequest, EnrolResponse};
use serde::Serialize;
use tonic::{Request, Response, Status};

use super::admission::Mode;
use super::authority::AuthorityError;
use super::registry::{EnrolmentError, Registry};
use crate::limiter::FailureLimiter;
use crate::transport::PeerInfo;

/// What an operator carries to a node: where the aggregator is, which CA it has, and the secret.
#[derive(Debug, Clone, Serialize)]
pub struct EnrolmentText<'a> {
    #[serde(rename = "a")]
    pub addresses: &'a [String],
    /// Its name, or a pattern of the names that it may take.
    #[serde(rename = "n")]
    pub node: &'a str,
    /// SHA-256 of the CA's certificate, hex.
    #[serde(rename = "p")]
    pub pin: &'a str,
    #[serde(rename = "s")]
    pub secret: &'a str,
}

impl EnrolmentText<'_> {
    /// `picket-enrol-v1.` and the base64url of its JSON.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        Ok(format!("picket-enrol-v1.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(self)?)))
    }
}

/// The gRPC service.
pub struct EnrolmentService {
    registry: Arc<Registry>,
    mode: Mode,
    limiter: Arc<FailureLimiter>,
}

impl EnrolmentService {
    pub fn new(registry: Arc<Registry>, mode: Mode, limiter: Arc<FailureLimiter>) -> Self {
        Self { registry, mode, limiter }
    }

    fn refuse(&self, error: EnrolmentError, address: Option<IpAddr>) -> Status {
        let text = error.to_string();
        let reason = match error {
            EnrolmentError::Unknown => "unknown",
            EnrolmentError::Used { .. } => "used",
            EnrolmentError::Expired { .. } => "expired",
            EnrolmentError::Withdrawn { .. } => "withdrawn",
            EnrolmentError::OtherNode | EnrolmentError::OtherName { .. } => "other-node",
            EnrolmentError::Taken { .. } => "taken",
            EnrolmentError::Revoked(_) => "revoked",
            EnrolmentError::Authority(_) => "request",
            EnrolmentError::Registry(_) => "internal",
        };
        metrics::counter!("picket_aggregator_enrolments_refused_total", "reason" => reason).increment(1);
        tracing::warn!(
            address = address.map(tracing::field::display),
            reason,
            error = text,
            "refused an enrolment"
        );
        match error {
            EnrolmentError::Unknown => match address.and_then(|address| self.limiter.failed(address)) {
                Some(wait) => too_many(wait),
                None => Status::unauthenticated(text),
            },
            EnrolmentError::Used { .. }
            | EnrolmentError::Expired { .. }
            | EnrolmentError::Withdrawn { .. } => Status::failed_precondition(text),
            EnrolmentError::OtherNode
            | EnrolmentError::OtherName { .. }
            | EnrolmentError::Taken { .. }
            | EnrolmentError::Revoked(_) => Status::permission_denied(text),
            EnrolmentError::Authority(
                AuthorityError::Request(_) | AuthorityError::RequestSize(_) | AuthorityError::KeyKind,
            ) => Status::invalid_argument(text),
            // The details are in the log; a stranger gets none.
            EnrolmentError::Authority(_) | EnrolmentError::Registry(_) => {
                Status::internal("the aggregator could not issue a certificate: its log says why")
            }
        }
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let address = request.extensions().get::<PeerInfo>().map(|peer| peer.address.ip());
        let request = request.into_inner();
        let Mode::Picket { authority, life } = self.mode.clone() else {
            return Err(Status::unimplemented(
                "this aggregator does not enrol: nodes bring certificates of its operator's own CA",
            ));
        };
        let registry = Arc::clone(&self.registry);
        let issued = tokio::task::spawn_blocking(move || {
            let wish = Some(request.node.as_str()).filter(|node| !node.is_empty());
            let (node, leaf) = registry.enrol(&request.secret, wish, |node, number| {
                let csr = authority.check_request(&request.csr)?;
                authority.issue_node(&csr, node, number, life)
            })?;
            Ok((node, leaf, authority.certificate().to_vec()))
        })
        .await
        .map_err(|_| Status::internal("the enrolment was interrupted; try again"))?;
        let (node, leaf, authority) = issued.map_err(|error| self.refuse(error, address))?;
        metrics::counter!("picket_aggregator_certificates_issued_total", "reason" => "enrolment")
            .increment(1);
        tracing::info!(%node, serial = format!("{:x}", leaf.serial), "enrolled a node");
        Ok(Response::new(EnrolResponse {
            node: node.to_string(),
            certificates: vec![leaf.certificate.to_vec(), authority.clone()],
            authorities: vec![authority],
        }))
    }
}

fn too_many(wait: Duration) -> Status {
    Status::resource_exhausted(format!(
        "too many failed attempts from this address; wait {} s",
        wait.as_secs().max(1)
    ))
}
