//! An aggregator on free ports, and clients for both of them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusHandle;
use picket_aggregator::app::{App, init};
use picket_aggregator::clock::Clock;
use picket_aggregator::config::Config;
use picket_aggregator::http;
use picket_aggregator::identity::Role;
use picket_proto::v1;
use picket_proto::v1::enrolment_client::EnrolmentClient;
use picket_proto::v1::uplink_client::UplinkClient;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Nothing in these tests may take longer.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(value) => value,
        Err(_) => panic!("took longer than {DEADLINE:?}: {what}"),
    }
}

/// The recorder is the process's; every aggregator here shares it.
fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| picket_aggregator::telemetry::metrics().unwrap()).clone()
}

pub struct Aggregator {
    pub dir: tempfile::TempDir,
    pub config: Config,
    pub uplink: SocketAddr,
    pub http: SocketAddr,
    pub api: Arc<http::App>,
    pub admin: String,
    pub authority: Option<CertificateDer<'static>>,
    pub reload: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Aggregator {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { state_dir: dir.path().join("state"), ..Config::default() };
        config.uplink.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.http.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        change(&mut config);
        init(&config, &Clock::system()).unwrap();
        Self::run(dir, config).await
    }

    async fn run(dir: tempfile::TempDir, config: Config) -> Self {
        let app = App::build(config.clone(), Clock::system(), metrics()).await.unwrap();
        let stop = CancellationToken::new();
        let reload = Arc::new(Notify::new());
        let admin = std::fs::read_to_string(config.state_dir.join("admin.token")).unwrap().trim().to_owned();
        let authority = std::fs::read(config.state_dir.join("ca.pem"))
            .ok()
            .map(|pem| CertificateDer::from_pem_slice(&pem).unwrap());
        Self {
            uplink: app.uplink_address(),
            http: app.http_address(),
            api: app.api(),
            task: tokio::spawn(app.run(stop.clone(), Arc::clone(&reload))),
            dir,
            config,
            admin,
            authority,
            reload,
            stop,
        }
    }

    /// Stops it in order and starts it again on the same state folder.
    pub async fn restart(self) -> Self {
        self.stop.cancel();
        within("the stop", self.task).await.unwrap();
        drop(self.api);
        Self::run(self.dir, self.config).await
    }

    /// A token for the API.
    pub fn token(&self, role: Role) -> String {
        let name = format!("{role}-{:?}", std::time::Instant::now());
        self.api.access.create(&name, role, None, "test").unwrap().text
    }

    /// Calls the API over TLS, HTTP/1.1.
    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        let roots = self.authority.iter().cloned().collect::<Vec<_>>();
        let io = connect(self.http, client_config(&roots, None, &[b"http/1.1"])).await.unwrap();
        within("an API call", call(io, method, path, token, body)).await
    }

    /// An enrolment token's secret for `node`.
    pub async fn invite(&self, node: &str) -> String {
        let body = serde_json::json!({ "node": node });
        let answer = self.call("POST", "/api/v1/tokens", Some(&self.admin), Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        secret_of(answer.json()["token"].as_str().unwrap())
    }

    /// A gRPC channel with this certificate.
    pub async fn channel(&self, identity: Option<&Identity>) -> Result<Channel, tonic::transport::Error> {
        let roots = self.authority.iter().cloned().collect::<Vec<_>>();
        channel(self.uplink, client_config(&roots, identity, &[b"h2"])).await
    }

    /// Enrols `node` from the token to the certificate.
    pub async fn enrol(&self, node: &str) -> Identity {
        let secret = self.invite(node).await;
        self.enrol_with(&secret, node).await.unwrap()
    }

    pub async fn enrol_with(&self, secret: &str, node: &str) -> Result<Identity, tonic::Status> {
        let channel = self.channel(None).await.unwrap();
        let key = KeyPair::generate().unwrap();
        let request = v1::EnrolRequest { secret: secret.to_owned(), node: node.to_owned(), csr: csr(&key) };
        let answer = within("an enrolment", EnrolmentClient::new(channel).enrol(request)).await?.into_inner();
        assert_eq!(answer.node, node);
        Ok(Identity::new(answer.certificates, &key))
    }

    /// Opens a stream and says Hello.
    pub async fn stream(&self, identity: Option<&Identity>) -> Result<Stream, tonic::Status> {
        let channel =
            self.channel(identity).await.map_err(|e| tonic::Status::unavailable(format!("{e:?}")))?;
        let (sender, receiver) = mpsc::channel(8);
        sender
            .send(say(v1::uplink_message::Message::Hello(v1::Hello {
                codecs: vec![1],
                ..Default::default()
            })))
            .await
            .unwrap();
        let answers =
            within("the stream's opening", UplinkClient::new(channel).stream(ReceiverStream::new(receiver)))
                .await?
                .into_inner();
        let mut stream = Stream { sender, answers };
        match stream.next().await? {
            Some(v1::downlink_message::Message::Welcome(_)) => Ok(stream),
            Some(v1::downlink_message::Message::Goodbye(goodbye)) => {
                Err(tonic::Status::permission_denied(format!("{}: {}", goodbye.reason, goodbye.message)))
            }
            other => panic!("{other:?} instead of Welcome"),
        }
    }
}

