//! `picket plugin push` and `pull`: a plugin with what vouches for it as an artifact in an OCI registry (distribution and image
//! specification 1.1).
//!
//! The artifact is an image manifest with an artifact type of Picket's, the empty configuration, and a layer for the component
//! and for each file beside it. What is pulled is checked against the digests of the manifest, and the manifest against that
//! of the reference where it names one; whom the plugin is trusted from is the nodes' policies' to say, not the registry's.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use picket_artifact::{Digest, Evidence, MAX_COMPONENT_BYTES, SIGNATURE_SUFFIX, SIGSTORE_SUFFIX, beside};
use reqwest::{Method, Response, StatusCode, Url, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::file::{Component, FileError, read};
use crate::Error;
use crate::arguments::Output;
use crate::output;

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.picket.plugin.v1";
const COMPONENT: &str = "application/wasm";
const SIGNATURE: &str = "application/vnd.picket.plugin.signature.v1+json";
const SIGSTORE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const TITLE: &str = "org.opencontainers.image.title";
/// The longest manifest, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;
const MAX_LAYERS: usize = 16;
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest password file.
const MAX_SECRET: u64 = 4096;

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{text:?} is no reference: {why}; write HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST")]
    Reference { text: String, why: &'static str },
    #[error("cannot set up HTTPS: {0}")]
    Setup(String),
    #[error("{host}: {what}: {why}")]
    Transport { host: String, what: &'static str, why: String },
    #[error("{host} refused {what}: {status} {said}; does the repository exist, and may you? See --username")]
    Status { host: String, what: &'static str, status: StatusCode, said: String },
    #[error("{host} answered something else than a registry: {why}")]
    Foreign { host: String, why: String },
    #[error("{reference} is {what}, not a plugin of Picket's")]
    NotAPlugin { reference: String, what: String },
    #[error("{what} has the digest {is}, not {wanted}: it was changed on its way, or the registry is broken")]
    Digest { what: String, is: Digest, wanted: Digest },
}

#[derive(Debug, Args)]
pub struct RegistryArguments {
    /// Who you are to the registry.
    #[arg(long, requires = "password_file")]
    pub username: Option<String>,
    /// A file with the password or token.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Without TLS: for a registry on this machine.
    #[arg(long)]
    pub plain_http: bool,
    /// The CA to trust, PEM. Without one, the system's.
    #[arg(long = "registry-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// `HOST[:PORT]/REPOSITORY[:TAG][@sha256:DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let invalid = |why| RegistryError::Reference { text: text.chars().take(200).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| invalid("its digest is none of SHA-256"))?))
            }
            None => (text, None),
        };
        let (host, path) = rest.split_once('/').ok_or(invalid("it has no repository"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        let word = |text: &str, more: &[char]| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(&c))
        };
        if !word(host, &['.', '-', ':', '[', ']']) {
            return Err(invalid("its host is no host"));
        }
        let parts = repository.split('/');
        if !parts.clone().all(|part| word(part, &['.', '-', '_']) && !part.starts_with('.')) {
            return Err(invalid("its repository has a character that none may have"));
        }
        if tag.as_ref().is_some_and(|tag| !word(tag, &['.', '-', '_']) || tag.len() > 128) {
            return Err(invalid("its tag has a character that none may have"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{}", digest.tagged())?;
        }
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

pub async fn push(
    format: Output,
    file: &Path,
    reference: &str,
    arguments: &RegistryArguments,
) -> Result<(), Error> {
    let mut reference: Reference = reference.parse()?;
    let component = Component::read(file)?;
    let evidence =
        Evidence::beside(file).map_err(|source| FileError::Unreadable { path: file.to_owned(), source })?;
    if evidence.is_empty() {
        eprintln!("{} is not signed: nodes will refuse it unless their policy allows that", file.display());
    }
    let name = component.manifest.as_ref().map_or_else(
        || file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default(),
        |m| m.id.to_string(),
    );
    let mut registry = Registry::new(&reference, arguments)?;
    let mut layers = Vec::new();
    let files = [
        (COMPONENT, "", Some(component.bytes)),
        (SIGNATURE, SIGNATURE_SUFFIX, evidence.signature),
        (SIGSTORE, SIGSTORE_SUFFIX, evidence.bundle),
    ];
    for (kind, suffix, bytes) in files {
        let Some(bytes) = bytes else { continue };
        let title = (TITLE.to_owned(), format!("{name}.wasm{suffix}"));
        layers.push(registry.put_blob(kind, bytes, BTreeMap::from([title])).await?);
    }
    let config = registry.put_blob(EMPTY, b"{}".to_vec(), BTreeMap::new()).await?;
    let mut annotations = BTreeMap::new();
    if let Some(manifest) = &component.manifest {
        for (key, value) in [
            ("org.opencontainers.image.version", &manifest.version),
            ("org.opencontainers.image.description", &manifest.description),
            ("org.opencontainers.image.licenses", &manifest.license),
        ] {
            annotations.insert(key.to_owned(), value.clone());
        }
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(IMAGE.to_owned()),
        artifact_type: Some(ARTIFACT_TYPE.to_owned()),
        config,
        layers,
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|e| RegistryError::Setup(e.to_string()))?;
    let digest = Digest::of(&bytes);
    let place = reference.tag.clone().unwrap_or_else(|| digest.tagged());
    registry.put_manifest(&place, bytes).await?;
    reference.digest = Some(digest);
    match format {
        Output::Json => output::json(&json!({
            "reference": reference.to_string(), "digest": digest, "component": component.digest,
        }))?,
        Output::Table => output::line(&reference)?,
    }
    Ok(())
}

pub async fn pull(
    format: Output,
    reference: &str,
    folder: &Path,
    arguments: &RegistryArguments,
) -> Result<(), Error> {
    let mut reference: Reference = reference.parse()?;
    let mut registry = Registry::new(&reference, arguments)?;
    let (digest, manifest) = registry.manifest(&reference).await?;
    let layers = |kind: &str| manifest.layers.iter().find(|layer| layer.media_type == kind);
    let component = layers(COMPONENT).ok_or_else(|| RegistryError::NotAPlugin {
        reference: reference.to_string(),
        what: "without a component".to_owned(),
    })?;
    let bytes = registry.blob(component, MAX_COMPONENT_BYTES).await?;
    let named = picket_artifact::manifest_bytes(&bytes).ok().flatten();
    let named = named.and_then(|m| picket_artifact::Manifest::<picket_artifact::Need>::parse(m).ok());
    // By what it is, never by what the registry calls it.
    let name = named.map_or_else(|| component.digest.short(), |m| m.id.to_string());
    let file = folder.join(format!("{name}.wasm"));
    let mut written = Vec::new();
    for (kind, suffix) in [(SIGNATURE, SIGNATURE_SUFFIX), (SIGSTORE, SIGSTORE_SUFFIX)] {
        if let Some(layer) = layers(kind) {
            let bytes = registry.blob(layer, MAX_MANIFEST).await?;
            written.push(write(&beside(&file, suffix), &bytes)?);
        }
    }
    // Last, so that whoever watches the folder finds all of it.
    written.push(write(&file, &bytes)?);
    reference.digest = Some(digest);
    match format {
        Output::Json => output::json(&json!({
            "reference": reference.to_string(), "digest": digest, "component": component.digest, "files": written,
        }))?,
        Output::Table => output::line(file.display())?,
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let new = beside(path, ".new");
    std::fs::write(&new, bytes)
        .and_then(|()| std::fs::rename(&new, path))
        .map_err(|source| FileError::Unwritable { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}

/// One repository of a registry.
struct Registry {
    http: reqwest::Client,
    host: String,
    base: Url,
    credentials: Option<(String, String)>,
    /// What a token service gave.
    bearer: Option<String>,
}

impl Registry {
    fn new(reference: &Reference, arguments: &RegistryArguments) -> Result<Self, Error> {
        let setup = |e: &dyn fmt::Display| RegistryError::Setup(e.to_string());
        let mut builder = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(TIMEOUT)
            .user_agent(concat!("picket/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::limited(5));
        if let Some(path) = &arguments.ca {
            let list =
                reqwest::Certificate::from_pem_bundle(&read(path, MAX_MANIFEST)?).map_err(|e| setup(&e))?;
            builder = builder.tls_certs_only(list);
        }
        let credentials = match (&arguments.username, &arguments.password_file) {
            (Some(username), Some(path)) => {
                let secret = String::from_utf8_lossy(&read(path, MAX_SECRET)?).trim().to_owned();
                Some((username.clone(), secret))
            }
            _ => None,
        };
        let scheme = if arguments.plain_http { "http" } else { "https" };
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

    async fn put_blob(
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

    async fn put_manifest(&mut self, place: &str, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let url = self.url(&format!("manifests/{place}"))?;
        let put = self.send("the manifest", Method::PUT, url, Some(IMAGE), Some(bytes)).await?;
        self.good("the manifest", put).await.map(drop)
    }

    async fn manifest(&mut self, reference: &Reference) -> Result<(Digest, Manifest), RegistryError> {
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

    async fn blob(&mut self, descriptor: &Descriptor, most: u64) -> Result<Vec<u8>, RegistryError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "localhost:5000/plugins/node:1.0.0",
            "registry.example/node",
            &format!("registry.example/a/b_c/d-e@{digest}"),
            &format!("[::1]:5000/a:v1@{digest}"),
        ] {
            assert_eq!(good.parse::<Reference>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "node",
            "host/",
            "/node",
            "host/a//b",
            "host/../b",
            "host/a b",
            "host/a:",
            "host/a:b c",
            "ho st/a",
            "host/a@sha256:1",
            "host/a?x=1",
            "host/a#b",
            "host@evil/a",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }

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
