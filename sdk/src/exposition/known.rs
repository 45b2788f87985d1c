//! The lines of the last pages, found again by their bytes.
//!
//! A page comes in the same order as the last one, so each line names the one that followed it: the common case is
//! one comparison of bytes. Where something new stands between, a hash finds the line.

use hashbrown::HashTable;

use super::bytes::{hash, is_blank, starts_with};

/// No line, no series, no slot.
pub const NONE: u32 = u32::MAX;

/// What a line stands for.
#[derive(Debug, Clone, Copy)]
pub enum What {
    Comment,
    /// Relabelling dropped it.
    Dropped,
    /// The host would not have its family.
    Refused,
    Series {
        /// The series' place in the core, and its alias' or none.
        index: u32,
        also: u32,
        /// It only grows, unless its source begins anew.
        grows: bool,
    },
}

pub struct Known {
    /// The comment's line, or the series without its value.
    pub raw: Box<[u8]>,
    hash: u64,
    next: u32,
    /// The page on which it last stood.
    pub seen: u32,
    /// What the page's reader wanted to be told of it under, or none.
    pub slot: u32,
    pub last: f64,
    pub what: What,
    free: bool,
}

impl Known {
    /// How many bytes of `text` it is, where `text` begins with it.
    #[inline]
    fn matches(&self, text: &[u8]) -> bool {
        if !starts_with(text, &self.raw) {
            return false;
        }
        let next = text.get(self.raw.len()).copied();
        match self.what {
            What::Comment => next == Some(b'\n'),
            _ => self.raw.last() == Some(&b'}') || next.is_some_and(is_blank),
        }
    }
}

#[derive(Default)]
pub struct Lines {
    list: Vec<Known>,
    free: Vec<u32>,
    table: HashTable<u32>,
    first: Option<u32>,
    last: Option<u32>,
}

impl Lines {
    /// A page begins.
    pub fn begin(&mut self) {
        self.last = None;
    }

    /// The line that is expected here, if `text` begins with it.
    #[inline]
    pub fn expected(&mut self, text: &[u8]) -> Option<u32> {
        let index = match self.last {
            Some(last) => self.list.get(last as usize)?.next,
            None => self.first?,
        };
        let known = self.list.get(index as usize)?;
        if known.free || !known.matches(text) {
            return None;
        }
        self.last = Some(index);
        Some(index)
    }

    /// The line of these bytes wherever it is. It is expected here from now on.
    pub fn find(&mut self, raw: &[u8]) -> Option<u32> {
        let hash = hash(raw);
        let list = &self.list;
        let same = |&i: &u32| list.get(i as usize).is_some_and(|k| k.hash == hash && *k.raw == *raw);
        let index = *self.table.find(hash, same)?;
        self.follow(index);
        Some(index)
    }

    /// Adds a line that was not found.
    pub fn add(&mut self, raw: &[u8], what: What, slot: u32) -> u32 {
        let hash = hash(raw);
        let known =
            Known { raw: raw.into(), hash, next: NONE, seen: 0, slot, last: f64::NAN, what, free: false };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(place) = self.list.get_mut(index as usize) {
                    *place = known;
                }
                index
            }
            None => {
                self.list.push(known);
                u32::try_from(self.list.len() - 1).unwrap_or(NONE)
            }
        };
        let list = &self.list;
        self.table.insert_unique(hash, index, |&i| list.get(i as usize).map_or(0, |k| k.hash));
        self.follow(index);
        index
    }

    fn follow(&mut self, index: u32) {
        match self.last {
            Some(last) => {
                if let Some(known) = self.list.get_mut(last as usize) {
                    known.next = index;
                }
            }
            None => self.first = Some(index),
        }
        self.last = Some(index);
    }

    #[inline]
    pub fn get(&mut self, index: u32) -> Option<&mut Known> {
        self.list.get_mut(index as usize)
    }

    pub fn len(&self) -> usize {
        self.list.len() - self.free.len()
    }

    /// Forgets those for which `keep` says no; `end` sees what each stood for.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Known) -> bool, mut end: impl FnMut(What)) {
        for (index, known) in self.list.iter_mut().enumerate() {
            if known.free || keep(known) {
                continue;
            }
            end(known.what);
            let index = index as u32;
            if let Ok(found) = self.table.find_entry(known.hash, |i| *i == index) {
                found.remove();
            }
            known.free = true;
            known.raw = Box::default();
            self.free.push(index);
        }
    }
}
