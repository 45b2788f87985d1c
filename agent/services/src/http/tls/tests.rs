use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use picket_proto::model::PluginId;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::grants::{Capability, Scope, admit};
use crate::http::Error;
use crate::{Request, Response, ServiceLimits, Services, ServicesOptions};

/// An authority, and a folder for what it made.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate with its key.
struct Leaf {
    pem: String,
    der: Vec<u8>,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: tempfile::tempdir().unwrap() };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn leaf(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: certificate.pem(), der: certificate.der().to_vec(), key }
    }
}

/// Answers every request over TLS with `yes`; gives its port.
async fn server(leaf: Leaf, clients_of: Option<&Authority>) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients_of {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.serialize_der()));
    let config = builder.with_single_cert(vec![leaf.der.into()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

/// Answers whatever comes with these bytes and closes.
async fn blunt(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

/// A plugin with a rule for all ports of loopback.
struct World {
    services: Services,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let services = Services::new(ServicesOptions {
            state_dir: folder.path().to_owned(),
            extra_authorities: None,
            limits: ServiceLimits { http_time: Duration::from_secs(20), ..ServiceLimits::default() },
            nvml: Default::default(),
            kmsg: Default::default(),
        })
        .unwrap();
        Self { services, _folder: folder }
    }

    async fn get(&self, port: u16, rule: serde_json::Value) -> Result<Vec<u8>, Error> {
        let mut url = json!({ "host": "127.0.0.1", "ports": "1-65535" });
        url.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        let grants: Vec<Scope> =
            serde_json::from_value(json!([{ "capability": "http", "urls": [url] }])).unwrap();
        let id = PluginId::new("test").unwrap();
        let admission = admit(&id, None, &BTreeSet::from([Capability::Http]), &grants).unwrap();
        let request = json!([{ "method": "GET", "url": format!("https://127.0.0.1:{port}/metrics"), "headers": [], "body": [] }]);
        let request = Request::Http(serde_json::from_value(request).unwrap());
        match self.services.call(admission.grant(Capability::Http).unwrap(), request).await {
            Response::Http(mut answers) => answers.remove(0).map(|answer| answer.body),
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&self, port: u16, rule: serde_json::Value, part: &str) {
        match self.get(port, rule.clone()).await {
            Err(Error::Tls(why)) if why.contains(part) => {}
            other => panic!("{rule}: {other:?} is no refusal with {part:?}"),
        }
    }
}

fn plain(_: &mut CertificateParams) {}

fn ca(path: &Path) -> serde_json::Value {
    json!({ "ca": path })
}

#[tokio::test]
async fn only_who_is_trusted_is_spoken_with() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let world = World::new();
    let good = server(ours.leaf("127.0.0.1", plain), None).await;
    assert_eq!(world.get(good, ca(&ours.file("ca.pem"))).await.unwrap(), b"yes");
    world.refused(good, ca(&theirs.file("ca.pem")), "`ca` in the grant").await;
    world.refused(good, json!({}), "`ca` in the grant").await;

    let other_name = server(ours.leaf("exporter.example", plain), None).await;
    world.refused(other_name, ca(&ours.file("ca.pem")), "`server_name` in the grant").await;
    let named = json!({ "ca": ours.file("ca.pem"), "server_name": "exporter.example" });
    assert_eq!(world.get(other_name, named.clone()).await.unwrap(), b"yes");
    world.refused(good, named, "`server_name`").await;

    let now = SystemTime::now();
    let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
    let expired = ours.leaf("127.0.0.1", |p| {
        (p.not_before, p.not_after) = ((now - 2 * day).into(), (now - minute).into());
    });
    world.refused(server(expired, None).await, ca(&ours.file("ca.pem")), "has expired").await;
    let early = ours.leaf("127.0.0.1", |p| {
        (p.not_before, p.not_after) = ((now + day).into(), (now + 2 * day).into());
    });
    world.refused(server(early, None).await, ca(&ours.file("ca.pem")), "not valid yet").await;
}

#[tokio::test]
async fn who_we_are_is_said_where_it_is_asked() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let world = World::new();
    let port = server(ours.leaf("127.0.0.1", plain), Some(&ours)).await;
    for (authority, name) in [(&ours, "client"), (&theirs, "stranger")] {
        let leaf = authority.leaf(name, plain);
        std::fs::write(ours.file(&format!("{name}.pem")), &leaf.pem).unwrap();
        std::fs::write(ours.file(&format!("{name}.key")), leaf.key.serialize_pem()).unwrap();
    }
    let with = |certificate: &str, key: &str| json!({ "ca": ours.file("ca.pem"), "client_certificate": ours.file(certificate), "client_key": ours.file(key) });
    assert_eq!(world.get(port, with("client.pem", "client.key")).await.unwrap(), b"yes");
    world.refused(port, ca(&ours.file("ca.pem")), "`client_certificate` and `client_key`").await;
    world.refused(port, with("stranger.pem", "stranger.key"), "it refused us").await;
    world.refused(port, with("client.pem", "stranger.key"), "client_key").await;
    world.refused(port, with("client.key", "client.key"), "client_certificate").await;
}

#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let world = World::new();
    let port = server(ours.leaf("127.0.0.1", plain), None).await;
    let file = theirs.file("trusted.pem");
    world.refused(port, ca(&file), "cannot be read").await;
    std::fs::write(&file, "no PEM at all").unwrap();
    world.refused(port, ca(&file), "holds no certificate").await;
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    world.refused(port, ca(&file), &file.display().to_string()).await;
    std::fs::copy(theirs.file("ca.pem"), &file).unwrap();
    world.refused(port, ca(&file), "`ca` in the grant").await;
    // As a rotation does it: another file in its place.
    std::fs::copy(ours.file("ca.pem"), theirs.file("next")).unwrap();
    std::fs::rename(theirs.file("next"), &file).unwrap();
    assert_eq!(world.get(port, ca(&file)).await.unwrap(), b"yes");
}

#[tokio::test]
async fn a_server_without_tls_is_said_to_be_one() {
    let ours = Authority::new("ours");
    let world = World::new();
    let plain = blunt(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    world.refused(plain, ca(&ours.file("ca.pem")), "does not speak TLS").await;
    // One that breaks off is no matter of trust.
    let broken = blunt(b"").await;
    let answer = world.get(broken, ca(&ours.file("ca.pem"))).await;
    assert!(matches!(&answer, Err(Error::Unreachable(why)) if why.contains("handshake")), "{answer:?}");
}
