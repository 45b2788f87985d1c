//! Simulated agents: a certificate authority of their own (the aggregator's bring-your-own-CA mode), and a client
//! that speaks the uplink as an agent does, without plugins and spool.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use picket_proto::columns::{CODEC, Encoder};
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, MetricType, Part};
use picket_proto::v1::{self, downlink_message, uplink_client::UplinkClient, uplink_message};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Endpoint, Uri};

use crate::shape::Shape;

/// A throw-away authority with the aggregator's server certificate.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    client_key: KeyPair,
    pub files: PathBuf,
}

impl Authority {
    /// Writes `ca.pem`, `server.pem` and `server.key` into `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "bench authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let leaf = server.signed_by(&key, &issuer)?;
        std::fs::write(dir.join("ca.pem"), issuer.pem())?;
        std::fs::write(dir.join("server.pem"), leaf.pem())?;
        std::fs::write(dir.join("server.key"), key.serialize_pem())?;
        Ok(Self { issuer, client_key: KeyPair::generate()?, files: dir.to_owned() })
    }

    /// A certificate for `node` and its key, PEM.
    pub fn client_pem(&self, node: &str) -> Result<(String, String)> {
        Ok((self.leaf(node)?.pem(), self.client_key.serialize_pem()))
    }

    fn leaf(&self, node: &str) -> Result<rcgen::Certificate> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(format!("picket://node/{node}").try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(&self.client_key, &self.issuer)?)
    }

    /// A client configuration whose certificate names `node`. One key serves all of them: signing is what costs.
    pub fn client(&self, node: &str) -> Result<Arc<rustls::ClientConfig>> {
        let leaf = self.leaf(node)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let key = PrivateKeyDer::try_from(self.client_key.serialize_der())
            .map_err(|e| anyhow::anyhow!("client key: {e}"))?;
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// One connected simulated agent.
pub struct Agent {
    out: mpsc::Sender<v1::UplinkMessage>,
    back: Streaming<v1::DownlinkMessage>,
    encoder: Encoder,
    life: u64,
    sequence: u64,
    acked: u64,
    window: u64,
    numbers: Vec<u32>,
}

impl Agent {
    /// Connects and says hello. `life` must differ between connections that stand for different agent runs.
    pub async fn connect(port: u16, tls: Arc<rustls::ClientConfig>, life: u64) -> Result<Self> {
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                let stream = TlsConnector::from(tls).connect(name, tcp).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(Duration::from_secs(30))
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535)
            .connect_with_connector(connector)
            .await
            .context("connect")?;
        let (out, outgoing) = mpsc::channel(4);
        out.send(wrap(uplink_message::Message::Hello(v1::Hello {
            agent_version: "bench".into(),
            codecs: vec![CODEC],
            ..Default::default()
        })))
        .await?;
        let mut back = UplinkClient::new(channel).stream(ReceiverStream::new(outgoing)).await?.into_inner();
        let Some(v1::DownlinkMessage { message: Some(downlink_message::Message::Welcome(welcome)) }) =
            back.message().await?
        else {
            bail!("the aggregator did not welcome the agent");
        };
        out.send(wrap(uplink_message::Message::Life(v1::Life { life }))).await?;
        Ok(Self {
            out,
            back,
            encoder: Encoder::new(),
            life,
            sequence: 0,
            acked: 0,
            window: u64::from(welcome.window.max(1)),
            numbers: Vec::new(),
        })
    }

    /// Sends the shape's families and series.
    pub async fn define(&mut self, shape: &Shape) -> Result<()> {
        let mut builder = Builder::new();
        let mut families: Vec<&str> = Vec::new();
        for (i, s) in shape.series.iter().enumerate() {
            if families.last() != Some(&s.name.as_str()) {
                let kind = if s.name.ends_with("_total") { MetricType::Counter } else { MetricType::Gauge };
                let family = Family::new(s.name.clone(), kind, "", "A simulated family of the benchmark.")?;
                builder.family(families.len() as u32, "bench", &family);
                families.push(&s.name);
            }
            let labels = s.labels.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            builder.series(i as u32, families.len() as u32 - 1, Part::Value, labels);
        }
        self.numbers = (0..shape.series.len() as u32).collect();
        self.out.send(wrap(uplink_message::Message::Definitions(builder.finish()))).await?;
        Ok(())
    }

    /// Sends one batch; waits for acknowledgements when the window is full.
    pub async fn push(&mut self, timestamp_ms: i64, values: &[f64]) -> Result<()> {
        while self.sequence - self.acked >= self.window {
            self.acknowledgement().await?;
        }
        let mut columns = Vec::new();
        self.encoder.encode(timestamp_ms, &self.numbers, values, None, &mut columns)?;
        self.sequence += 1;
        let batch =
            v1::Batch { sequence: self.sequence, columns: vec![columns.into()], ..Default::default() };
        self.out.send(wrap(uplink_message::Message::Batch(batch))).await?;
        Ok(())
    }

    /// Waits until all that was sent is durable.
    pub async fn settle(&mut self) -> Result<()> {
        while self.acked < self.sequence {
            self.acknowledgement().await?;
        }
        Ok(())
    }

    async fn acknowledgement(&mut self) -> Result<()> {
        let limit = Duration::from_secs(120);
        let next =
            tokio::time::timeout(limit, self.back.message()).await.context("no ack for two minutes")??;
        match next.context("the aggregator ended the stream")?.message {
            Some(downlink_message::Message::Ack(ack)) if ack.life == self.life => self.acked = ack.sequence,
            Some(downlink_message::Message::Goodbye(bye)) => bail!("goodbye: {} {}", bye.reason, bye.message),
            _ => {}
        }
        Ok(())
    }
}

fn wrap(message: uplink_message::Message) -> v1::UplinkMessage {
    v1::UplinkMessage { message: Some(message) }
}
