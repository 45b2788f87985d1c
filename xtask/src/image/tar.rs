//! A layer: a tar in the form `ustar`, whose bytes depend on its entries alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const BLOCK: usize = 512;

/// A file or a folder of an image.
pub struct Entry {
    path: String,
    owner: u32,
    mode: u32,
    content: Content,
}

enum Content {
    Folder,
    Bytes(Vec<u8>),
    File(PathBuf, u64),
}

impl Entry {
    pub fn folder(path: &str, owner: u32, mode: u32) -> Self {
        Self { path: path.to_owned(), owner, mode, content: Content::Folder }
    }

    /// Root's, for everybody to read.
    pub fn text(path: &str, text: &str) -> Self {
        Self::bytes(path, text.as_bytes().to_vec())
    }

    pub fn bytes(path: &str, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), owner: 0, mode: 0o644, content: Content::Bytes(bytes) }
    }

    /// A copy of a file of this machine, links followed.
    pub fn file(path: &str, from: &Path, mode: u32) -> Result<Self> {
        let meta = std::fs::metadata(from).with_context(|| format!("cannot read {}", from.display()))?;
        if !meta.is_file() {
            bail!("{} is no file", from.display());
        }
        let content = Content::File(from.to_owned(), meta.len());
        Ok(Self { path: path.to_owned(), owner: 0, mode, content })
    }

    fn size(&self) -> u64 {
        match &self.content {
            Content::Folder => 0,
            Content::Bytes(bytes) => u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            Content::File(_, size) => *size,
        }
    }
}

/// Entries by name; the folders above them come by themselves.
#[derive(Default)]
pub struct Layer {
    entries: BTreeMap<String, Entry>,
}

impl Layer {
    pub fn add(&mut self, entry: Entry) {
        let mut above = entry.path.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            self.entries.entry(folder.to_owned()).or_insert_with(|| Entry::folder(folder, 0, 0o755));
            above = folder;
        }
        self.entries.insert(entry.path.clone(), entry);
    }

    /// The tar, dated `time`.
    pub fn write(&self, mut to: impl Write, time: u64) -> Result<()> {
        for entry in self.entries.values() {
            let size = entry.size();
            to.write_all(&header(entry, size, time)?)?;
            let written = match &entry.content {
                Content::Folder => 0,
                Content::Bytes(bytes) => {
                    to.write_all(bytes)?;
                    size
                }
                Content::File(path, _) => {
                    let mut file = std::fs::File::open(path)
                        .with_context(|| format!("cannot read {}", path.display()))?;
                    std::io::copy(&mut file, &mut to)
                        .with_context(|| format!("cannot read {}", path.display()))?
                }
            };
            if written != size {
                bail!("{} changed while it was read", entry.path);
            }
            let over = usize::try_from(size % BLOCK as u64)?;
            if over > 0 {
                to.write_all(&[0; BLOCK][over..])?;
            }
        }
        to.write_all(&[0; 2 * BLOCK])?;
        Ok(())
    }
}

fn header(entry: &Entry, size: u64, time: u64) -> Result<[u8; BLOCK]> {
    let folder = matches!(entry.content, Content::Folder);
    let name = if folder { format!("{}/", entry.path) } else { entry.path.clone() };
    let mut header = [0; BLOCK];
    let mut put = |at: usize, room: usize, text: &str| -> Result<()> {
        let field = header.get_mut(at..at + room).and_then(|field| field.get_mut(..text.len()));
        field
            .with_context(|| format!("{name}: {text:?} is too long for a tar"))?
            .copy_from_slice(text.as_bytes());
        Ok(())
    };
    put(0, 100, &name)?;
    put(100, 7, &format!("{:07o}", entry.mode))?;
    put(108, 7, &format!("{:07o}", entry.owner))?;
    put(116, 7, &format!("{:07o}", entry.owner))?;
    put(124, 11, &format!("{size:011o}"))?;
    put(136, 11, &format!("{time:011o}"))?;
    put(148, 8, "        ")?;
    put(156, 1, if folder { "5" } else { "0" })?;
    put(257, 8, "ustar\u{0}00")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header[148..156].copy_from_slice(sum.as_bytes());
    Ok(header)
}
