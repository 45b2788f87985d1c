//! One fault a test, and what must be true after it.

use super::disk::Faulty;
use super::*;
use crate::SpoolError;
use crate::state::{AGE, CAP, CORRUPT, STALL, WRITE_ERROR};

const KIB: u64 = 1024;

#[test]
fn what_is_appended_is_read() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 4 * KIB), 7);
    for number in 1..=20 {
        assert_eq!(append(&spool, 7, 700), number);
    }
    let items = drain(&spool);
    assert_eq!(sequences(&items, 7), (1..=20).collect::<Vec<_>>());
    for item in &items {
        assert_eq!(item.bytes, record(7, item.sequence, 700));
    }
    // A segment holds five of them.
    let headers: Vec<u64> =
        items.iter().filter(|item| item.header.is_some()).map(|item| item.sequence).collect();
    assert_eq!(headers, [1, 6, 11, 16]);
    assert!(items.iter().all(|item| item.header.as_ref().is_none_or(|h| **h == header(item.sequence))));
    let stats = spool.stats();
    assert_eq!((stats.appended, stats.acked, stats.records_pending, stats.segments), (20, 0, 20, 4));
    assert!(stats.lost.is_empty() && stats.durable && stats.last_error.is_none());

    spool.ack(7, 12);
    let stats = until(&spool, "two segments removed", |stats| stats.segments == 2);
    assert_eq!((stats.acked, stats.records_pending), (12, 8));
    // Counted out first, then removed.
    until(&spool, "their files removed", |_| disk.segments().len() == 2);
    // The segment of the oldest record that is left comes whole.
    assert_eq!(sequences(&drain(&spool), 7), (11..=20).collect::<Vec<_>>());
    spool.ack(7, 5);
    assert_eq!(spool.stats().acked, 12);
    spool.close().unwrap();
    spool.close().unwrap();
    assert!(matches!(spool.append(b"x", Vec::new), Err(SpoolError::Closed)));
}

#[test]
fn a_reader_waits_and_may_be_dropped_at_any_time() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 8 * KIB), 7);
    block_on(async {
        let mut reader = spool.reader();
        let mut seen = Vec::new();
        for number in 1..=60_u64 {
            let ticket = spool.append(&record(7, number, 300), || header(number)).unwrap();
            // Polled and dropped, over and over.
            for _ in 0..number % 5 {
                tokio::select! {
                    biased;
                    item = reader.next() => seen.push(item.sequence),
                    () = tokio::task::yield_now() => {}
                }
            }
            if number % 7 == 0 {
                ticket.durable().await.unwrap();
            }
        }
        let left = 60 - seen.len();
        seen.extend(take(&mut reader, left).await.iter().map(|item| item.sequence));
        assert_eq!(seen, (1..=60).collect::<Vec<_>>());
    });
}

#[test]
fn what_is_not_durable_is_not_read() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 8 * KIB), 7);
    append(&spool, 7, 100);
    disk.refuse(Some(std::io::ErrorKind::Other));
    let ticket = spool.append(&record(7, 2, 100), || header(2)).unwrap();
    until(&spool, "in error", |stats| stats.last_error.is_some());
    assert_eq!(sequences(&drain(&spool), 7), [1]);
    assert_eq!(spool.stats().records_pending, 2);
    disk.refuse(None);
    block_on(ticket.durable()).unwrap();
    assert_eq!(sequences(&drain(&spool), 7), [1, 2]);
    assert_eq!(spool.stats().last_error, None);
}

#[test]
fn lives_are_replayed_oldest_first_and_their_position_is_kept() {
    let disk = Arc::<Faulty>::default();
    for life in [30, 10, 20] {
        let spool = open(&disk, options(1 << 20, 4 * KIB), life);
        for _ in 0..9 {
            append(&spool, life, 700);
        }
        if life == 30 {
            spool.ack(30, 6);
        }
        spool.close().unwrap();
    }
    let spool = open(&disk, options(1 << 20, 4 * KIB), 40);
    let items = drain(&spool);
    let mut lives: Vec<u64> = items.iter().map(|item| item.life).collect();
    lives.dedup();
    assert_eq!(lives, [30, 10, 20]);
    assert_eq!(sequences(&items, 30), [6, 7, 8, 9]);
    assert_eq!(spool.stats().records_pending, 3 + 9 + 9);
    for life in [30, 10, 20] {
        spool.ack(life, 9);
    }
    until(&spool, "empty", |stats| stats.segments == 0);
    assert_eq!(append(&spool, 40, 10), 1);
}

