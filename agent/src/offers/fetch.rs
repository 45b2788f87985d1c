//! An offered plugin, piece by piece, into `STATE/artifacts/incoming/DIGEST.part`.
//!
//! One piece is asked for at a time, from where the file ends; it goes on after a broken stream and after a restart of the
//! agent. What does not have its digest in the end is fetched once more from the beginning, and then refused.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use picket_artifact::Digest;
use picket_proto::v1;

use super::{Not, Offers, blocking};
use crate::shelf::own_folder;

/// A piece that does not come is asked for again.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// The aggregator can't give it now: asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

impl Offers {
    /// All of it, with the right digest.
    pub(super) async fn fetch(&mut self, offer: &v1::PluginOffer, digest: Digest) -> Result<Vec<u8>, Not> {
        let folder = self.shelf.incoming();
        let file = part(&folder, &digest.to_string());
        let (kept, size) = (file.clone(), offer.size);
        let mut at = written(blocking(move || prepare(&folder, &kept, size)).await?)?;
        for _ in 0..2 {
            while at < size {
                let content = self.piece(offer, at).await?;
                let too_much = content.is_empty() || content.len() as u64 > size - at;
                if too_much {
                    let reason = "the aggregator gives another number of bytes than it says";
                    return Err(Not::refused("PKT-0104", reason));
                }
                let (path, more) = (file.clone(), content.len() as u64);
                written(blocking(move || append(&path, &content)).await?)?;
                at += more;
            }
            let path = file.clone();
            let bytes = written(blocking(move || std::fs::read(path)).await?)?;
            if Digest::of(&bytes) == digest {
                return Ok(bytes);
            }
            let path = file.clone();
            written(blocking(move || std::fs::remove_file(path)).await?)?;
            at = 0;
        }
        Err(Not::refused("PKT-0104", "what came has another digest, twice: it was changed on its way"))
    }

    /// The part file is needed no more.
    pub(super) async fn fetched(&self, digest: &str) {
        let path = part(&self.shelf.incoming(), digest);
        // One that stays goes with the next fetch.
        let _ = blocking(move || std::fs::remove_file(path)).await;
    }

    /// The bytes that begin there.
    async fn piece(&mut self, offer: &v1::PluginOffer, offset: u64) -> Result<Vec<u8>, Not> {
        let fetch = v1::PluginFetch { digest: offer.digest.clone(), offset };
        loop {
            self.wanted.send_replace(Some(fetch.clone()));
            let asked = tokio::time::Instant::now();
            let again = loop {
                tokio::select! {
                    biased;
                    changed = self.offers.changed() => {
                        if changed.is_err() || !self.is_offered(offer) {
                            return Err(Not::Withdrawn);
                        }
                    }
                    chunk = self.chunks.recv() => match chunk {
                        None => return Err(Not::Withdrawn),
                        Some(chunk) if chunk.digest != fetch.digest || chunk.offset != offset => {}
                        Some(chunk) if chunk.refused.is_empty() => return Ok(chunk.content),
                        Some(chunk) => {
                            tracing::warn!(plugin = offer.plugin, reason = chunk.refused, "a piece is not given");
                            break AGAIN_AFTER;
                        }
                    },
                    () = tokio::time::sleep_until(asked + PIECE_WITHIN) => break Duration::ZERO,
                }
            };
            tokio::time::sleep(again).await;
            if !self.is_offered(offer) {
                return Err(Not::Withdrawn);
            }
        }
    }
}

fn part(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.part"))
}

/// Removes what else was begun; gives how much of it is there.
fn prepare(folder: &Path, file: &Path, size: u64) -> std::io::Result<u64> {
    own_folder(folder)?;
    for entry in std::fs::read_dir(folder)?.filter_map(Result::ok) {
        if entry.path() != file {
            std::fs::remove_file(entry.path())?;
        }
    }
    match std::fs::symlink_metadata(file) {
        Ok(meta) if meta.is_file() && meta.len() <= size => Ok(meta.len()),
        Ok(_) => std::fs::remove_file(file).map(|()| 0),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

fn append(file: &Path, content: &[u8]) -> std::io::Result<()> {
    File::options().create(true).append(true).mode(0o600).open(file)?.write_all(content)
}

fn written<T>(done: std::io::Result<T>) -> Result<T, Not> {
    done.map_err(|e| Not::refused("PKT-0019", format!("what is offered cannot be put together here: {e}")))
}
