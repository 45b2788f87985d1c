//! `picket plugin keygen`, `sign` and `verify`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use picket_artifact::{
    Envelope, Evidence, InvalidKey, Policy, PolicyError, PrivateKey, PublicKey, SIGNATURE_SUFFIX, Statement,
    Subject, Untrusted, beside,
};
use serde_json::json;

use super::VerifyArguments;
use super::file::{Component, FileError, name, read};
use crate::Error;
use crate::arguments::Output;
use crate::output;

/// The longest key file.
const MAX_KEY: u64 = 64 << 10;

/// Why a key or a signature can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    #[error("the key {}: {source}", .path.display())]
    Key { path: PathBuf, source: InvalidKey },
    #[error("{} is there already; a key that is overwritten is lost", .path.display())]
    Exists { path: PathBuf },
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("{}: {} is not trusted: {source}. {}", .source.code(), .path.display(), .source.advice())]
    Untrusted { path: PathBuf, source: Untrusted },
}

pub fn keygen(format: Output, name: &Path) -> Result<(), Error> {
    let (private, public) = (beside(name, ".key"), beside(name, ".pub"));
    if let Some(path) = [&private, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(SigningError::Exists { path: path.clone() }.into());
    }
    let key = PrivateKey::generate().map_err(|source| SigningError::Key { path: private.clone(), source })?;
    write_new(&private, &key.to_pem(), 0o600)?;
    write_new(&public, &key.public().to_pem(), 0o644)?;
    let id = key.public().id();
    match format {
        Output::Json => output::json(&json!({ "private": private, "public": public, "id": id }))?,
        Output::Table => output::line(format_args!("{} {id}", public.display()))?,
    }
    eprintln!(
        "{} signs and is a secret: keep it off the nodes. {} goes into their policies.",
        private.display(),
        public.display()
    );
    Ok(())
}

pub fn sign(format: Output, file: &Path, key: &Path) -> Result<(), Error> {
    let component = Component::read(file)?;
    let private = PrivateKey::from_pem(&read(key, MAX_KEY)?)
        .map_err(|source| SigningError::Key { path: key.to_owned(), source })?;
    let statement = Statement {
        digest: component.digest,
        id: component.manifest.as_ref().map(|m| m.id.to_string()).unwrap_or_default(),
        version: component.manifest.as_ref().map(|m| m.version.clone()).unwrap_or_default(),
    };
    let evidence =
        Evidence::beside(file).map_err(|source| FileError::Unreadable { path: file.to_owned(), source })?;
    let path = beside(file, SIGNATURE_SUFFIX);
    let there = evidence.signature.as_deref().map(Envelope::parse);
    let mut envelope = match there {
        Some(Ok(envelope)) if *envelope.statement() == statement => envelope,
        Some(_) => {
            eprintln!("{} was of another file and is replaced", path.display());
            Envelope::new(statement.clone())
        }
        None => Envelope::new(statement.clone()),
    };
    envelope.sign(&private);
    let new = beside(&path, ".new");
    std::fs::write(&new, envelope.to_json())
        .and_then(|()| std::fs::rename(&new, &path))
        .map_err(|source| FileError::Unwritable { path: path.clone(), source })?;
    let id = private.public().id();
    match format {
        Output::Json => output::json(&json!({ "signature": path, "statement": statement, "key": id }))?,
        Output::Table => output::line(format_args!("{} {id}", path.display()))?,
    }
    Ok(())
}

pub fn verify(format: Output, arguments: &VerifyArguments) -> Result<(), Error> {
    let file = &arguments.file;
    let policy = match (&arguments.policy, &arguments.key) {
        (Some(policy), _) => Policy::load(policy).map_err(SigningError::Policy)?,
        (None, Some(path)) => {
            let key = PublicKey::from_pem(&read(path, MAX_KEY)?)
                .map_err(|source| SigningError::Key { path: path.clone(), source })?;
            Policy::of_key(&path.display().to_string(), key)
        }
        (None, None) => return Err(Error::Usage("say whom to trust: --policy or --key")),
    };
    let component = Component::read(file)?;
    let evidence =
        Evidence::beside(file).map_err(|source| FileError::Unreadable { path: file.clone(), source })?;
    let configured = name(arguments.name.as_deref())?;
    let subject = Subject { configured: configured.as_ref(), bytes: &component.bytes, evidence: &evidence };
    let verdict =
        policy.judge(subject).map_err(|source| SigningError::Untrusted { path: file.clone(), source })?;
    let manifest = verdict.manifest.as_ref();
    match format {
        Output::Json => output::json(&json!({
            "digest": verdict.digest, "id": manifest.map(|m| &m.id), "version": manifest.map(|m| &m.version),
            "signers": verdict.signers,
        }))?,
        Output::Table => output::line(format_args!(
            "{} {} {}: {}",
            manifest.map_or("without a manifest", |m| m.id.as_str()),
            manifest.map_or("", |m| m.version.as_str()),
            verdict.digest.tagged(),
            verdict.signed_by()
        ))?,
    }
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Unwritable { path: path.to_owned(), source };
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
