//! Files that somebody else wrote.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use picket_agent_spool::{Options, Spool, newest_segment};
use picket_artifact::{Evidence, Manifest, Need, Policy, PrivateKey, Subject};

/// A manifest as TOML, alone and within a component.
pub fn manifest(bytes: &[u8]) {
    let _ = Manifest::<Need>::parse(bytes);
    let _ = picket_artifact::manifest_bytes(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(whole) = picket_artifact::embed(b"\0asm\x0d\0\x01\0", text)
    {
        let found = picket_artifact::manifest_bytes(&whole).expect("what was embedded is read");
        assert_eq!(found, Some(bytes));
    }
}

/// What lies beside a plugin: our envelope, and a sigstore bundle.
pub fn signature(bytes: &[u8]) {
    thread_local! {
        static POLICY: Policy = Policy::of_key("one", PrivateKey::generate().expect("a key").public());
    }
    for evidence in [
        Evidence { signature: Some(bytes.to_vec()), bundle: None },
        Evidence { signature: None, bundle: Some(bytes.to_vec()) },
    ] {
        let subject = Subject { configured: None, bytes: b"\0asm\x0d\0\x01\0", evidence: &evidence };
        let judged = POLICY.with(|policy| policy.judge(subject));
        assert!(judged.is_err(), "nobody has that key, and it was trusted");
    }
}

/// A scenario of the simulated driver.
pub fn nvml_scenario(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    fake_nvml::try_scenario(text, SystemTime::UNIX_EPOCH + Duration::from_secs(1));
}

const SEGMENT_HEAD: usize = 52;
const FRAME_HEAD: usize = 36;

/// A segment of the spool, with checksums that are right where they can be: else nothing behind them were ever reached.
pub fn spool(bytes: &[u8]) {
    thread_local! {
        static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    let mut segment = bytes.to_vec();
    mend(&mut segment);
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
        });
        let file = folder.path().join("seg-00000000000000000001.spool");
        std::fs::write(&file, &segment).expect("written");
        let mut records = 0u64;
        let _ = newest_segment(folder.path(), |_| records += 1);
        assert!(records <= segment.len() as u64, "more records than bytes");
        let options = Options {
            dir: folder.path().to_owned(),
            max_bytes: 1 << 20,
            max_age: Duration::from_secs(3600),
            segment_bytes: 64 << 10,
            queue_bytes: 1 << 20,
        };
        if let Ok(spool) = Spool::open(options, 7) {
            let stats = spool.stats();
            assert!(stats.records_pending <= segment.len() as u64, "{stats:?}");
            let _ = spool.close();
        }
        for entry in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    });
}

fn mend(segment: &mut [u8]) {
    let u32_at = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes) as usize
    };
    if segment.len() < SEGMENT_HEAD {
        return;
    }
    segment[..8].copy_from_slice(b"PKSPOOL1");
    let stored = u32_at(segment, 36).min(segment.len() - SEGMENT_HEAD);
    let sum = crc32fast::hash(&segment[SEGMENT_HEAD..SEGMENT_HEAD + stored]);
    segment[44..48].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&segment[..48]);
    segment[48..52].copy_from_slice(&sum.to_le_bytes());
    let mut at = SEGMENT_HEAD + stored;
    while at + FRAME_HEAD <= segment.len() {
        let stored = u32_at(segment, at).min(segment.len() - at - FRAME_HEAD);
        let body = at + FRAME_HEAD;
        // Each fourth stays as it is: damage is what recovery is for.
        if segment[at + 8] & 3 != 3 {
            let sum = crc32fast::hash(&segment[body..body + stored]);
            segment[at + 24..at + 28].copy_from_slice(&sum.to_le_bytes());
            let sum = crc32fast::hash(&segment[at..at + 32]);
            segment[at + 32..at + 36].copy_from_slice(&sum.to_le_bytes());
        }
        at = body + stored;
    }
}
