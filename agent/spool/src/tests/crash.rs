//! A crash before each operation that changes the disk, and what is found after it.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use super::disk::Faulty;
use super::*;
use crate::state::{CAP, CORRUPT};

const KIB: u64 = 1024;

/// What a run that was cut off knows for sure.
struct Known {
    durable: BTreeSet<(u64, u64)>,
    acked: u64,
}

/// Two lives that append, acknowledge and close, until the disk says no.
fn run(disk: &Arc<Faulty>, max_bytes: u64) -> Known {
    let mut known = Known { durable: BTreeSet::new(), acked: 0 };
    for life in [1, 2] {
        let spool = open(disk, options(max_bytes, 4 * KIB), life);
        for number in 1..=24 {
            let Ok(ticket) = spool.append(&record(life, number, 600), || header(number)) else {
                return known;
            };
            let durable = block_on(async {
                tokio::select! {
                    result = ticket.durable() => result.is_ok(),
                    () = async { while !disk.crashed() { tokio::time::sleep(Duration::from_millis(1)).await } } => false,
                }
            });
            if !durable {
                return known;
            }
            known.durable.insert((life, number));
            if life == 1 && number % 9 == 0 {
                spool.ack(1, number - 4);
                known.acked = number - 4;
            }
        }
        let _ = spool.close();
    }
    known
}

fn check(max_bytes: u64) {
    let whole = Arc::<Faulty>::default();
    run(&whole, max_bytes);
    let operations = whole.operations();
    assert!(operations > 100);
    for at in 0..operations {
        let disk = Arc::<Faulty>::default();
        disk.crash_after(at);
        let known = run(&disk, max_bytes);
        for luck in [0, 1, 2, 103, 128, 254, 255] {
            let after = Arc::new(disk.after_crash(luck));
            let spool = open(&after, options(max_bytes, 4 * KIB), 3);
            let items = drain(&spool);
            let found: BTreeSet<_> = items.iter().map(|item| (item.life, item.sequence)).collect();
            let order: Vec<_> = items.iter().map(|item| (item.life, item.sequence)).collect();
            assert!(order.is_sorted() && found.len() == order.len(), "{at}, {luck}: {order:?}");
            assert!(items.iter().all(|item| item.bytes == record(item.life, item.sequence, 600)));
            let missing: Vec<_> = known
                .durable
                .difference(&found)
                .filter(|&&(life, sequence)| life != 1 || sequence > known.acked)
                .collect();
            let stats = spool.stats();
            let lost = stats.lost.get(CAP).copied().unwrap_or(0);
            assert_eq!(lost, missing.len() as u64, "{at}, {luck}: {missing:?}, {stats:?}");
            // At most the write that was cut off.
            assert!(stats.lost.get(CORRUPT).is_none_or(|&records| records <= 1), "{at}, {luck}: {stats:?}");
            // And it goes on.
            append(&spool, 3, 600);
            assert_eq!(drain(&spool).last().map(|item| (item.life, item.sequence)), Some((3, 1)));
        }
    }
}

#[test]
fn nothing_durable_is_lost_wherever_it_crashes() {
    check(1 << 20);
}

#[test]
fn losses_at_the_cap_are_counted_exactly_wherever_it_crashes() {
    check(16 * KIB);
}

#[test]
fn a_crash_brings_back_nothing_that_was_acknowledged() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(24 * KIB, 4 * KIB), 1);
    for _ in 0..34 {
        append(&spool, 1, 600);
    }
    let full = spool.stats();
    spool.ack(1, 6);
    until(&spool, "one segment less", |stats| stats.segments < full.segments);
    append(&spool, 1, 600);
    // The folder as it was made durable last, not as programs saw it.
    let after = Arc::new(disk.after_crash(0));
    let spool = open(&after, options(24 * KIB, 4 * KIB), 2);
    let stats = spool.stats();
    assert!(stats.bytes <= 24 * KIB && stats.segments == full.segments - 1, "{full:?}, then {stats:?}");
    assert_eq!(stats.lost, full.lost);
    assert_eq!(sequences(&drain(&spool), 1), (7..=35).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_cannot_be_read_now_is_left_to_the_next_process() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(64 * KIB, 4 * KIB), 1);
    for _ in 0..12 {
        append(&spool, 1, 600);
    }
    spool.close().unwrap();
    disk.refuse_reads(Some(std::io::ErrorKind::PermissionDenied));
    let unable = open(&disk, options(64 * KIB, 4 * KIB), 2);
    for _ in 0..12 {
        append(&unable, 2, 600);
    }
    unable.ack(2, 12);
    until(&unable, "all but the last acknowledged and gone", |stats| stats.segments == 1);
    unable.close().unwrap();
    disk.refuse_reads(None);
    let again = open(&disk, options(64 * KIB, 4 * KIB), 3);
    assert_eq!(sequences(&drain(&again), 1), (1..=12).collect::<Vec<_>>());
}

/// The child of the test below: appends for ever and says what is durable.
#[test]
#[ignore = "run by the_process_is_killed_again_and_again"]
#[allow(clippy::disallowed_methods)]
fn child() {
    let Ok(dir) = std::env::var("PICKET_SPOOL_TEST_DIR") else { return };
    let life = std::env::var("PICKET_SPOOL_TEST_LIFE").unwrap().parse().unwrap();
    let options = Options { dir: dir.into(), ..options(64 << 20, 16 * KIB) };
    let spool = Spool::open(options, life).unwrap();
    use std::io::Write as _;
    for number in 1..100_000 {
        let ticket = spool.append(&record(life, number, 900), || header(number)).unwrap();
        block_on(ticket.durable()).unwrap();
        writeln!(std::io::stderr(), "durable {number}").unwrap();
    }
}

#[test]
fn the_process_is_killed_again_and_again() {
    use std::io::{BufRead as _, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut durable = Vec::new();
    for life in 1..=12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "tests::crash::child", "--nocapture"])
            .env("PICKET_SPOOL_TEST_DIR", dir.path())
            .env("PICKET_SPOOL_TEST_LIFE", life.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last = 0;
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(number) = line.strip_prefix("durable ") {
                last = number.parse().unwrap();
            }
            if last >= 5 + life * 7 % 23 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(last > 0, "the child of life {life} never wrote");
        durable.push((life, last));
    }
    let spool =
        Spool::open(Options { dir: dir.path().to_owned(), ..options(64 << 20, 16 * KIB) }, 99).unwrap();
    let items = drain(&spool);
    for (life, last) in durable {
        let found = sequences(&items, life);
        assert!(found.len() as u64 >= last, "life {life}: {last} were durable, {} are there", found.len());
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
    }
    assert!(items.iter().all(|item| item.bytes == record(item.life, item.sequence, 900)));
    assert!(spool.stats().lost.is_empty(), "{:?}", spool.stats());
}
