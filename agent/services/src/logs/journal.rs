//! The systemd journal, by `journalctl --output=json --follow`.
//!
//! journalctl and not a reader of our own: the files' format has grown by flags (compact, keyed hashes, three
//! compressions) with each systemd, and the program that came with the journal knows them all. It runs with a fixed list
//! of arguments and an empty environment. Its output waits in the pipe while nobody reads, so it costs nothing then.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::queue::{Entry, Queue};

const PROGRAMS: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
/// Entries between the program and a reading.
const QUEUE: usize = 256;
/// The longest entry; what is longer is cut.
const MAX_ENTRY: u64 = 256 << 10;
/// What is taken out of the pipe beforehand, in bytes.
const AHEAD: usize = 512 << 10;
/// After the program has ended.
const AGAIN: Duration = Duration::from_secs(5);

/// What is asked of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Checked names of units; `*` among them: all.
    pub units: Vec<String>,
    /// None: the system's own journal.
    pub folder: Option<String>,
}

#[derive(Debug)]
pub(super) struct Journal {
    asked: Asked,
    /// Its states are `after CURSOR` or `since MICROSECONDS`.
    pub queue: Queue,
    running: Option<Running>,
    again: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    output: Receiver<Vec<u8>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Journal {
    /// `state`: what [`Queue::prepare`] gave once; none: from the end, or from the beginning.
    pub fn new(asked: Asked, state: Option<String>, from_the_end: bool) -> Self {
        let fresh = state.is_none();
        let state = state.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
            format!("since {}", if from_the_end { since } else { 0 })
        });
        Self { asked, queue: Queue::new(state, fresh), running: None, again: None }
    }

    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Entries, a line of JSON each, and how long the first of them has been held back.
    ///
    /// # Errors
    /// Why there are none, for a person.
    pub fn read(&mut self, now: Instant, most: usize) -> Result<Option<(Vec<u8>, Duration)>, String> {
        let trouble = self.fill(now);
        match self.queue.read(now, most) {
            None => trouble.map(|()| None),
            lines => Ok(lines),
        }
    }

    fn fill(&mut self, now: Instant) -> Result<(), String> {
        if self.running.is_none() {
            if self.again.is_some_and(|again| now < again) {
                return Ok(());
            }
            self.again = Some(now + AGAIN);
            self.running = Some(start(&self.asked, self.queue.reached())?);
        }
        while self.queue.bytes() < AHEAD {
            let Some(running) = &mut self.running else { break };
            match running.output.try_recv() {
                Ok(line) => {
                    let state = cursor(&line).map(|cursor| format!("after {cursor}"));
                    self.queue.push(Entry { line, state });
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    let why = complaint(&mut running.child);
                    self.running = None;
                    self.again = Some(now + AGAIN);
                    return Err(format!("journalctl ended: {why}; it is started again"));
                }
            }
        }
        Ok(())
    }
}

fn start(asked: &Asked, state: &str) -> Result<Running, String> {
    let program = PROGRAMS
        .into_iter()
        .find(|program| Path::new(program).is_file())
        .ok_or("there is no journalctl on this system")?;
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C");
    command.args(["--output=json", "--follow", "--no-tail", "--all", "--no-pager", "--quiet"]);
    if let Some(folder) = &asked.folder {
        command.arg(format!("--directory={folder}"));
    }
    if !asked.units.iter().any(|unit| unit == "*") {
        command.args(asked.units.iter().map(|unit| format!("--unit={unit}")));
    }
    match state.split_once(' ') {
        Some(("after", cursor)) => command.arg(format!("--after-cursor={cursor}")),
        Some(("since", micros)) => {
            let micros: u64 = micros.parse().unwrap_or(0);
            command.arg(format!("--since=@{}.{:06}", micros / 1_000_000, micros % 1_000_000))
        }
        _ => &mut command,
    };
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| format!("{program} cannot be started: {e}"))?;
    let output = child.stdout.take().ok_or("journalctl has no output")?;
    let (sender, receiver) = sync_channel(QUEUE);
    let reading = std::thread::Builder::new().name("picket-journal".into()).spawn(move || {
        let mut output = BufReader::new(output);
        loop {
            let mut line = Vec::new();
            match output.by_ref().take(MAX_ENTRY).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if !line.ends_with(b"\n") {
                line.push(b'\n');
                // The rest of an entry that is too long.
                if output.skip_until(b'\n').is_err() {
                    return;
                }
            }
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    match reading {
        Ok(_) => Ok(Running { child, output: receiver }),
        Err(e) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("no thread for journalctl's output: {e}"))
        }
    }
}

