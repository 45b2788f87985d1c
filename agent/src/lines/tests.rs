use std::time::Duration;

use super::*;
use crate::config::ByteSize;
use cursors::record;

fn config(max_size: u64) -> config::Spool {
    config::Spool { max_size: ByteSize(max_size), max_age: Duration::from_secs(3600) }
}

/// As a new process: the one before has let go of the folder.
fn open(dir: &Path, life: u64, uplink: bool) -> Lines {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let lines = Lines::open(dir, &config(32 << 20), life, uplink);
        match lines.status().fallback {
            None => return lines,
            Some(why) => assert!(std::time::Instant::now() < deadline, "{why}"),
        }
        std::thread::yield_now();
    }
}

fn plugin() -> PluginId {
    PluginId::new("logs").unwrap()
}

fn found(lines: &Lines) -> Vec<(String, String)> {
    lines.restored().into_iter().map(|(_, source, cursor)| (source, cursor)).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(s, c)| ((*s).to_owned(), (*c).to_owned())).collect()
}

/// Each run begins where the last durable record of the one before ended, whatever was acknowledged meanwhile.
#[test]
fn cursors_are_found_again_over_many_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<(String, String)> = Vec::new();
    for life in 1..30u64 {
        let lines = open(dir.path(), life, true);
        assert_eq!(found(&lines), expected, "life {life}");
        // In every third run nothing is queued.
        if life % 3 == 0 {
            continue;
        }
        for step in 0..life {
            let cursor = format!("{life}.{step}");
            lines.append(&plugin(), 1, record(&["a line"], &[("one", &cursor)])).unwrap();
        }
        if life % 5 == 0 {
            lines
                .append(&plugin(), 1, record(&[], &[("two", if life % 2 == 0 { "x" } else { "" })]))
                .unwrap();
        }
        let spool = lines.spool().unwrap();
        // The aggregator holds all of it: the next start drops it at once.
        if life % 2 == 0 {
            spool.ack(life, u64::MAX);
        }
        spool.close().unwrap();
        expected = found(&Lines { shared: lines.shared.clone() });
    }
    assert!(expected.iter().any(|(source, _)| source == "one"));
}

#[test]
fn a_damaged_file_or_segment_is_no_end() {
    let dir = tempfile::tempdir().unwrap();
    let lines = open(dir.path(), 1, true);
    lines.append(&plugin(), 1, record(&["x"], &[("one", "5")])).unwrap();
    lines.spool().unwrap().close().unwrap();
    drop(lines);
    std::fs::write(dir.path().join("log-cursors"), b"PKCURS01 nonsense").unwrap();
    let lines = open(dir.path(), 2, true);
    assert_eq!(found(&lines), pairs(&[("one", "5")]));
    drop(lines);
    for entry in std::fs::read_dir(dir.path().join("log-spool")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "spool") {
            std::fs::write(path, b"nonsense").unwrap();
        }
    }
    // What the second life found stands in its file.
    assert_eq!(found(&open(dir.path(), 3, true)), pairs(&[("one", "5")]));
}

#[test]
fn standing_alone_it_counts_and_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let lines = open(dir.path(), 1, false);
    assert_eq!(lines.room(), u64::MAX);
    lines.append(&plugin(), 1, record(&["x", "yz"], &[("one", "5")])).unwrap();
    lines.save();
    let totals = lines.status().totals;
    assert_eq!(totals, [(plugin(), Totals { lines: 2, bytes: 3, unsent: 2 })]);
    assert_eq!(found(&open(dir.path(), 2, true)), pairs(&[("one", "5")]));
}

#[test]
fn a_queue_that_fills_stops_the_reading_before_it_drops() {
    let dir = tempfile::tempdir().unwrap();
    let lines = Lines::open(dir.path(), &config(2 << 20), 1, true);
    let mut noise = 1u64;
    let mut text = || -> String {
        (0..40_000)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                char::from(b' ' + (noise % 90) as u8)
            })
            .collect()
    };
    let mut taken = 0;
    while lines.room() > 0 {
        lines.append(&plugin(), 1, record(&[&text()], &[("one", "1")])).unwrap();
        taken += 1;
        assert!(taken < 200, "it never filled");
        while lines.spool().unwrap().stats().unwritten_bytes > 0 {
            std::thread::yield_now();
        }
    }
    let stats = lines.spool().unwrap().stats();
    assert!(taken > 20 && lines.status().full, "{taken} records, {stats:?}");
    assert_eq!(stats.lost.values().sum::<u64>(), 0);
    // Once the aggregator holds them, reading goes on.
    lines.spool().unwrap().ack(1, u64::MAX);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while lines.room() == 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", lines.spool().unwrap().stats());
        std::thread::yield_now();
    }
}
