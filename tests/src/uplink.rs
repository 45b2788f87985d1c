//! A hand-made agent: speaks the uplink as a test wants it to, well or badly.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use picket_proto::v1::enrolment_client::EnrolmentClient;
use picket_proto::v1::uplink_client::UplinkClient;
use picket_proto::v1::{self, DownlinkMessage, UplinkMessage, downlink_message, uplink_message};
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A key and its certificate chain, PEM.
#[derive(Clone)]
pub struct Credentials {
    pub certificate: String,
    pub key: String,
}

impl Credentials {
    /// Of an agent's identity folder.
    pub fn read(identity: &Path) -> Result<Self> {
        let read = |name: &str| {
            let file = identity.join(name);
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
        };
        Ok(Self { certificate: read("certificate.pem")?, key: read("key.pem")? })
    }
}

/// Connects to an uplink port.
pub async fn connect(address: &str, authority: &Path, credentials: Option<&Credentials>) -> Result<Channel> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(std::fs::read(authority)?))
        .domain_name("localhost");
    if let Some(credentials) = credentials {
        tls = tls.identity(Identity::from_pem(&credentials.certificate, &credentials.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .tls_config(tls)?
        .connect_timeout(Duration::from_secs(10));
    endpoint.connect().await.with_context(|| format!("cannot connect to {address}"))
}

/// An open stream.
pub struct Stream {
    up: mpsc::Sender<UplinkMessage>,
    down: Streaming<DownlinkMessage>,
}

impl Stream {
    /// Opens it; nothing is said yet.
    pub async fn open(channel: Channel) -> Result<Self, tonic::Status> {
        let (up, messages) = mpsc::channel(64);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut client = UplinkClient::new(channel).max_decoding_message_size(32 << 20);
        let down = client.stream(outgoing).await?.into_inner();
        Ok(Self { up, down })
    }

    /// Opens it and says hello; gives the welcome too.
    pub async fn hello(channel: Channel) -> Result<(Self, v1::Welcome)> {
        let (up, messages) = mpsc::channel(64);
        // Said at once: a server may answer the call only after the first message.
        up.send(message(hello())).await?;
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(messages);
        let mut client = UplinkClient::new(channel).max_decoding_message_size(32 << 20);
        let down = tokio::time::timeout(Duration::from_secs(20), client.stream(outgoing))
            .await
            .context("no answer to the call")??
            .into_inner();
        let mut this = Self { up, down };
        match this.next().await? {
            downlink_message::Message::Welcome(welcome) => Ok((this, welcome)),
            other => bail!("expected a welcome, got {other:?}"),
        }
    }

    pub async fn send(&self, what: uplink_message::Message) -> Result<()> {
        self.up.send(message(what)).await.context("the stream is closed")
    }

    /// The next message; an error if the stream ends.
    pub async fn next(&mut self) -> Result<downlink_message::Message> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.down.message());
        match next.await.context("nothing came for 30 s")? {
            Ok(Some(message)) => message.message.context("an empty message"),
            Ok(None) => bail!("the stream ended"),
            Err(status) => bail!("{:?}: {}", status.code(), status.message()),
        }
    }

    /// Waits for the acknowledgement of this sequence.
    pub async fn acknowledged(&mut self, life: u64, sequence: u64) -> Result<()> {
        loop {
            if let downlink_message::Message::Ack(ack) = self.next().await?
                && ack.life == life
                && ack.sequence >= sequence
            {
                return Ok(());
            }
        }
    }

    /// Reads until the stream ends; why it did.
    pub async fn end(&mut self) -> Result<String> {
        let mut goodbye = String::new();
        loop {
            match self.next().await {
                Ok(downlink_message::Message::Goodbye(said)) => {
                    goodbye = format!("{}: {}; ", said.reason, said.message)
                }
                Ok(_) => {}
                Err(error) => {
                    let text = format!("{goodbye}{error:#}");
                    if text.contains("nothing came for") {
                        bail!("the stream was not ended");
                    }
                    return Ok(text);
                }
            }
        }
    }
}

fn message(message: uplink_message::Message) -> UplinkMessage {
    UplinkMessage { message: Some(message) }
}

/// A hello as an agent would say it.
pub fn hello() -> uplink_message::Message {
    uplink_message::Message::Hello(v1::Hello {
        agent_version: "0.0.0-test".to_owned(),
        codecs: vec![picket_proto::columns::CODEC],
        started_ms: now_ms(),
        kernel: "test".to_owned(),
        arch: "x86_64".to_owned(),
        now_ms: now_ms(),
        labels: Vec::new(),
    })
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What an enrolment token holds.
pub struct Token {
    pub addresses: Vec<String>,
    pub node: String,
    pub pin: String,
    pub secret: String,
}

impl Token {
    pub fn parse(text: &str) -> Result<Self> {
        let body = text.strip_prefix("picket-enrol-v1.").context("no enrolment token")?;
        let json: serde_json::Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(body)?)?;
        let word = |key: &str| json[key].as_str().map(str::to_owned).with_context(|| format!("no {key}"));
        let addresses = json["a"].as_array().into_iter().flatten();
        Ok(Self {
            addresses: addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect(),
            node: word("n")?,
            pin: word("p")?,
            secret: word("s")?,
        })
    }

    pub fn text(&self) -> String {
        let json = serde_json::json!({"a": self.addresses, "n": self.node, "p": self.pin, "s": self.secret});
        format!("picket-enrol-v1.{}", BASE64_URL_SAFE_NO_PAD.encode(json.to_string()))
    }
}

/// Enrols by hand, asking for `node` as the name; the credentials are of a fresh key.
pub async fn enrol(
    address: &str,
    authority: &Path,
    secret: &str,
    node: &str,
) -> Result<(String, Credentials), tonic::Status> {
    let internal = |error: String| tonic::Status::internal(error);
    let key = rcgen::KeyPair::generate().map_err(|e| internal(e.to_string()))?;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, node);
    let csr = params.serialize_request(&key).map_err(|e| internal(e.to_string()))?;
    let channel = connect(address, authority, None).await.map_err(|e| internal(format!("{e:#}")))?;
    let request =
        v1::EnrolRequest { secret: secret.to_owned(), node: node.to_owned(), csr: csr.der().to_vec() };
    let response = EnrolmentClient::new(channel).enrol(request).await?.into_inner();
    let pem = |der: &Vec<u8>| pem("CERTIFICATE", der);
    let certificate = response.certificates.iter().map(pem).collect();
    Ok((response.node, Credentials { certificate, key: key.serialize_pem() }))
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = base64::prelude::BASE64_STANDARD.encode(der);
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate authority that is not the aggregator's.
pub struct OtherAuthority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    /// PEM.
    pub certificate: String,
}

impl OtherAuthority {
    pub fn new(name: &str) -> Result<Self> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: rcgen::Issuer::new(params, key), certificate })
    }

    /// A leaf with these URIs and DNS names, for either side of TLS.
    pub fn issue(&self, common_name: &str, uris: &[&str], names: &[&str]) -> Result<Credentials> {
        self.leaf(common_name, uris, names, |_| {})
    }

    /// One whose time is over.
    pub fn issue_expired(&self, common_name: &str, names: &[&str]) -> Result<Credentials> {
        self.leaf(common_name, &[], names, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    fn leaf(
        &self,
        common_name: &str,
        uris: &[&str],
        names: &[&str],
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> Result<Credentials> {
        let key = rcgen::KeyPair::generate()?;
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())?;
        change(&mut params);
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        for uri in uris {
            params.subject_alt_names.push(rcgen::SanType::URI((*uri).try_into()?));
        }
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Credentials { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
