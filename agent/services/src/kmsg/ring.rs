//! The messages that are kept, in order of the kernel's numbers, and what is missing between them.

use std::collections::{BTreeMap, VecDeque};

use picket_proto::model::PluginId;

use super::{Filter, Message};

/// Bounds of what is kept.
const MESSAGES: usize = 4096;
const BYTES: usize = 1 << 20;
/// Gaps that are told apart; beyond them the oldest two become one.
const GAPS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Ring {
    readers: BTreeMap<PluginId, Filter>,
    messages: BTreeMap<u64, Message>,
    bytes: usize,
    gaps: VecDeque<Gap>,
    /// The last number that was read, whether or not anybody may see the message.
    last: Option<u64>,
}

/// Messages that are gone.
#[derive(Debug, Clone, Copy)]
struct Gap {
    last: u64,
    count: u64,
}

/// See [`Ring::page`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub messages: Vec<Message>,
    pub last: u64,
    pub lost: u64,
    pub more: bool,
}

impl Ring {
    /// True where messages that this filter admits may not have been kept until now.
    pub fn admit(&mut self, plugin: &PluginId, filter: &Filter) -> bool {
        let covered = self.readers.values().any(|known| known.covers(filter));
        self.readers.insert(plugin.clone(), filter.clone());
        !covered
    }

    /// Those who may see it; the text decides.
    pub fn readers_of(&self, text: &str) -> Vec<PluginId> {
        self.readers.iter().filter(|(_, filter)| filter.admits(text)).map(|(id, _)| id.clone()).collect()
    }

    /// The next message of the kernel. Numbers that were read before (the task began anew) tell of no gap.
    pub fn add(&mut self, message: Message, wanted: bool) {
        let sequence = message.sequence;
        let next = self.last.map_or(0, |last| last.saturating_add(1));
        if sequence > next || self.last.is_none() && sequence > 0 {
            self.gap(sequence.saturating_sub(1), sequence.saturating_sub(next));
        }
        self.last = Some(self.last.map_or(sequence, |last| last.max(sequence)));
        if !wanted {
            return;
        }
        self.bytes += size(&message);
        if let Some(before) = self.messages.insert(sequence, message) {
            self.bytes = self.bytes.saturating_sub(size(&before));
        }
        while self.messages.len() > MESSAGES || self.bytes > BYTES {
            let Some((sequence, gone)) = self.messages.pop_first() else { break };
            self.bytes = self.bytes.saturating_sub(size(&gone));
            self.gap(sequence, 1);
        }
    }

    fn gap(&mut self, last: u64, count: u64) {
        // One that was thrown away stands before those that the kernel has overwritten since.
        let at = self.gaps.partition_point(|gap| gap.last < last);
        self.gaps.insert(at, Gap { last, count });
        if self.gaps.len() > GAPS
            && let (Some(first), Some(second)) = (self.gaps.pop_front(), self.gaps.front_mut())
        {
            second.count = second.count.saturating_add(first.count);
        }
    }

    /// What comes after this number. Without one nothing is lost: the reader begins.
    pub fn page(&self, filter: &Filter, after: Option<u64>, most: usize) -> Page {
        let from = after.map_or(0, |after| after.saturating_add(1));
        let mut admitted = self.messages.range(from..).filter(|(_, m)| filter.admits(&m.text)).peekable();
        let mut messages = Vec::new();
        while messages.len() < most
            && let Some((_, message)) = admitted.next()
        {
            messages.push(message.clone());
        }
        let more = admitted.peek().is_some();
        let last = match messages.last() {
            Some(message) if more => message.sequence,
            None if more => after.unwrap_or(0),
            // Also past those that nobody asked for, so that losing them later is no loss.
            _ => self.last.unwrap_or(0).max(after.unwrap_or(0)),
        };
        let lost = match after {
            None => 0,
            Some(after) => {
                let within = self.gaps.iter().filter(|gap| gap.last > after && gap.last <= last);
                within.map(|gap| gap.count.min(gap.last - after)).fold(0, u64::saturating_add)
            }
        };
        Page { messages, last, lost, more }
    }
}

