mod crash;
mod disk;
mod faults;
mod model;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::spool::Clock;
use crate::{Item, Options, Reader, Spool, Stats};

/// A clock that stands until it is moved. Both times move together but for `step`.
#[derive(Default)]
struct Hand {
    elapsed: AtomicI64,
    offset: AtomicI64,
}

const BEGIN_MS: i64 = 1_700_000_000_000;

impl Hand {
    fn forward(&self, by: Duration) {
        self.elapsed.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// Someone sets the clock.
    fn step(&self, by_ms: i64) {
        self.offset.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn wall_ms(&self) -> i64 {
        BEGIN_MS + self.offset.load(Ordering::SeqCst) + self.elapsed.load(Ordering::SeqCst)
    }

    fn elapsed_ms(&self) -> i64 {
        self.elapsed.load(Ordering::SeqCst)
    }
}

fn options(max_bytes: u64, segment_bytes: u64) -> Options {
    Options {
        dir: "spool".into(),
        max_bytes,
        max_age: Duration::from_secs(3 * 24 * 3600),
        segment_bytes,
        queue_bytes: 64 << 10,
    }
}

fn open(disk: &Arc<impl Disk + 'static>, options: Options, life: u64) -> Spool {
    open_at(disk, Arc::default(), options, life)
}

fn open_at(disk: &Arc<impl Disk + 'static>, clock: Arc<Hand>, options: Options, life: u64) -> Spool {
    Spool::start(Arc::clone(disk) as Arc<dyn Disk>, clock, options, life, true).unwrap()
}

/// A record that no compression makes smaller, and that tells what it is.
fn record(life: u64, number: u64, length: usize) -> Vec<u8> {
    let mut seed = life.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number;
    let mut bytes = format!("{life}:{number}:").into_bytes();
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.push(seed as u8);
    }
    bytes
}

fn header(number: u64) -> Vec<u8> {
    format!("before {number}").into_bytes()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await });
    runtime.shutdown_background();
    result.expect("within the deadline")
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Appends and waits until it is durable.
fn append(spool: &Spool, life: u64, length: usize) -> u64 {
    let next = spool.stats().appended + 1;
    let ticket = spool.append(&record(life, next, length), || header(next)).unwrap();
    let sequence = ticket.sequence;
    block_on(ticket.durable()).unwrap();
    sequence
}

async fn take(reader: &mut Reader, count: usize) -> Vec<Item> {
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(reader.next().await);
    }
    items
}

/// Everything that a new reader gives before it waits.
fn drain(spool: &Spool) -> Vec<Item> {
    crate::reader::read_all(spool.shared()).unwrap()
}

fn until(spool: &Spool, what: &str, met: impl Fn(&Stats) -> bool) -> Stats {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let stats = spool.stats();
        if met(&stats) {
            return stats;
        }
        assert!(Instant::now() < deadline, "not {what}: {stats:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_reader_says_when_all_that_is_durable_was_given_out() {
    block_on(async {
        let spool = Spool::in_memory(1 << 20, 1);
        let mut reader = spool.reader();
        assert_eq!(reader.next_durable().await, None);
        let append = async |number| {
            let ticket = spool.append(&record(1, number, 50), || header(number)).unwrap();
            ticket.durable().await.unwrap();
        };
        for number in 1..=3 {
            append(number).await;
        }
        for number in 1..=3 {
            assert_eq!(reader.next_durable().await.map(|item| item.sequence), Some(number));
        }
        assert_eq!(reader.next_durable().await, None);
        // One who waits and gives up has lost none.
        assert!(tokio::time::timeout(Duration::from_millis(1), reader.next()).await.is_err());
        append(4).await;
        assert_eq!(reader.next().await.sequence, 4);
        assert_eq!(reader.next_durable().await, None);
        append(5).await;
        assert_eq!(reader.next_durable().await.map(|item| item.sequence), Some(5));
    });
}

fn sequences(items: &[Item], life: u64) -> Vec<u64> {
    items.iter().filter(|item| item.life == life).map(|item| item.sequence).collect()
}
