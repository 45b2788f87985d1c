//! Letting go of memory that only a start needed.
//!
//! Once a program has read its configuration, made its connections and mapped its plugins, much of its own file and of theirs
//! is never run again, and the heap has holes. Those pages stay mapped as long as nobody says that they may go. What is let
//! go of here is what the kernel can give back by itself: free heap, and pages that are the same in a file. The next use of
//! one costs a fault, and no disk while the kernel still has it.

use std::time::Duration;

/// So long after its last start of anything a process lets go.
pub const SETTLED_AFTER: Duration = Duration::from_secs(20);

/// One heap for all of the process's threads, before there is a second one: each of glibc's arenas keeps pages of its own
/// free, which is a tenth of an idle agent's memory, and no thread here allocates so much that it would wait for another. See
/// mallopt(3).
#[allow(unsafe_code)]
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number under the heap's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Where this program's file is mapped and nothing of it was changed. It stays there as long as the process does.
#[derive(Debug, Clone, Default)]
pub struct Program(Vec<(usize, usize)>);

impl Program {
    /// Of this process; nothing where the kernel does not say.
    pub fn of_this_process() -> Self {
        let Ok(file) = std::fs::read_link("/proc/self/exe") else { return Self::default() };
        let Ok(text) = std::fs::read_to_string("/proc/self/smaps") else { return Self::default() };
        Self(unchanged(&text, &file.to_string_lossy()))
    }

    /// Lets go of its pages, and of the heap's free ones.
    #[allow(unsafe_code)]
    pub fn let_go(&self) {
        for &(start, length) in &self.0 {
            // SAFETY: the ranges are whole, private, read-only mappings of the running program's file without a page of their
            // own. Nothing unmaps or writes them while the process lives; a page that is gone is read from the file again.
            unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
        #[cfg(target_env = "gnu")]
        // SAFETY: it takes the heap's own locks, and frees nothing that is in use.
        unsafe {
            libc::malloc_trim(0);
        }
    }
}

/// From `smaps`, see proc_pid_smaps(5): start and length of each mapping of this file that cannot be written and has no page of
/// the process's own.
fn unchanged(smaps: &str, file: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut this = None;
    for line in smaps.lines() {
        if let Some(range) = header(line) {
            this = range.filter(|(_, _, path)| *path == file).map(|(start, end, _)| (start, end));
        } else if let Some(own) = line.strip_prefix("Anonymous:")
            && let Some((start, end)) = this.take()
            && own.trim() == "0 kB"
        {
            found.push((start, end - start));
        }
    }
    found
}

/// Of a mapping's first line; the inner none: it may be written, is shared, or has no file.
#[allow(clippy::option_option)]
fn header(line: &str) -> Option<Option<(usize, usize, &str)>> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let mut fields = rest.splitn(5, ' ');
    let readable = matches!(fields.next(), Some("r--p" | "r-xp")) && start < end;
    let path = fields.nth(3).map(str::trim_start).filter(|path| path.starts_with('/'));
    Some(path.filter(|_| readable).map(|path| (start, end, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
555550000000-555550100000 r--p 00000000 fe:00 42                         /usr/bin/a b
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
555550100000-555550180000 r-xp 00100000 fe:00 42                         /usr/bin/a b
Anonymous:             0 kB
555550180000-555550190000 r--p 00180000 fe:00 42                         /usr/bin/a b
Anonymous:            64 kB
555550190000-555550191000 rw-p 00190000 fe:00 42                         /usr/bin/a b
Anonymous:             0 kB
555550200000-555550210000 r-xp 00000000 fe:00 43                         /usr/bin/a
Anonymous:             0 kB
7ffff0000000-7ffff0100000 rw-p 00000000 00:00 0
Anonymous:           100 kB
7ffff0200000-7ffff0300000 r--p 00000000 00:00 0                          [vvar]
";

    #[test]
    fn what_is_as_in_the_file() {
        let found = unchanged(SMAPS, "/usr/bin/a b");
        assert_eq!(found, [(0x5555_5000_0000, 0x10_0000), (0x5555_5010_0000, 0x8_0000)]);
        assert_eq!(unchanged("", "/usr/bin/a b"), []);
        assert_eq!(unchanged("5-4 r-xp 0 fe:00 42 /x\nAnonymous: 0 kB\n", "/x"), []);
    }

    /// KiB of the program's file that are resident.
    fn resident() -> u64 {
        let file = std::fs::read_link("/proc/self/exe").unwrap();
        let (mut inside, mut sum) = (false, 0);
        for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
            if let Some(range) = header(line) {
                inside = range.is_some_and(|(_, _, path)| path == file.to_string_lossy());
            } else if let Some(size) = line.strip_prefix("Rss:").filter(|_| inside) {
                sum += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            }
        }
        sum
    }

    #[test]
    fn less_is_resident_and_all_goes_on() {
        let program = Program::of_this_process();
        assert!(!program.0.is_empty());
        let before = resident();
        program.let_go();
        let after = resident();
        assert!(after < before, "{before} KiB, then {after}");
        assert_eq!("it runs".replace("runs", "goes on"), "it goes on");
    }
}
