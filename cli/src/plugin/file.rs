//! A plugin file, read.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use picket_artifact::{Damaged, Digest, MAX_COMPONENT_BYTES, Manifest, ManifestError, Need, manifest_bytes};
use picket_proto::model::{InvalidName, PluginId};

/// Why a file can't be worked on.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{} cannot be read: {source}", .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} cannot be written: {source}", .path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than {most} bytes", .path.display())]
    TooLarge { path: PathBuf, most: u64 },
    #[error("{} is no plugin: {source}; build it with `picket plugin build` or `wasm-tools component new`", .path.display())]
    Kind { path: PathBuf, source: Damaged },
    #[error("the manifest of {} is not valid: {source}", .path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{} has no manifest: what it needs is known to its author alone", .path.display())]
    NoManifest { path: PathBuf },
    #[error("--as: {0}")]
    Name(#[from] InvalidName),
}

/// A component and what it says of itself.
pub(super) struct Component {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// The manifest as it is written.
    pub text: Option<Vec<u8>>,
    pub manifest: Option<Manifest<Need>>,
}

impl Component {
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = read(path, MAX_COMPONENT_BYTES)?;
        let text = manifest_bytes(&bytes)
            .map_err(|source| FileError::Kind { path: path.to_owned(), source })?
            .map(<[u8]>::to_vec);
        let manifest = text
            .as_deref()
            .map(Manifest::<Need>::parse)
            .transpose()
            .map_err(|source| FileError::Manifest { path: path.to_owned(), source })?;
        Ok(Self { digest: Digest::of(&bytes), bytes, text, manifest })
    }
}

pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLarge { path: path.to_owned(), most });
    }
    Ok(bytes)
}

/// The name that a plugin has in a configuration.
pub(super) fn name(given: Option<&str>) -> Result<Option<PluginId>, FileError> {
    Ok(given.map(PluginId::new).transpose()?)
}