/// An open uplink.
pub struct Stream {
    pub sender: mpsc::Sender<v1::UplinkMessage>,
    answers: tonic::Streaming<v1::DownlinkMessage>,
}

impl Stream {
    pub async fn next(&mut self) -> Result<Option<v1::downlink_message::Message>, tonic::Status> {
        let answer = within("an answer on the stream", self.answers.message()).await?;
        Ok(answer.and_then(|answer| answer.message))
    }

    /// Asks for a certificate for a new key.
    pub async fn renew(&mut self) -> Result<Identity, String> {
        let key = KeyPair::generate().unwrap();
        let request = v1::RenewRequest { csr: csr(&key) };
        self.sender.send(say(v1::uplink_message::Message::Renew(request))).await.unwrap();
        loop {
            match self.next().await.map_err(|e| e.to_string())? {
                Some(v1::downlink_message::Message::Renew(answer)) if answer.refused.is_empty() => {
                    return Ok(Identity::new(answer.certificates, &key));
                }
                Some(v1::downlink_message::Message::Renew(answer)) => return Err(answer.refused),
                Some(_) => {}
                None => return Err("the stream ended".into()),
            }
        }
    }

    /// Waits for the end and says how it came.
    pub async fn end(mut self) -> String {
        loop {
            match self.next().await {
                Ok(Some(v1::downlink_message::Message::Goodbye(goodbye))) => return goodbye.reason,
                Ok(Some(_)) => {}
                Ok(None) => return "end".into(),
                Err(status) => return status.message().to_owned(),
            }
        }
    }
}

pub fn say(message: v1::uplink_message::Message) -> v1::UplinkMessage {
    v1::UplinkMessage { message: Some(message) }
}

/// A certificate and its key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    pub fn new(chain: Vec<Vec<u8>>, key: &KeyPair) -> Self {
        Self {
            chain: chain.into_iter().map(CertificateDer::from).collect(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }
}

pub fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// The secret of an enrolment token's text.
pub fn secret_of(token: &str) -> String {
    use base64::Engine as _;
    let body = token.strip_prefix("picket-enrol-v1.").unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    json["s"].as_str().unwrap().to_owned()
}

pub fn client_config(
    roots: &[CertificateDer<'static>],
    identity: Option<&Identity>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store);
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

pub async fn connect(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a TLS handshake", TlsConnector::from(config).connect(name, tcp)).await
}

pub async fn channel(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: ::http::Uri| {
        let config = Arc::clone(&config);
        async move { connect(address, config).await.map(TokioIo::new) }
    });
    within("a connection", Endpoint::from_static("http://localhost").connect_with_connector(connector)).await
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: ::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub async fn call<I>(io: I, method: &str, path: &str, token: Option<&str>, body: Option<Value>) -> Answer
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let mut request = ::http::Request::builder().method(method).uri(path).header("host", "localhost");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let bytes = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            body.to_string()
        }
        None => String::new(),
    };
    let response =
        sender.send_request(request.body(Full::new(bytes::Bytes::from(bytes))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