fn size(message: &Message) -> usize {
    message.text.len() + size_of::<Message>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grants::Granted;
    use crate::kmsg::Scope;

    fn message(sequence: u64, text: &str) -> Message {
        Message { sequence, timestamp: 0, priority: 3, facility: 0, text: text.to_owned() }
    }

    fn filter(words: &[&str]) -> Filter {
        let scope = Scope { containing: words.iter().map(|w| (*w).to_owned()).collect() };
        Scope::compile(&[&scope]).unwrap()
    }

    fn numbers(page: &Page) -> Vec<u64> {
        page.messages.iter().map(|m| m.sequence).collect()
    }

    #[test]
    fn pages_go_on_where_the_last_one_ended() {
        let mut ring = Ring::default();
        for sequence in 0..10 {
            let text = if sequence % 2 == 0 { "NVRM: Xid" } else { "audit" };
            ring.add(message(sequence, text), true);
        }
        let xids = filter(&["NVRM: Xid"]);
        let first = ring.page(&xids, None, 3);
        assert_eq!((numbers(&first), first.last, first.lost, first.more), (vec![0, 2, 4], 4, 0, true));
        let second = ring.page(&xids, Some(first.last), 3);
        // 9 was looked at though it is not shown.
        assert_eq!((numbers(&second), second.last, second.more), (vec![6, 8], 9, false));
        assert_eq!(numbers(&ring.page(&xids, Some(9), 3)), Vec::<u64>::new());
        assert_eq!(ring.page(&xids, None, 0), Page { messages: vec![], last: 0, lost: 0, more: true });
        assert_eq!(numbers(&ring.page(&filter(&["*"]), Some(7), 9)), [8, 9]);
    }

    #[test]
    fn missing_numbers_are_counted_once_and_only_to_those_who_stood_before_them() {
        let mut ring = Ring::default();
        // The kernel's oldest is 100: an agent that comes back with the cursor 90 has lost 9.
        ring.add(message(100, "a"), true);
        ring.add(message(101, "a"), true);
        ring.add(message(110, "a"), true);
        let all = filter(&["*"]);
        assert_eq!(ring.page(&all, None, 10).lost, 0);
        assert_eq!(ring.page(&all, Some(90), 10).lost, 9 + 8);
        assert_eq!(ring.page(&all, Some(99), 10).lost, 8);
        assert_eq!(ring.page(&all, Some(101), 10).lost, 8);
        assert_eq!(ring.page(&all, Some(110), 10).lost, 0);
        // Page by page each gap is told once.
        let first = ring.page(&all, Some(90), 2);
        let second = ring.page(&all, Some(first.last), 2);
        assert_eq!((first.lost, second.lost), (9, 8));
        // Reading from the oldest again tells of nothing new.
        ring.add(message(100, "a"), true);
        assert_eq!(ring.page(&all, Some(90), 10).lost, 17);
    }

    #[test]
    fn a_word_that_nobody_had_is_new() {
        let mut ring = Ring::default();
        let (a, b) = (PluginId::new("a").unwrap(), PluginId::new("b").unwrap());
        assert!(ring.admit(&a, &filter(&["Xid", "AER"])));
        assert!(!ring.admit(&b, &filter(&["NVRM: Xid"])));
        assert!(ring.admit(&b, &filter(&["*"])));
        assert!(!ring.admit(&a, &filter(&["anything"])));
        assert_eq!(ring.readers_of("some NVRM: Xid"), std::slice::from_ref(&b));
        assert_eq!(ring.readers_of("anything"), [a, b]);
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_what_is_given_and_lost_adds_up(
            steps in prop::collection::vec((1u64..4, 1usize..2000), 1..300),
            after in 0u64..50,
        ) {
            let mut ring = Ring::default();
            let mut sequence = 0;
            for (step, length) in steps {
                sequence += step;
                ring.add(message(sequence, &"x".repeat(length)), true);
                prop_assert!(ring.messages.len() <= MESSAGES && ring.bytes <= BYTES && ring.gaps.len() <= GAPS);
            }
            let page = ring.page(&filter(&["*"]), Some(after), usize::MAX);
            prop_assert_eq!(page.last, sequence.max(after));
            if sequence > after && ring.gaps.len() < GAPS {
                let after_last = sequence - after;
                prop_assert_eq!(page.messages.len() as u64 + page.lost, after_last);
            }
        }
    }
}
