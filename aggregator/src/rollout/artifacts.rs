//! The plugins that are rolled out, on the aggregator's disk: `STATE/rollouts/DIGEST.wasm` and what vouches for it beside.
//!
//! A file comes into being as a whole, by its digest, and is never changed. What no rollout needs goes. Blocks on the disk.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::PathBuf;

use picket_artifact::{Digest, Evidence};

/// Bytes of one piece.
pub const CHUNK: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    #[error("{}: {what}: {source}", .path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "the plugins of all rollouts would take {wanted} bytes, rollout.max_size allows {most}; end a rollout (a new one of the \
         same plugin takes its place, or roll it back) or allow more"
    )]
    Full { wanted: u64, most: u64 },
}

pub(super) struct Artifacts {
    folder: PathBuf,
    most: u64,
}

impl Artifacts {
    pub fn open(folder: PathBuf, most: u64) -> Result<Self, ArtifactError> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|source| {
            ArtifactError::Io { what: "the folder cannot be made", path: folder.clone(), source }
        })?;
        Ok(Self { folder, most })
    }

    /// Keeps a plugin; without effect where it is kept already.
    pub fn keep(&self, digest: &Digest, component: &[u8], evidence: &Evidence) -> Result<(), ArtifactError> {
        let file = self.file(&digest.to_string());
        let there = self.sizes();
        let known = there.iter().any(|(path, _)| *path == file);
        let wanted =
            there.iter().map(|(_, size)| size).sum::<u64>() + if known { 0 } else { component.len() as u64 };
        if wanted > self.most {
            return Err(ArtifactError::Full { wanted, most: self.most });
        }
        evidence.keep(&file, component).map_err(|source| ArtifactError::Io {
            what: "it cannot be kept",
            path: file,
            source,
        })
    }

    /// What vouches for it.
    pub fn evidence(&self, digest: &str) -> Result<Evidence, ArtifactError> {
        let path = self.file(digest);
        Evidence::beside(&path).map_err(|source| ArtifactError::Io {
            what: "it cannot be read",
            path,
            source,
        })
    }

    /// The piece that begins there; empty at the end.
    pub fn chunk(&self, digest: &str, offset: u64) -> Result<Vec<u8>, ArtifactError> {
        let path = self.file(digest);
        let failed = |source| ArtifactError::Io { what: "it cannot be read", path: path.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let left = file.metadata().map_err(failed)?.len().saturating_sub(offset);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        file.read_exact_at(&mut bytes, offset).map_err(failed)?;
        Ok(bytes)
    }

    /// All of it, as it was kept.
    pub fn component(&self, digest: &str) -> Result<Vec<u8>, ArtifactError> {
        let path = self.file(digest);
        std::fs::read(&path).map_err(|source| ArtifactError::Io { what: "it cannot be read", path, source })
    }

    /// Removes what none of these digests needs.
    pub fn clear(&self, needed: &BTreeSet<String>) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let digest = name.split('.').next().unwrap_or_default();
            if !needed.contains(digest)
                && let Err(error) = std::fs::remove_file(entry.path())
            {
                tracing::warn!(file = %entry.path().display(), %error, "a plugin that no rollout needs stays");
            }
        }
    }

    fn sizes(&self) -> Vec<(PathBuf, u64)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok);
        entries.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect()
    }

    fn file(&self, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}.wasm"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_by_digest_in_pieces_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(dir.path().join("r"), 700_000).unwrap();
        let bytes: Vec<u8> = (0..600_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let digest = Digest::of(&bytes);
        let evidence = Evidence { signature: Some(b"s".to_vec()), bundle: None };
        for _ in 0..2 {
            artifacts.keep(&digest, &bytes, &evidence).unwrap();
        }
        let name = digest.to_string();
        let mut back = Vec::new();
        loop {
            let piece = artifacts.chunk(&name, back.len() as u64).unwrap();
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() <= CHUNK);
            back.extend(piece);
        }
        assert_eq!((back == bytes, artifacts.evidence(&name).unwrap()), (true, evidence));
        assert!(artifacts.chunk(&name, 700_000).unwrap().is_empty());
        let other = vec![1; 200_000];
        let full = artifacts.keep(&Digest::of(&other), &other, &Evidence::default()).unwrap_err();
        assert!(full.to_string().contains("rollout.max_size"), "{full}");
        artifacts.clear(&BTreeSet::from([name.clone()]));
        assert!(artifacts.chunk(&name, 0).is_ok());
        artifacts.clear(&BTreeSet::new());
        assert!(artifacts.chunk(&name, 0).is_err());
        artifacts.keep(&Digest::of(&other), &other, &Evidence::default()).unwrap();
    }
}
