//! Any sequence of what can happen to a spool, against a model that is a list.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::disk::Faulty;
use super::*;
use crate::format::FRAME_HEAD;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    /// So many of the oldest that are pending.
    Ack(usize),
    Reopen,
    Crash(u8),
    /// One bit of one segment.
    Flip(prop::sample::Index, prop::sample::Index, u8),
    /// The end of the last segment.
    Tear(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => prop_oneof![0..200_usize, 500..1500_usize].prop_map(Step::Append),
        4 => (0..12_usize).prop_map(Step::Ack),
        2 => Just(Step::Reopen),
        2 => any::<u8>().prop_map(Step::Crash),
        1 => (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8_u8)
            .prop_map(|(file, at, bit)| Step::Flip(file, at, bit)),
        1 => (1..60_usize).prop_map(Step::Tear),
    ];
    prop::collection::vec(step, 1..80)
}

struct Run {
    disk: Arc<Faulty>,
    spool: Option<Spool>,
    life: u64,
    /// By life and sequence, all that is durable and not known to be lost.
    records: BTreeMap<(u64, u64), Vec<u8>>,
    acked: BTreeMap<u64, u64>,
    lost: u64,
    /// What damage in a segment's head makes be counted too much, at most: what is acknowledged in it.
    surplus: u64,
    /// What was torn off without a trace, at most.
    traceless: u64,
}

fn spool_options() -> Options {
    options(24 << 10, 4 << 10)
}

impl Run {
    fn new() -> Self {
        let disk = Arc::<Faulty>::default();
        let spool = Some(open(&disk, spool_options(), 1));
        Self {
            disk,
            spool,
            life: 1,
            records: BTreeMap::new(),
            acked: BTreeMap::new(),
            lost: 0,
            surplus: 0,
            traceless: 0,
        }
    }

    fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    fn pending(&self) -> Vec<(u64, u64)> {
        let acked = |life| self.acked.get(&life).copied().unwrap_or(0);
        self.records.keys().copied().filter(|&(life, sequence)| sequence > acked(life)).collect()
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Append(length) => {
                let number = self.records.keys().next_back().map_or(1, |&(_, n)| n + 1);
                let bytes = record(self.life, number, *length);
                let ticket = self.spool().append(&bytes, || header(number)).unwrap();
                let sequence = ticket.sequence;
                block_on(ticket.durable()).unwrap();
                self.records.insert((self.life, sequence), bytes);
            }
            Step::Ack(count) => {
                let pending = self.pending();
                if let Some(&(life, sequence)) =
                    pending.get(count.min(&pending.len().saturating_sub(1)).to_owned())
                {
                    self.acked.insert(life, sequence);
                    self.spool().ack(life, sequence);
                }
            }
            Step::Reopen => {
                self.spool().close().unwrap();
                self.open_again();
            }
            Step::Crash(luck) => {
                self.disk = Arc::new(self.disk.after_crash(*luck));
                self.open_again();
            }
            Step::Flip(file, at, bit) => {
                self.spool().close().unwrap();
                let segments = self.disk.segments();
                if !segments.is_empty() {
                    self.disk.change(&segments[file.index(segments.len())], |bytes| {
                        *at.get_mut(bytes) ^= 1 << *bit;
                    });
                    self.surplus += 200;
                }
                self.open_again();
            }
            // As a disk that lied about fsync: frames cut off whole leave no trace.
            Step::Tear(bytes) => {
                self.spool().close().unwrap();
                if let Some(last) = self.disk.segments().last() {
                    self.disk.change(last, |held| held.truncate(held.len().saturating_sub(*bytes)));
                    self.traceless += (bytes / FRAME_HEAD) as u64 + 1;
                }
                self.open_again();
            }
        }
        self.check();
    }

    fn open_again(&mut self) {
        self.life += 1;
        self.spool = None;
        self.spool = Some(open(&self.disk, spool_options(), self.life));
        // The receiver says again what it holds.
        for (&life, &sequence) in &self.acked {
            self.spool().ack(life, sequence);
        }
    }

    fn check(&mut self) {
        let items = drain(self.spool());
        let order: Vec<_> = items.iter().map(|item| (item.life, item.sequence)).collect();
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
        let mut segment_begins = true;
        for item in &items {
            if let Some(bytes) = self.records.get(&(item.life, item.sequence)) {
                assert_eq!(&item.bytes, bytes);
            }
            assert!(item.header.is_some() || !segment_begins);
            segment_begins = false;
        }
        let found: BTreeSet<_> = order.into_iter().collect();
        for key in self.pending() {
            if !found.contains(&key) {
                self.lost += 1;
                self.records.remove(&key);
            }
        }
        let stats = self.spool().stats();
        let counted: u64 = stats.lost.values().sum();
        assert!(
            (self.lost.saturating_sub(self.traceless)..=self.lost + self.surplus).contains(&counted),
            "{} lost (surplus {}), counted {:?}",
            self.lost,
            self.surplus,
            stats.lost,
        );
        assert_eq!(stats.records_pending, self.pending().len() as u64, "{stats:?}");
        assert!(stats.bytes <= 24 << 10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_spool_is_a_list(steps in steps()) {
        let mut run = Run::new();
        for step in &steps {
            run.play(step);
        }
    }
}
