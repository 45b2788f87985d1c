//! `picket plugin push` and `pull`: a plugin with what vouches for it, to and from an OCI registry.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use picket_artifact::{Evidence, SIGNATURE_SUFFIX, SIGSTORE_SUFFIX, beside};
use picket_registry::{Access, Artifact, Reference};
use serde_json::json;

use super::file::{Component, FileError};
use crate::Error;
use crate::arguments::Output;
use crate::output;

pub use picket_registry::RegistryError;

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

impl RegistryArguments {
    fn access(&self) -> Access {
        Access {
            username: self.username.clone(),
            password_file: self.password_file.clone(),
            plain_http: self.plain_http,
            authorities: self.ca.clone(),
            user_agent: concat!("picket/", env!("CARGO_PKG_VERSION")),
        }
    }
}

pub async fn push(
    format: Output,
    file: &Path,
    reference: &str,
    arguments: &RegistryArguments,
) -> Result<(), Error> {
    let reference: Reference = reference.parse()?;
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
    let artifact = Artifact { component: component.bytes, evidence, name, annotations };
    let pushed = picket_registry::push(reference, &arguments.access(), artifact).await?;
    match format {
        Output::Json => output::json(&json!({
            "reference": pushed.to_string(), "digest": pushed.digest, "component": component.digest,
        }))?,
        Output::Table => output::line(&pushed)?,
    }
    Ok(())
}

pub async fn pull(
    format: Output,
    reference: &str,
    folder: &Path,
    arguments: &RegistryArguments,
) -> Result<(), Error> {
    let pulled = picket_registry::pull(reference.parse()?, &arguments.access()).await?;
    let named = picket_artifact::manifest_bytes(&pulled.component).ok().flatten();
    let named = named.and_then(|m| picket_artifact::Manifest::<picket_artifact::Need>::parse(m).ok());
    // By what it is, never by what the registry calls it.
    let name = named.map_or_else(|| pulled.digest.short(), |m| m.id.to_string());
    let file = folder.join(format!("{name}.wasm"));
    let mut written = Vec::new();
    for (suffix, bytes) in
        [(SIGNATURE_SUFFIX, &pulled.evidence.signature), (SIGSTORE_SUFFIX, &pulled.evidence.bundle)]
    {
        if let Some(bytes) = bytes {
            written.push(write(&beside(&file, suffix), bytes)?);
        }
    }
    // Last, so that whoever watches the folder finds all of it.
    written.push(write(&file, &pulled.component)?);
    match format {
        Output::Json => output::json(&json!({
            "reference": pulled.reference.to_string(), "digest": pulled.reference.digest,
            "component": pulled.digest, "files": written,
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
