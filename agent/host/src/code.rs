//! Compiled components as memory: mapped from an open file, because where plugins run no file can be opened.
//!
//! The engine would map a file of its own opening. Here the file comes open, so that the mapping is ours: private, read-only,
//! and executable where the code is, for as long as anything made of it lives.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
use wasmtime::component::Component;
use wasmtime::{CustomCodeMemory, Engine};

/// The largest compiled component that is mapped, in bytes.
const MAX_BYTES: u64 = 512 << 20;

/// A component and the memory that it lies in. What is made of the component keeps a [`Mapping`] beside it.
pub(crate) struct Code {
    pub component: Component,
    pub mapping: Arc<Mapping>,
}

/// Unmapped when the last thing that was made of it is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and nobody writes it.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    #[allow(unsafe_code)]
    fn new(file: &File, len: u64) -> io::Result<Self> {
        if len == 0 || len > MAX_BYTES {
            return Err(io::Error::other(format!("a compiled component of {len} bytes")));
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        // SAFETY: the kernel chooses the place, so that no memory of ours is replaced.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, len })
    }
}

impl Mapping {
    /// Lets go of its pages: what runs again is read from the file again.
    #[allow(unsafe_code)]
    pub(crate) fn let_go(&self) {
        // SAFETY: it is mapped for as long as `self` lives, private and never written.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and whatever was made of it held a count of `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl Code {
    /// `len`: the file's, for not even that can be asked for everywhere.
    ///
    /// # Errors
    /// The file is no compiled component of this engine's.
    #[allow(unsafe_code)]
    pub(crate) fn new(engine: &Engine, compiled: &File, len: u64) -> wasmtime::Result<Self> {
        let mapping = Arc::new(Mapping::new(compiled, len)?);
        let memory = NonNull::slice_from_raw_parts(mapping.start, mapping.len);
        // SAFETY: the bytes become native code of this process, so they must be what our compiler wrote. They are: the agent
        // alone opens them (`compiler`: a file in a folder that only its user may enter or write, which belongs to that user
        // and may be written by nobody else, put there by rename and never changed in place), and a worker gets them open
        // from the agent. The engine's own check refuses files of another version or configuration. The memory lives as long
        // as the component: `Linked` and each `Instance` hold it.
        let component = unsafe { Component::deserialize_raw(engine, memory)? };
        Ok(Self { component, mapping })
    }
}

/// Makes the code in a mapping executable: the engine does so only with mappings of its own.
#[derive(Debug)]
pub(crate) struct Pages;

impl CustomCodeMemory for Pages {
    fn required_alignment(&self) -> usize {
        rustix::param::page_size()
    }

    #[allow(unsafe_code)]
    fn publish_executable(&self, start: *const u8, len: usize) -> wasmtime::Result<()> {
        // SAFETY: the engine names the code section of a mapping of ours, which begins and ends at page boundaries.
        unsafe { mprotect(start.cast_mut().cast(), len, MprotectFlags::READ | MprotectFlags::EXEC) }?;
        Ok(())
    }

    #[allow(unsafe_code)]
    fn unpublish_executable(&self, start: *const u8, len: usize) -> wasmtime::Result<()> {
        // SAFETY: as above; the engine runs none of it any more.
        unsafe { mprotect(start.cast_mut().cast(), len, MprotectFlags::READ) }?;
        Ok(())
    }
}
