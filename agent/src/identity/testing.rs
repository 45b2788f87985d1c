//! A certificate authority, a state folder's identity and a TLS server for tests.

use std::path::Path;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use time::OffsetDateTime;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity as ServerIdentity, Server, ServerTlsConfig};

use super::pin::sha256;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

pub(crate) struct Issued {
    pub chain_pem: String,
    pub key_pem: String,
}

/// Life of a certificate, in seconds before and after now.
pub(crate) type Life = (i64, i64);
pub(crate) const VALID: Life = (60, 3600);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn der(&self) -> Vec<u8> {
        self.issuer.der().to_vec()
    }

    pub fn pin(&self) -> [u8; 32] {
        sha256(self.issuer.der())
    }

    pub fn server(&self, name: &str, life: Life) -> Issued {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, life)
    }

    pub fn client(&self, node: &str, life: Life) -> Issued {
        self.issue(client_params(node), life)
    }

    /// Answers a certificate request; leaf and authority, DER.
    pub fn sign(&self, csr: &[u8], node: &str, life: Life) -> Vec<Vec<u8>> {
        let mut request = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        request.params = client_params(node);
        set_life(&mut request.params, life);
        vec![request.signed_by(&self.issuer).unwrap().der().to_vec()]
    }

    /// An enrolled identity in `state_dir`, as enrolment leaves it.
    pub fn enrolled(&self, state_dir: &Path, node: &str, life: Life, aggregators: &[String]) {
        let issued = self.client(node, life);
        let dir = state_dir.join("identity");
        std::fs::create_dir_all(&dir).unwrap();
        let aggregators = serde_json::to_string(aggregators).unwrap();
        let files = [
            ("key.pem", issued.key_pem),
            ("certificate.pem", issued.chain_pem),
            ("authorities.pem", self.pem()),
            ("node.json", format!(r#"{{"node":"{node}","aggregators":{aggregators}}}"#)),
        ];
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }

    fn issue(&self, mut params: CertificateParams, life: Life) -> Issued {
        set_life(&mut params, life);
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Issued { chain_pem: format!("{}{}", leaf.pem(), self.pem()), key_pem: key.serialize_pem() }
    }
}

fn client_params(node: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names.push(SanType::URI(format!("picket://node/{node}").try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn set_life(params: &mut CertificateParams, (before, after): Life) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::seconds(before);
    params.not_after = now + time::Duration::seconds(after);
}

/// Serves on a port of this machine until the test ends; its address as `localhost:port`.
pub(crate) async fn serve(routes: Routes, server: &Issued, client_authority: &Authority) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("localhost:{}", listener.local_addr().unwrap().port());
    let tls = ServerTlsConfig::new()
        .identity(ServerIdentity::from_pem(&server.chain_pem, &server.key_pem))
        .client_ca_root(Certificate::from_pem(client_authority.pem()))
        .client_auth_optional(true);
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder().tls_config(tls).unwrap().add_routes(routes).serve_with_incoming(incoming);
    tokio::spawn(serving);
    address
}

/// Waits until `condition` gives something, for 20 s at most.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < until, "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
