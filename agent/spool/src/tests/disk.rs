//! A disk that loses what was not made durable, refuses, hangs and fills up, as it is told.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::disk::{Disk, File};

#[derive(Default)]
pub(super) struct Faulty(Arc<Inside>);

#[derive(Default)]
struct Inside {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default, Clone)]
struct State {
    /// What programs see, by name; what a crash leaves. Files by their own number.
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    files: Vec<Content>,
    /// Changing operations so far.
    operations: u64,
    crash_at: Option<u64>,
    crashed: bool,
    hung: bool,
    refuse: Option<io::ErrorKind>,
    refuse_reads: Option<io::ErrorKind>,
    capacity: Option<usize>,
}

#[derive(Default, Clone)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

struct Handle {
    inside: Arc<Inside>,
    file: usize,
}

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// After so many more changing operations, nothing is done any more.
    pub fn crash_after(&self, operations: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + operations);
    }

    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// What is found after a crash: all that was durable, and of what was not, so much of each file's new bytes as `luck`
    /// (0 to 255) has it, the names of the folder by its lowest bit.
    pub fn after_crash(&self, luck: u8) -> Self {
        let old = self.state();
        let names = if luck & 1 == 1 { old.names.clone() } else { old.durable_names.clone() };
        let files = old.files.iter().map(|file| {
            let mut bytes = file.durable.clone();
            let more = file.bytes.len().saturating_sub(bytes.len()) * usize::from(luck) / 255;
            bytes.extend_from_slice(&file.bytes[file.durable.len().min(file.bytes.len())..][..more]);
            // Some file systems keep the new length with zeros in it.
            if luck & 2 == 2 {
                bytes.resize(bytes.len().max(file.bytes.len()), 0);
            }
            Content { durable: bytes.clone(), bytes }
        });
        let state = State { durable_names: names.clone(), names, files: files.collect(), ..State::default() };
        Self(Arc::new(Inside { state: Mutex::new(state), released: Condvar::new() }))
    }

    pub fn refuse(&self, kind: Option<io::ErrorKind>) {
        self.state().refuse = kind;
    }

    pub fn refuse_reads(&self, kind: Option<io::ErrorKind>) {
        self.state().refuse_reads = kind;
    }

    pub fn hang(&self, hung: bool) {
        self.state().hung = hung;
        self.0.released.notify_all();
    }

    /// Bytes that all files together may have.
    pub fn capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    pub fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub fn segments(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.starts_with("seg-")).collect()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].bytes.clone()
    }

    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let number = state.names[name];
        let file = &mut state.files[number];
        change(&mut file.bytes);
        file.durable = file.bytes.clone();
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        state.files.push(Content { bytes: bytes.to_vec(), durable: bytes.to_vec() });
        let number = state.files.len() - 1;
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }

    pub fn delete(&self, name: &str) {
        self.state().names.remove(name);
    }
}

impl Inside {
    /// Before each operation that changes something.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock().unwrap();
        while state.hung {
            state = self.released.wait(state).unwrap();
        }
        if state.crash_at.is_some_and(|at| state.operations >= at) {
            state.crashed = true;
        }
        if state.crashed {
            return Err(io::Error::other("crashed"));
        }
        if let Some(kind) = state.refuse {
            return Err(kind.into());
        }
        state.operations += 1;
        Ok(state)
    }
}

impl State {
    fn used(&self) -> usize {
        self.names.values().map(|&number| self.files[number].bytes.len()).sum()
    }
}

impl Disk for Faulty {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.state();
        let file = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle { inside: Arc::clone(&self.0), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.change()?;
        state.files.push(Content::default());
        let file = state.files.len() - 1;
        state.names.insert(name.to_owned(), file);
        Ok(Arc::new(Handle { inside: Arc::clone(&self.0), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.change()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.change()?;
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.0.change()?;
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl File for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inside.state.lock().unwrap().files[self.file].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.inside.state.lock().unwrap();
        if let Some(kind) = state.refuse_reads {
            return Err(kind.into());
        }
        let from = state.files[self.file].bytes.get(offset as usize..).unwrap_or_default();
        // Short reads are allowed.
        let count = from.len().min(buffer.len()).min(1000);
        buffer[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.inside.change()?;
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(state.used()));
        let (start, held) = (offset as usize, state.files[self.file].bytes.len());
        let fits = bytes.len().min(room.saturating_add(held.saturating_sub(start)));
        let file = &mut state.files[self.file].bytes;
        file.resize(held.max(start + fits), 0);
        file[start..start + fits].copy_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let mut state = self.inside.change()?;
        state.files[self.file].bytes.truncate(length as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.inside.change()?;
        let file = &mut state.files[self.file];
        file.durable = file.bytes.clone();
        Ok(())
    }
}