/// How it ended, in its own words where it has some.
fn complaint(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What is not UTF-8 is not worth telling.
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    let status = child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
    if text.trim().is_empty() { status } else { format!("{status}: {}", text.trim()) }
}

/// The cursor of an entry. The same words within a message have escaped quotes there.
fn cursor(line: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\"__CURSOR\":\"";
    let at = line.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let rest = line.get(at..)?;
    let end = rest.iter().position(|b| *b == b'"')?;
    let cursor = std::str::from_utf8(rest.get(..end)?).ok()?;
    let usable = cursor.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b';' | b'-'));
    (usable && !cursor.is_empty() && cursor.len() < 512).then(|| cursor.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_entries(count: usize) -> Journal {
        let asked = Asked { units: vec!["*".into()], folder: None };
        let mut journal = Journal::new(asked, Some("after s=0".into()), true);
        // Nothing is started in this test.
        journal.again = Some(Instant::now() + Duration::from_secs(3600));
        for number in 0..count {
            let line =
                format!("{{\"__CURSOR\":\"s=a;i={number:x}\",\"MESSAGE\":\"m{number}\"}}\n").into_bytes();
            let state = cursor(&line).map(|cursor| format!("after {cursor}"));
            journal.queue.push(Entry { line, state });
        }
        journal
    }

    #[test]
    fn what_is_not_committed_comes_again() {
        let (mut journal, now) = (with_entries(3), Instant::now());
        let (all, _) = journal.read(now, 1 << 20).unwrap().unwrap();
        assert_eq!(journal.read(now, 1 << 20), Ok(None));
        journal.queue.rewind();
        let (again, waited) = journal.read(now, 1 << 20).unwrap().unwrap();
        assert_eq!((again.len(), waited), (all.len(), Duration::ZERO));
        // The last entry is held back.
        let last = all.split_inclusive(|b| *b == b'\n').next_back().unwrap().len() as u64;
        assert_eq!(journal.queue.prepare(last).as_deref(), Some("after s=a;i=1"));
        assert_eq!(journal.queue.commit(now) as usize, all.len() - last as usize);
        let later = now + Duration::from_secs(2);
        let (rest, waited) = journal.read(later, 1 << 20).unwrap().unwrap();
        assert_eq!((rest.len() as u64, waited), (last, Duration::from_secs(2)));
        assert_eq!(journal.queue.prepare(0).as_deref(), Some("after s=a;i=2"));
        journal.queue.commit(later);
        assert_eq!((journal.read(later, 1 << 20), journal.queue.bytes()), (Ok(None), 0));
        assert_eq!(journal.queue.prepare(0), None);
    }

    #[test]
    fn only_plain_cursors_are_believed() {
        for (line, expected) in [
            (r#"{"__CURSOR":"s=1;i=2;b=3","MESSAGE":"x"}"#, Some("s=1;i=2;b=3")),
            (r#"{"MESSAGE":"x"}"#, None),
            (r#"{"__CURSOR":"--x y"}"#, None),
            (r#"{"__CURSOR":"s=1"#, None),
        ] {
            assert_eq!(cursor(line.as_bytes()).as_deref(), expected, "{line}");
        }
    }
}
