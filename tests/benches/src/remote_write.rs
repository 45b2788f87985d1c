//! What the peers take: Prometheus remote write 2.0 with snappy, and 1.0 with zstd as VictoriaMetrics reads it.
//! Field numbers from the two specifications.

use std::collections::HashMap;

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;

use crate::shape::Shape;

#[derive(Clone, PartialEq, Message)]
pub struct RequestV2 {
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub timeseries: Vec<SeriesV2>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SeriesV2 {
    #[prost(uint32, repeated, tag = "1")]
    pub labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct RequestV1 {
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<SeriesV1>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SeriesV1 {
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<LabelV1>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LabelV1 {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Which dialect a peer takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Remote write 2.0, snappy.
    PrometheusV2,
    /// Remote write 1.0, zstd.
    VictoriaZstd,
}

/// The body of one agent's batch.
pub fn encode(dialect: Dialect, shape: &Shape, timestamp_ms: i64) -> Result<Vec<u8>> {
    match dialect {
        Dialect::PrometheusV2 => {
            let mut symbols = vec![String::new()];
            let mut known: HashMap<String, u32> = HashMap::from([(String::new(), 0)]);
            let mut intern = |text: &str| {
                *known.entry(text.to_owned()).or_insert_with(|| {
                    symbols.push(text.to_owned());
                    (symbols.len() - 1) as u32
                })
            };
            let timeseries = shape
                .series
                .iter()
                .zip(&shape.values)
                .map(|(s, &value)| SeriesV2 {
                    labels_refs: std::iter::once(("__name__", s.name.as_str()))
                        .chain([("instance", shape.node.as_str())])
                        .chain(s.labels.iter().map(|(n, v)| (n.as_str(), v.as_str())))
                        .flat_map(|(n, v)| [intern(n), intern(v)])
                        .collect(),
                    samples: vec![Sample { value, timestamp: timestamp_ms }],
                })
                .collect();
            let plain = RequestV2 { symbols, timeseries }.encode_to_vec();
            Ok(snap::raw::Encoder::new().compress_vec(&plain)?)
        }
        Dialect::VictoriaZstd => {
            let label = |n: &str, v: &str| LabelV1 { name: n.to_owned(), value: v.to_owned() };
            let timeseries = shape
                .series
                .iter()
                .zip(&shape.values)
                .map(|(s, &value)| SeriesV1 {
                    labels: std::iter::once(label("__name__", &s.name))
                        .chain([label("instance", &shape.node)])
                        .chain(s.labels.iter().map(|(n, v)| label(n, v)))
                        .collect(),
                    samples: vec![Sample { value, timestamp: timestamp_ms }],
                })
                .collect();
            Ok(zstd::bulk::compress(&RequestV1 { timeseries }.encode_to_vec(), 1)?)
        }
    }
}

/// One keep-alive client; each agent has its own.
pub struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    dialect: Dialect,
}

impl Sender {
    pub fn new(url: &str, dialect: Dialect) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url: url.to_owned(), dialect }
    }

    pub async fn send(&self, body: Vec<u8>) -> Result<()> {
        let (kind, encoding, version) = match self.dialect {
            Dialect::PrometheusV2 => {
                ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", "2.0.0")
            }
            Dialect::VictoriaZstd => ("application/x-protobuf", "zstd", "1"),
        };
        let request = http::Request::post(&self.url)
            .header("Content-Type", kind)
            .header("Content-Encoding", encoding)
            .header("X-Prometheus-Remote-Write-Version", version)
            .body(Full::new(Bytes::from(body)))?;
        let answer = self.client.request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{} answered {status}: {}", self.url, String::from_utf8_lossy(&body));
        }
        Ok(())
    }
}
