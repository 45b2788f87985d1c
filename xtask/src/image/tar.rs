//! A layer: a tar in the form `ustar`, whose bytes depend on its entries alone.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

/// A file or a folder of an image.
pub struct Entry {
    path: String,
    owner: u32,
    mode: u32,
    content: Content,
}

enum Content {
    Folder,
    File(Vec<u8>),
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
        Self { path: path.to_owned(), owner: 0, mode: 0o644, content: Content::File(bytes) }
    }

    /// A copy of a file of this machine, links followed.
    pub fn file(path: &str, from: &Path, mode: u32) -> Result<Self> {
        let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(Self { mode, ..Self::bytes(path, bytes) })
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
    pub fn write(&self, to: impl Write, time: u64) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        for entry in self.entries.values() {
            let (kind, end, content) = match &entry.content {
                Content::Folder => (tar::EntryType::Directory, "/", &[][..]),
                Content::File(bytes) => (tar::EntryType::Regular, "", bytes.as_slice()),
            };
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.into());
            header.set_gid(entry.owner.into());
            header.set_mtime(time);
            archive
                .append_data(&mut header, format!("{}{end}", entry.path), content)
                .with_context(|| format!("{} cannot be put into a tar", entry.path))?;
        }
        archive.into_inner()?.flush().context("a tar cannot be written")
    }
}
