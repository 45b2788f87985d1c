//! What one instance has of WASI: times that it waits for, and lines that are not whole yet.

use std::collections::HashMap;
use std::time::Duration;

use picket_agent_services::always::{MAX_LOG_LINE, monotonic_ns};
use wasmtime::component::Val;

use super::table::POLLABLE;

/// Times that are waited for at once.
const MAX_POLLABLES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Wasi {
    /// By handle: when it is ready, by the monotonic clock.
    pollables: HashMap<u32, u64>,
    next: u32,
    /// Of standard output and standard error.
    partial: [Vec<u8>; 2],
}

/// More is waited for than a plugin may.
#[derive(Debug, thiserror::Error)]
#[error("it waits for more than {MAX_POLLABLES} times at once")]
pub(super) struct TooMany;

impl Wasi {
    pub(super) fn pollable(&mut self, at: u64) -> Result<u32, TooMany> {
        if self.pollables.len() >= MAX_POLLABLES {
            return Err(TooMany);
        }
        // Numbers come back after four thousand million; those that are held are few.
        while self.pollables.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.pollables.insert(handle, at);
        Ok(handle)
    }

    /// When it is ready; what is not known is at once.
    pub(super) fn when(&self, handle: u32) -> u64 {
        self.pollables.get(&handle).copied().unwrap_or(0)
    }

    pub(super) fn drop_handle(&mut self, kind: u32, handle: u32) {
        if kind == POLLABLE {
            self.pollables.remove(&handle);
        }
    }

    /// The lines that these bytes end. What is longer than a line of the log may be is broken.
    pub(super) fn write(&mut self, error: bool, bytes: &[u8]) -> Vec<String> {
        let partial = &mut self.partial[usize::from(error)];
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                partial.push(*byte);
            }
            if *byte == b'\n' || partial.len() >= MAX_LOG_LINE {
                let line = String::from_utf8_lossy(partial).trim_end().to_owned();
                partial.clear();
                if !line.is_empty() {
                    lines.push(line);
                }
            }
        }
        lines
    }
}

pub(super) async fn wait(until: u64) {
    let left = until.saturating_sub(monotonic_ns());
    if left > 0 {
        tokio::time::sleep(Duration::from_nanos(left)).await;
    }
}

pub(super) fn earliest(polled: &[u64]) -> u64 {
    polled.iter().copied().min().unwrap_or(0)
}

/// The places of those that are ready.
pub(super) fn ready(polled: &[u64]) -> Val {
    let now = monotonic_ns();
    let ready = polled.iter().enumerate().filter(|(_, at)| **at <= now);
    Val::List(ready.map(|(nth, _)| Val::U32(u32::try_from(nth).unwrap_or(u32::MAX))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut wasi = Wasi::default();
        assert!(wasi.write(false, b"half a ").is_empty());
        assert_eq!(wasi.write(false, b"line\r\n\nand \xff\nrest"), ["half a line", "and \u{fffd}"]);
        assert_eq!(wasi.write(true, b"other\n"), ["other"]);
        assert_eq!(wasi.write(false, b"\n"), ["rest"]);
        assert_eq!(wasi.write(false, &vec![b'x'; 3 * MAX_LOG_LINE + 1]).len(), 3);
    }

    #[test]
    fn times_are_few() {
        let mut wasi = Wasi::default();
        let handles: Vec<u32> = (0..MAX_POLLABLES as u64).map(|at| wasi.pollable(at).unwrap()).collect();
        assert!(wasi.pollable(1).is_err());
        assert_eq!(wasi.when(handles[5]), 5);
        wasi.drop_handle(POLLABLE + 1, handles[5]);
        assert!(wasi.pollable(1).is_err());
        wasi.drop_handle(POLLABLE, handles[5]);
        assert!(wasi.pollable(1).is_ok());
    }

    #[test]
    fn polling() {
        let far = monotonic_ns() + 3_600_000_000_000;
        assert_eq!(earliest(&[far, 7]), 7);
        assert_eq!(ready(&[far, 7, 0]), Val::List(vec![Val::U32(1), Val::U32(2)]));
    }
}
