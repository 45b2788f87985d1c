//! A plugin with what vouches for it as an artifact in an OCI registry (distribution and image specification 1.1).
//!
//! The artifact is an image manifest with an artifact type of Picket's, the empty configuration, and a layer for the component
//! and for each file beside it. What is pulled is checked against the digests of the manifest, and the manifest against that
//! of the reference where it names one; whom the plugin is trusted from is the policies' to say, not the registry's.
//!
//! A crate of its own, because a node never talks to a registry: no part of the agent links it. The command line and
//! the aggregator share it.

mod client;
mod reference;

use std::collections::BTreeMap;
use std::path::PathBuf;

use picket_artifact::{Digest, Evidence, MAX_COMPONENT_BYTES, SIGNATURE_SUFFIX, SIGSTORE_SUFFIX};
use reqwest::StatusCode;

use client::{Client, Descriptor, EMPTY, IMAGE, MAX_MANIFEST, Manifest};
pub use reference::Reference;

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.picket.plugin.v1";
const COMPONENT: &str = "application/wasm";
const SIGNATURE: &str = "application/vnd.picket.plugin.signature.v1+json";
const SIGSTORE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const TITLE: &str = "org.opencontainers.image.title";
/// The longest password file, and the longest file of authorities.
const MAX_SECRET: u64 = 4096;
const MAX_AUTHORITIES: u64 = 1 << 20;

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{text:?} is no reference: {why}; write HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST")]
    Reference { text: String, why: &'static str },
    #[error("cannot set up HTTPS: {0}")]
    Setup(String),
    #[error("{} cannot be read: {source}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{host}: {what}: {why}")]
    Transport { host: String, what: &'static str, why: String },
    #[error(
        "{host} refused {what}: {status} {said}; does the repository exist, and may the name and password that were given?"
    )]
    Status { host: String, what: &'static str, status: StatusCode, said: String },
    #[error("{host} answered something else than a registry: {why}")]
    Foreign { host: String, why: String },
    #[error("{reference} is {what}, not a plugin of Picket's")]
    NotAPlugin { reference: String, what: String },
    #[error("{what} has the digest {is}, not {wanted}: it was changed on its way, or the registry is broken")]
    Digest { what: String, is: Digest, wanted: Digest },
}

/// How a registry is talked to.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub username: Option<String>,
    /// A file with the password or token.
    pub password_file: Option<PathBuf>,
    /// Without TLS.
    pub plain_http: bool,
    /// The CA to trust, PEM. Without one, the system's.
    pub authorities: Option<PathBuf>,
    /// Who asks, for the registry's log.
    pub user_agent: &'static str,
}

/// What lies in a registry as one artifact.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    pub component: Vec<u8>,
    pub evidence: Evidence,
    /// The component's name in the registry's lists.
    pub name: String,
    /// Of the artifact, for those who look at the registry.
    pub annotations: BTreeMap<String, String>,
}

/// What was pulled.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// With the digest of the artifact's manifest: exactly this one.
    pub reference: Reference,
    /// As the registry's manifest has it, and as it was checked.
    pub digest: Digest,
    pub component: Vec<u8>,
    pub evidence: Evidence,
}

/// Puts an artifact into the registry; the reference gets its digest. Reads the files of `access`, which blocks for a moment.
///
/// # Errors
/// [`RegistryError`]
pub async fn push(
    mut reference: Reference,
    access: &Access,
    artifact: Artifact,
) -> Result<Reference, RegistryError> {
    let mut client = Client::new(&reference, access)?;
    let Artifact { component, evidence, name, annotations } = artifact;
    let mut layers = Vec::new();
    let files = [
        (COMPONENT, "", Some(component)),
        (SIGNATURE, SIGNATURE_SUFFIX, evidence.signature),
        (SIGSTORE, SIGSTORE_SUFFIX, evidence.bundle),
    ];
    for (kind, suffix, bytes) in files {
        let Some(bytes) = bytes else { continue };
        let title = (TITLE.to_owned(), format!("{name}.wasm{suffix}"));
        layers.push(client.put_blob(kind, bytes, BTreeMap::from([title])).await?);
    }
    let config = client.put_blob(EMPTY, b"{}".to_vec(), BTreeMap::new()).await?;
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
    client.put_manifest(&place, bytes).await?;
    reference.digest = Some(digest);
    Ok(reference)
}

/// Gets an artifact, each part of it checked against its digest.
///
/// # Errors
/// [`RegistryError`]
pub async fn pull(mut reference: Reference, access: &Access) -> Result<Pulled, RegistryError> {
    let mut client = Client::new(&reference, access)?;
    let (digest, manifest) = client.manifest(&reference).await?;
    let layer = |kind: &str| manifest.layers.iter().find(|layer| layer.media_type == kind);
    let of_component = layer(COMPONENT).ok_or_else(|| RegistryError::NotAPlugin {
        reference: reference.to_string(),
        what: "without a component".to_owned(),
    })?;
    let component = client.blob(of_component, MAX_COMPONENT_BYTES).await?;
    let evidence = Evidence {
        signature: small(&mut client, layer(SIGNATURE)).await?,
        bundle: small(&mut client, layer(SIGSTORE)).await?,
    };
    reference.digest = Some(digest);
    Ok(Pulled { digest: of_component.digest, reference, component, evidence })
}

async fn small(client: &mut Client, layer: Option<&Descriptor>) -> Result<Option<Vec<u8>>, RegistryError> {
    match layer {
        Some(layer) => client.blob(layer, MAX_MANIFEST).await.map(Some),
        None => Ok(None),
    }
}