#[test]
fn the_cap_drops_the_oldest_and_counts_what_was_not_acknowledged() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(16 * KIB, 4 * KIB), 7);
    for number in 1..=12 {
        append(&spool, 7, 700);
        if number == 3 {
            spool.ack(7, 3);
        }
    }
    for _ in 13..=40 {
        append(&spool, 7, 700);
        assert!(spool.stats().bytes <= 16 * KIB);
    }
    let items = drain(&spool);
    let lost = spool.stats().lost[CAP];
    assert_eq!(items.first().unwrap().sequence, 3 + lost + 1);
    assert_eq!(sequences(&items, 7).last(), Some(&40));
    assert_eq!(spool.stats().records_pending, 40 - 3 - lost);
    spool.close().unwrap();
    drop(spool);
    let spool = open(&disk, options(16 * KIB, 4 * KIB), 8);
    assert_eq!(spool.stats().lost[CAP], lost);
    assert_eq!(drain(&spool), items);
}

#[test]
fn what_is_too_old_goes() {
    let disk = Arc::<Faulty>::default();
    let clock = Arc::<Hand>::default();
    let day = Duration::from_secs(24 * 3600);
    let spool = open_at(&disk, Arc::clone(&clock), options(1 << 20, 4 * KIB), 7);
    for _ in 0..5 {
        append(&spool, 7, 700);
    }
    // A clock that is set does not make a record old.
    clock.step(10 * day.as_millis() as i64);
    clock.forward(2 * day);
    for _ in 0..6 {
        append(&spool, 7, 700);
    }
    assert!(spool.stats().lost.is_empty());
    clock.step(-20 * day.as_millis() as i64);
    clock.forward(2 * day);
    append(&spool, 7, 10);
    let stats = until(&spool, "dropped", |stats| !stats.lost.is_empty());
    assert_eq!(stats.lost, [(AGE, 5)].into());
    assert_eq!(sequences(&drain(&spool), 7), (6..=12).collect::<Vec<_>>());
    spool.close().unwrap();
}

#[test]
fn a_full_disk_costs_the_oldest_and_is_survived() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 4 * KIB), 7);
    for _ in 0..20 {
        append(&spool, 7, 700);
    }
    disk.capacity(Some(disk.segments().iter().map(|name| disk.read(name).len()).sum()));
    for _ in 20..40 {
        append(&spool, 7, 700);
    }
    let items = drain(&spool);
    let lost = spool.stats().lost[CAP];
    assert_eq!(sequences(&items, 7), (lost + 1..=40).collect::<Vec<_>>());
    assert!((20..=30).contains(&lost), "{lost}");

    // Someone else takes all of it: nothing is left to drop.
    disk.capacity(Some(0));
    let mut tickets = Vec::new();
    loop {
        match spool.append(&record(7, 0, 4000), || header(0)) {
            Ok(ticket) => tickets.push(ticket),
            Err(SpoolError::Full { why, .. }) if why.is_some() => break,
            Err(SpoolError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(spool.stats().lost[WRITE_ERROR] >= 1);
    disk.capacity(None);
    for ticket in tickets {
        block_on(ticket.durable()).unwrap();
    }
    spool.append(b"again", Vec::new).unwrap();
    spool.close().unwrap();
    assert_eq!(spool.stats().last_error, None);
}

#[test]
fn a_disk_that_hangs_blocks_nobody() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 64 * KIB), 7);
    append(&spool, 7, 10);
    disk.hang(true);
    let began = Instant::now();
    let (mut taken, mut refused) = (Vec::new(), 0);
    for number in 0..200 {
        match spool.append(&record(7, number, 1000), || header(number)) {
            Ok(ticket) => taken.push(ticket),
            Err(SpoolError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    spool.ack(7, 1);
    let stats = spool.stats();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!((60..=66).contains(&taken.len()), "{}", taken.len());
    assert_eq!(stats.lost, [(STALL, refused)].into());
    assert_eq!(stats.records_pending, taken.len() as u64);
    disk.hang(false);
    for ticket in taken {
        block_on(ticket.durable()).unwrap();
    }
    append(&spool, 7, 10);
}

#[test]
fn damage_is_skipped_and_counted_once() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 4 * KIB), 7);
    for _ in 0..15 {
        append(&spool, 7, 700);
    }
    spool.close().unwrap();
    drop(spool);
    let names = disk.segments();
    // In the second record of the first segment, and in the head of the second.
    disk.change(&names[0], |bytes| bytes[1000] ^= 1);
    disk.change(&names[1], |bytes| bytes[9] ^= 1);
    disk.put("seg-notes.txt", b"mine");
    disk.put("seg-00000000000000000099.spool.bak", b"mine");
    for life in 8..11 {
        let spool = open(&disk, options(1 << 20, 4 * KIB), life);
        assert_eq!(sequences(&drain(&spool), 7), [1, 11, 12, 13, 14, 15]);
        let stats = spool.stats();
        assert_eq!(stats.lost, [(CORRUPT, 4 + 5)].into());
        assert_eq!(stats.records_pending, 6);
        spool.close().unwrap();
    }
    assert_eq!(disk.read("seg-notes.txt"), b"mine");
    assert_eq!(disk.read("seg-00000000000000000099.spool.bak"), b"mine");
}

