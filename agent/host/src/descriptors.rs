//! What this process was given open by whoever started it is not passed on.
//!
//! Everything that we open ourselves is closed when a program is started. What a shell or a supervisor left open is not: a
//! command, a helper or the compiler would have it too.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks every open descriptor but the standard three to be closed in programs that are started from now on. To be called
/// first in `main`.
///
/// # Errors
/// `/proc/self/fd` cannot be read, or a descriptor not be marked.
#[allow(unsafe_code, reason = "a descriptor that nobody here owns has no safe type")]
pub fn keep_from_children() -> io::Result<()> {
    let numbers: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // SAFETY: the descriptor is used within this statement group alone, and only its flag is read and set, which no
        // owner of it relies on; if it was closed meanwhile (the folder's own is), the calls fail with EBADF.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        match fcntl_getfd(borrowed).and_then(|flags| fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)) {
            Ok(()) | Err(Errno::BADF) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_child_does_not_have_what_was_open() {
        let file = std::fs::File::open("/dev/null").unwrap();
        // Without the mark, as a shell leaves it.
        let left = rustix::io::dup(&file).unwrap();
        let has = || {
            let output = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap();
            let listed = String::from_utf8(output.stdout).unwrap();
            listed.split_whitespace().any(|n| n == left.as_raw_fd().to_string())
        };
        assert!(has());
        keep_from_children().unwrap();
        assert!(!has());
        assert!(rustix::io::fcntl_getfd(&left).is_ok(), "it is still open here");
    }
}
