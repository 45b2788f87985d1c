//! With a pipe in the device's place, and with the real one.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::grants::Granted;

fn filter(words: &[&str]) -> Filter {
    let scope = Scope { containing: words.iter().map(|w| (*w).to_owned()).collect() };
    Scope::compile(&[&scope]).unwrap()
}

fn plugin(id: &str) -> PluginId {
    PluginId::new(id).unwrap()
}

fn read(after: Option<&str>, most: u32) -> Request {
    Request::Read { after: after.map(str::to_owned), most }
}

struct Pipe {
    _folder: tempfile::TempDir,
    path: PathBuf,
    file: std::fs::File,
}

impl Pipe {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kmsg");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .unwrap();
        let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        Self { _folder: folder, path, file }
    }

    fn write(&mut self, sequence: u64, text: &str) {
        writeln!(self.file, "3,{sequence},{},-;{text}\n SUBSYSTEM=pci", sequence * 1000).unwrap();
    }

    fn kmsg(&self, wakes: &Wakes) -> Kmsg {
        Kmsg::new(Options { path: self.path.clone(), again: Duration::from_millis(20) }, wakes.clone())
    }
}

async fn until(kmsg: &Kmsg, who: &PluginId, filter: &Filter, after: Option<&str>, count: usize) -> Answer {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let page = kmsg.call(who, filter, read(after, 100)).await.unwrap();
        if page.messages.len() >= count {
            return page;
        }
        assert!(tokio::time::Instant::now() < deadline, "{page:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbers(answer: &Answer) -> Vec<u64> {
    answer.messages.iter().map(|m| m.sequence).collect()
}

#[tokio::test]
async fn only_what_is_granted_is_seen_and_wakes() {
    let wakes = Wakes::default();
    let mut pipe = Pipe::new();
    pipe.write(1, "NVRM: Xid (PCI:0000:1b:00): 79, GPU has fallen off the bus");
    pipe.write(2, "a secret of another program");
    let kmsg = pipe.kmsg(&wakes);
    let (gpu, other) = (plugin("gpu"), plugin("other"));
    let (xid, aer) = (filter(&["NVRM: Xid"]), filter(&["AER"]));
    let (woken, unwoken) = (wakes.of(&gpu), wakes.of(&other));
    let first = kmsg.call(&gpu, &xid, read(None, 10)).await.unwrap();
    assert_eq!(numbers(&first), [1]);
    assert_eq!((first.messages[0].priority, first.messages[0].facility), (3, 0));
    assert_eq!(kmsg.call(&other, &aer, read(None, 10)).await.unwrap().messages, []);

    pipe.write(3, "NVRM: Xid (PCI:0000:1b:00): 154");
    tokio::time::timeout(Duration::from_secs(10), woken.notified()).await.expect("no wake");
    let second = kmsg.call(&gpu, &xid, read(Some(&first.cursor), 10)).await.unwrap();
    assert_eq!((numbers(&second), second.lost, second.more), (vec![3], 0, false));
    let wait = tokio::time::timeout(Duration::from_millis(50), unwoken.notified()).await;
    assert!(wait.is_err(), "woken for a message that it may not see");
}

#[tokio::test]
async fn a_cursor_outlives_the_agent_and_what_was_overwritten_is_counted() {
    let wakes = Wakes::default();
    let (id, all) = (plugin("a"), filter(&["*"]));
    let mut pipe = Pipe::new();
    pipe.write(10, "a");
    pipe.write(11, "b");
    let cursor = until(&pipe.kmsg(&wakes), &id, &all, None, 2).await.cursor;
    // The next agent finds that the kernel holds 15 and later.
    let mut pipe = Pipe::new();
    pipe.write(15, "c");
    pipe.write(16, "d");
    let kmsg = pipe.kmsg(&wakes);
    let page = until(&kmsg, &id, &all, Some(&cursor), 2).await;
    assert_eq!((numbers(&page), page.lost), (vec![15, 16], 3));
    // Another boot's: from the oldest that is held, nothing is said to be lost.
    let other = "00000000-0000-0000-0000-000000000000:900";
    let page = kmsg.call(&id, &all, read(Some(other), 100)).await.unwrap();
    assert_eq!((numbers(&page), page.lost), (vec![15, 16], 0));
    for wrong in ["", "x", "1:2", &cursor.replace(':', ";"), &format!("{cursor}0x")] {
        let error = kmsg.call(&id, &all, read(Some(wrong), 1)).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{wrong:?}: {error}");
    }
}

#[tokio::test]
async fn pages_are_bounded() {
    let wakes = Wakes::default();
    let (id, all) = (plugin("a"), filter(&["*"]));
    let mut pipe = Pipe::new();
    for sequence in 1..=600 {
        pipe.write(sequence, "x");
    }
    let kmsg = pipe.kmsg(&wakes);
    let (mut cursor, mut seen) = (None, Vec::new());
    for _ in 0..100 {
        let page = kmsg.call(&id, &all, read(cursor.as_deref(), u32::MAX)).await.unwrap();
        assert!(page.messages.len() <= PAGE);
        seen.extend(numbers(&page));
        cursor = Some(page.cursor);
        if seen.len() >= 600 {
            break;
        }
    }
    assert_eq!(seen, (1..=600).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_cannot_be_read_says_what_to_do_and_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    let options = Options { path: path.clone(), again: Duration::from_millis(20) };
    let kmsg = Kmsg::new(options, Wakes::default());
    let (id, all) = (plugin("a"), filter(&["*"]));
    let error = kmsg.call(&id, &all, read(None, 1)).await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(why) if why.contains("--device /dev/kmsg")), "{error}");

    std::fs::write(&path, "").unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let error = kmsg.call(&id, &all, read(None, 1)).await.unwrap_err();
        if !error.to_string().contains("No such file") {
            assert!(error.to_string().contains("kmsg.path"), "{error}");
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// With the kernel's own log, where this user may write to it and the kernel keeps what users write. Everywhere else it is
/// skipped by name; once a written line can be read back, nothing of it is skipped any more.
#[tokio::test]
async fn the_real_device() {
    let mut device = match std::fs::File::options().read(true).write(true).open("/dev/kmsg") {
        Ok(device) => device,
        Err(error) => return skip("the_real_device", &format!("/dev/kmsg cannot be opened: {error}")),
    };
    let printk = std::fs::read_to_string("/proc/sys/kernel/printk_devkmsg").unwrap_or_default();
    if printk.trim() == "off" {
        return skip(
            "the_real_device",
            "the kernel drops what users write to /dev/kmsg (printk.devkmsg=off)",
        );
    }
    let mark = format!("picket test {} {}", std::process::id(), always_now());
    let wakes = Wakes::default();
    let kmsg = Kmsg::new(Options::default(), wakes.clone());
    let (id, own) = (plugin("a"), filter(&[mark.as_str()]));
    let woken = wakes.of(&id);
    let before = kmsg.call(&id, &own, read(None, 10)).await.expect("the device is open to this user");
    assert_eq!(before.messages, []);
    let began = std::time::Instant::now();
    writeln!(device, "<12>{mark}").unwrap();
    tokio::time::timeout(Duration::from_secs(10), woken.notified()).await.expect("no wake");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let page = kmsg.call(&id, &own, read(Some(&before.cursor), 10)).await.unwrap();
    let message = page.messages.first().expect("no message");
    // 12 is the facility `user` and the priority 4.
    assert_eq!((message.priority, message.facility, message.text.as_str()), (4, 1, mark.as_str()));
    let off = always_now().abs_diff(message.timestamp);
    assert!(off < 5_000, "the time is off by {off} ms");
    assert_eq!(page.lost, 0);
}

/// Said on standard error and in the list of what the whole run skipped.
fn skip(name: &str, reason: &str) {
    eprintln!("SKIPPED {name}: {reason}");
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/skipped-tests");
    if let Ok(mut list) = std::fs::File::options().create(true).append(true).open(target) {
        let _ = writeln!(list, "{name}: {reason}");
    }
}

fn always_now() -> u64 {
    crate::always::now_ns() / 1_000_000
}