#[test]
fn damage_found_while_reading_is_skipped_and_counted_once() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 4 * KIB), 7);
    for _ in 0..12 {
        append(&spool, 7, 700);
    }
    let names = disk.segments();
    disk.change(&names[0], |bytes| bytes[1000] ^= 1);
    disk.delete(&names[1]);
    // The one that is written to.
    disk.change(&names[2], |bytes| bytes[1000] ^= 1);
    for _ in 0..3 {
        assert_eq!(sequences(&drain(&spool), 7), [1, 11]);
        assert_eq!(spool.stats().lost, [(CORRUPT, 4 + 5 + 1)].into());
    }
    // What comes after is safe in a segment of its own.
    append(&spool, 7, 700);
    assert_eq!(sequences(&drain(&spool), 7), [1, 11, 13]);
    spool.close().unwrap();
    drop(spool);
    let spool = open(&disk, options(1 << 20, 4 * KIB), 8);
    assert_eq!(sequences(&drain(&spool), 7), [1, 11, 13]);
    assert_eq!(spool.stats().lost, [(CORRUPT, 4 + 5 + 1)].into());
}

#[test]
fn reading_that_fails_for_good_is_damage_too() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 4 * KIB), 7);
    for _ in 0..7 {
        append(&spool, 7, 700);
    }
    disk.refuse_reads(Some(std::io::ErrorKind::Other));
    let mut reader = spool.reader();
    block_on(async {
        let seen = tokio::select! {
            item = reader.next() => Some(item),
            () = async { until_async(&spool, |stats| stats.lost.get(CORRUPT) == Some(&7)).await } => None,
        };
        assert_eq!(seen, None);
        disk.refuse_reads(None);
        let ticket = spool.append(&record(7, 8, 10), || header(8)).unwrap();
        ticket.durable().await.unwrap();
        assert_eq!(reader.next().await.sequence, 8);
    });
}

async fn until_async(spool: &Spool, met: impl Fn(&Stats) -> bool) {
    while !met(&spool.stats()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn refusals_say_why() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(64 * KIB, 4 * KIB), 7);
    let error = spool.append(&[0; 20 << 10], Vec::new).unwrap_err();
    assert!(matches!(error, SpoolError::TooLarge { bytes: 20480, max: 16384 }), "{error}");
    assert_eq!(spool.stats().lost, [(WRITE_ERROR, 1)].into());
    let error = Spool::start(disk, Arc::<Hand>::default(), options(1, 1), 1, true).map(|_| ()).unwrap_err();
    assert!(matches!(error, SpoolError::Options { .. }), "{error}");
}

#[test]
fn a_folder_belongs_to_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options { dir: dir.path().join("a/b"), ..options(1 << 20, 4 * KIB) };
    let spool = Spool::open(options(), 1).unwrap();
    for _ in 0..8 {
        append(&spool, 1, 700);
    }
    let error = Spool::open(options(), 2).map(|_| ()).unwrap_err();
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    spool.close().unwrap();
    drop(spool);
    // The writer lets go of it just after it has closed.
    let deadline = Instant::now() + DEADLINE;
    let spool = loop {
        match Spool::open(options(), 2) {
            Ok(spool) => break spool,
            Err(SpoolError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(sequences(&drain(&spool), 1), (1..=8).collect::<Vec<_>>());
}

#[test]
fn in_memory_is_the_same_but_not_durable() {
    let spool = Spool::in_memory(64 * KIB, 5);
    for _ in 0..200 {
        append(&spool, 5, 700);
    }
    let stats = spool.stats();
    assert!(!stats.durable && stats.bytes <= 64 * KIB);
    let items = drain(&spool);
    assert_eq!(items.len() as u64 + stats.lost[CAP], 200);
    spool.ack(5, 200);
    until(&spool, "acknowledged", |stats| stats.records_pending == 0 && stats.segments <= 1);
}

#[test]
fn records_that_repeat_are_stored_small() {
    let disk = Arc::<Faulty>::default();
    let spool = open(&disk, options(1 << 20, 256 * KIB), 7);
    let tickets: Vec<_> = (0..50).map(|_| spool.append(&[7; 1000], Vec::new).unwrap()).collect();
    for ticket in tickets {
        block_on(ticket.durable()).unwrap();
    }
    assert!(spool.stats().bytes < 5000, "{:?}", spool.stats());
    assert!(drain(&spool).iter().all(|item| *item.bytes == [7; 1000]));
}
