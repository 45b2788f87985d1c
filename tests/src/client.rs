//! The aggregator's and the agent's HTTP API, as a client sees them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::exposition::Exposition;

/// An HTTP client with a token and an authority to trust.
#[derive(Clone)]
pub struct Api {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// A sample of the aggregator's durable log.
#[derive(Debug, Clone, Deserialize, PartialEq)]
pub struct Row {
    pub node: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub ts_ms: i64,
    /// As JSON writes it: a number, or a word for what JSON can't.
    pub value: Value,
}

impl Row {
    pub fn number(&self) -> Option<f64> {
        self.value.as_f64().or_else(|| self.value.as_str()?.parse().ok())
    }
}

impl Api {
    pub fn new(url: &str, token: Option<&str>, authority: Option<&Path>) -> Result<Self> {
        let mut builder =
            reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().tls_certs_only([]);
        if let Some(file) = authority {
            let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        Ok(Self { url: url.to_owned(), token: token.map(str::to_owned), http: builder.build()? })
    }

    /// The same place with another token, or none.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Any request; status and body.
    pub async fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, String)> {
        let mut request = self.http.request(method.parse()?, format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        Ok((status, response.text().await?))
    }

    /// The body of a GET that succeeds.
    pub async fn text(&self, path: &str) -> Result<String> {
        let (status, body) = self.request("GET", path, None).await?;
        ensure!(status == 200, "GET {path}: {status} {body}");
        Ok(body)
    }

    pub async fn json(&self, path: &str) -> Result<Value> {
        let body = self.text(path).await?;
        serde_json::from_str(&body).with_context(|| format!("GET {path} is no JSON: {body}"))
    }

    /// `/metrics` in Prometheus text, parsed.
    pub async fn metrics(&self) -> Result<Exposition> {
        Exposition::parse(&self.text("/metrics").await?)
    }

    /// The logged samples that match.
    pub async fn export(&self, query: &str) -> Result<Vec<Row>> {
        let body = self.text(&format!("/api/v1/export?{query}")).await?;
        let row = |line: &str| serde_json::from_str(line).with_context(|| format!("no sample: {line}"));
        body.lines().filter(|line| !line.is_empty()).map(row).collect()
    }

    /// `/metrics` with an `Accept` of its own: content type and body.
    pub async fn metrics_as(&self, accept: &str) -> Result<(String, String)> {
        let mut request = self.http.get(format!("{}/metrics", self.url)).header("accept", accept);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await?.error_for_status()?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        Ok((kind.to_owned(), response.text().await?))
    }
}
