//! One repository of a registry, over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use picket_artifact::Digest;
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::{Deserialize, Serialize};

use crate::{ARTIFACT_TYPE, Access, MAX_AUTHORITIES, MAX_SECRET, Reference, RegistryError};

pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The longest manifest, in bytes.
pub(crate) const MAX_MANIFEST: u64 = 1 << 20;
const MAX_LAYERS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    pub media_type: Option<String>,
    pub artifact_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One repository of a registry.
pub(crate) struct Client {
    http: reqwest::Client,
    host: String,
    base: Url,
    credentials: Option<(String, String)>,
    /// What a token service gave.
    bearer: Option<String>,
}

impl Client {
    pub fn new(reference: &Reference, access: &Access) -> Result<Self, RegistryError> {
        let setup = |e: &dyn fmt::Display| RegistryError::Setup(e.to_string());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(TIMEOUT)
            .user_agent(access.user_agent)
            .redirect(reqwest::redirect::Policy::limited(5));
        if let Some(path) = &access.authorities {
            let pem = read(path, MAX_AUTHORITIES)?;
            let list = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| setup(&e))?;
            builder = builder.tls_certs_only(list);
        }
        let credentials = match (&access.username, &access.password_file) {
            (Some(username), Some(path)) => {
                let secret = String::from_utf8_lossy(&read(path, MAX_SECRET)?).trim().to_owned();
                Some((username.clone(), secret))
            }
            _ => None,
        };
        let scheme = if access.plain_http { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}/", reference.host, reference.repository);
        Ok(Self {
            http: builder.build().map_err(|e| setup(&e))?,
            host: reference.host.clone(),
            base: Url::parse(&base).map_err(|e| setup(&e))?,
            credentials,
            bearer: None,
        })
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|e| self.foreign(e.to_string()))
    }

    fn foreign(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Foreign { host: self.host.clone(), why: why.into() }
    }

    /// Sends; where the registry wants a token, gets one and sends again.
    async fn send(
        &mut self,
        what: &'static str,
        method: Method,
        url: Url,
        kind: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> Result<Response, RegistryError> {
        for attempt in 0..2 {
            let mut request = self.http.request(method.clone(), url.clone());
            // Somebody else's place for uploads is not told who we are.
            if url.origin() == self.base.origin() {
                request = match (&self.bearer, &self.credentials) {
                    (Some(token), _) => request.bearer_auth(token),
                    (None, Some((name, secret))) => request.basic_auth(name, Some(secret)),
                    (None, None) => request,
                };
            }
            if let Some(kind) = kind {
                let header = if body.is_some() { header::CONTENT_TYPE } else { header::ACCEPT };
                request = request.header(header, kind);
            }
            if let Some(body) = &body {
                request = request.body(body.clone());
            }
            let response = request.send().await.map_err(|e| self.transport(what, &e))?;
            if response.status() != StatusCode::UNAUTHORIZED || attempt > 0 {
                return Ok(response);
            }
            let challenges = response.headers().get_all(header::WWW_AUTHENTICATE);
            let asked = challenges.iter().filter_map(|v| v.to_str().ok()).find_map(challenge);
            let Some(asked) = asked else { return Ok(response) };
            self.bearer = Some(self.token(&asked).await?);
        }
        Err(self.foreign("it asks for a token again and again"))
    }

    async fn token(&self, asked: &BTreeMap<String, String>) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Given {
            token: Option<String>,
            access_token: Option<String>,
        }
        let realm = asked.get("realm").ok_or_else(|| self.foreign("its challenge has no realm"))?;
        let realm = Url::parse(realm).map_err(|e| self.foreign(format!("its challenge: {e}")))?;
        if realm.scheme() != self.base.scheme() && realm.scheme() != "https" {
            return Err(self.foreign("it sends us to a token service without TLS"));
        }
        let query: Vec<(&str, &String)> =
            ["service", "scope"].iter().filter_map(|key| Some((*key, asked.get(*key)?))).collect();
        let mut request = self.http.get(realm).query(&query);
        if let Some((name, secret)) = &self.credentials {
            request = request.basic_auth(name, Some(secret));
        }
        let response = request.send().await.map_err(|e| self.transport("a token", &e))?;
        let bytes = self.body("a token", response, MAX_MANIFEST).await?;
        let given: Given = serde_json::from_slice(&bytes).map_err(|e| self.foreign(e.to_string()))?;
        given.token.or(given.access_token).ok_or_else(|| self.foreign("its token service gave none"))
    }

    fn transport(&self, what: &'static str, error: &reqwest::Error) -> RegistryError {
        use std::error::Error as _;
        let mut why = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        RegistryError::Transport { host: self.host.clone(), what, why }
    }

    async fn good(&self, what: &'static str, response: Response) -> Result<Response, RegistryError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = response.text().await.unwrap_or_default();
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
        Err(RegistryError::Status { host: self.host.clone(), what, status, said })
    }

    /// The whole body of a good answer, bounded.
    async fn body(
        &self,
        what: &'static str,
        response: Response,
        most: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut response = self.good(what, response).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.transport(what, &e))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > most {
                return Err(self.foreign(format!("{what} is longer than {most} bytes")));
            }
        }
        Ok(bytes)
    }

    pub async fn put_blob(
        &mut self,
        kind: &str,
        bytes: Vec<u8>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Descriptor, RegistryError> {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let descriptor = Descriptor { media_type: kind.to_owned(), digest, size, annotations };
        let there = self.url(&format!("blobs/{}", digest.tagged()))?;
        if self.send("a look", Method::HEAD, there, None, None).await?.status().is_success() {
            return Ok(descriptor);
        }
        let begin = self.url("blobs/uploads/")?;
        let begun = self.send("an upload", Method::POST, begin, None, Some(Vec::new())).await?;
        let begun = self.good("an upload", begun).await?;
        let place = begun.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
        let place = place.ok_or_else(|| self.foreign("an upload has no location"))?;
        let mut place = begun.url().join(place).map_err(|e| self.foreign(e.to_string()))?;
        place.query_pairs_mut().append_pair("digest", &digest.tagged());
        let put =
            self.send("an upload", Method::PUT, place, Some("application/octet-stream"), Some(bytes)).await?;
        self.good("an upload", put).await?;
        Ok(descriptor)
    }

    pub async fn put_manifest(&mut self, place: &str, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{place}"))?;
        let put = self.send("the manifest", Method::PUT, url, Some(IMAGE), Some(bytes)).await?;
        self.good("the manifest", put).await.map(drop)
    }

    pub async fn manifest(&mut self, reference: &Reference) -> Result<(Digest, Manifest), RegistryError> {
        let place = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.tagged(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".to_owned(),
        };
        let url = self.url(&format!("manifests/{place}"))?;
        let got = self.send("the manifest", Method::GET, url, Some(IMAGE), None).await?;
        let bytes = self.body("the manifest", got, MAX_MANIFEST).await?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = reference.digest.filter(|wanted| *wanted != digest) {
            return Err(RegistryError::Digest { what: reference.to_string(), is: digest, wanted });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| self.foreign(e.to_string()))?;
        if manifest.artifact_type.as_deref() != Some(ARTIFACT_TYPE) || manifest.layers.len() > MAX_LAYERS {
            let what = manifest.artifact_type.unwrap_or_else(|| "an image".to_owned());
            return Err(RegistryError::NotAPlugin { reference: reference.to_string(), what });
        }
        Ok((digest, manifest))
    }

    pub async fn blob(&mut self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>, RegistryError> {
        let wanted = descriptor.digest;
        let url = self.url(&format!("blobs/{}", wanted.tagged()))?;
        let got = self.send("a layer", Method::GET, url, None, None).await?;
        let bytes = self.body("a layer", got, most).await?;
        let is = Digest::of(&bytes);
        if is != wanted {
            return Err(RegistryError::Digest { what: "a layer".to_owned(), is, wanted });
        }
        Ok(bytes)
    }
}

/// The parameters of a `Bearer` challenge (RFC 6750).
fn challenge(header: &str) -> Option<BTreeMap<String, String>> {
    let rest = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer "))?;
    let mut found = BTreeMap::new();
    let mut left = rest;
    while let Some((key, after)) = left.split_once("=\"") {
        let (value, after) = after.split_once('"')?;
        found.insert(key.trim_start_matches([',', ' ']).to_owned(), value.to_owned());
        left = after;
    }
    Some(found)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, RegistryError> {
    use std::io::Read as _;
    let failed = |source| RegistryError::File { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(failed(std::io::Error::other(format!("it is larger than {most} bytes"))));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let asked = challenge(
            r#"Bearer realm="https://auth.example/token",service="r",scope="repository:a:pull,push""#,
        );
        let asked = asked.unwrap();
        assert_eq!(asked["realm"], "https://auth.example/token");
        assert_eq!(asked["scope"], "repository:a:pull,push");
        assert_eq!(challenge("Basic realm=\"x\""), None);
        assert!(challenge("Bearer ").unwrap().is_empty());
        assert_eq!(challenge("Bearer realm=\"unclosed"), None);
    }
}
