//! What the spool asks of a disk: one folder of files. There are three: the real one, one in memory for agents that
//! may write nowhere (`memory.rs`), and the tests' faulty one.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::SpoolError;

pub(crate) trait Disk: Send + Sync {
    /// The names of the files in the folder.
    fn list(&self) -> io::Result<Vec<String>>;
    /// To read, and to cut.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Made anew, empty, whatever was there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the folder's entries durable.
    fn sync_dir(&self) -> io::Result<()>;
}

pub(crate) trait File: Send + Sync {
    fn len(&self) -> io::Result<u64>;
    /// Reads what is there, up to the buffer's length; 0 at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn cut(&self, length: u64) -> io::Result<()>;
    /// Makes the file's bytes durable.
    fn sync(&self) -> io::Result<()>;
}

/// A folder, and the lock on it for as long as this lives.
pub(crate) struct Folder {
    dir: PathBuf,
    _lock: fs::File,
}

const LOCK: &str = "lock";

impl Folder {
    /// Makes the folder where there is none, and takes it for this process alone.
    pub fn take(dir: &Path) -> Result<Self, SpoolError> {
        let failed = |action, path: &Path, source: io::Error| {
            if source.raw_os_error() == Some(rustix::io::Errno::ROFS.raw_os_error()) {
                SpoolError::ReadOnly { dir: dir.to_owned(), source }
            } else {
                SpoolError::Io { action, path: path.to_owned(), source }
            }
        };
        fs::create_dir_all(dir).map_err(|e| failed("make the folder", dir, e))?;
        let path = dir.join(LOCK);
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| failed("open", &path, e))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(SpoolError::Locked { dir: dir.to_owned() }),
            Err(errno) => Err(failed("lock", &path, errno.into())),
        }
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::OpenOptions::new().read(true).write(true).open(self.dir.join(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Arc::new(options.open(self.dir.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The disk has no room: the one fault that dropping old segments can mend.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
