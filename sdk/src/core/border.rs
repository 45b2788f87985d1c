//! What goes over to the host: new series, points, series that are gone.

use super::{Core, NONE, REFUSED, REGISTER, RETRY_AFTER};
use crate::model::{SeriesDef, SinkError};
use crate::sys;

impl Core {
    pub(super) fn push(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.register(&dirty);
        self.points.clear();
        for &index in &dirty {
            let Some(entry) = self.entries.get_mut(index as usize) else { continue };
            entry.pushed = true;
            let known = entry.lines().filter(|line| line.number < REFUSED);
            self.points.extend(known.map(|l| sys::Point { series: l.number, value: l.value }));
        }
        if !self.points.is_empty()
            && let Err(error) = sys::push(&self.points)
        {
            self.refuse(self.points.len(), &error);
        }
        self.dirty = dirty;
        self.dirty.clear();
    }

    pub(super) fn push_timed(&mut self) {
        if self.timed.is_empty() {
            return;
        }
        let timed = std::mem::take(&mut self.timed);
        let indexes: Vec<u32> = timed.iter().map(|(index, ..)| *index).collect();
        self.register(&indexes);
        self.timed_points.clear();
        for &(index, value, timestamp) in &timed {
            let Some(entry) = self.entries.get(index as usize) else { continue };
            if entry.line.number < REFUSED {
                self.timed_points.push(sys::TimedPoint { series: entry.line.number, value, timestamp });
            }
        }
        if !self.timed_points.is_empty()
            && let Err(error) = sys::push_timed(&self.timed_points)
        {
            self.refuse(self.timed_points.len(), &error);
        }
        self.timed = timed;
        self.timed.clear();
    }

    /// Gets numbers for those that have none.
    fn register(&mut self, indexes: &[u32]) {
        let round = self.round;
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.clear();
        for &index in indexes {
            let Some(entry) = self.entries.get_mut(index as usize) else { continue };
            if entry.line.number == REFUSED && round.wrapping_sub(entry.refused_in) >= RETRY_AFTER {
                entry.lines_mut().for_each(|line| line.number = NONE);
            }
            if entry.line.number == NONE {
                fresh.push(index);
            }
        }
        fresh.sort_unstable();
        fresh.dedup();
        for chunk in fresh.chunks(REGISTER) {
            match self.offer(chunk) {
                Ok(()) => {}
                Err(SinkError::Quota { message, fits }) => {
                    let (fit, over) = chunk.split_at(self.whole(chunk, fits));
                    if !fit.is_empty() && self.offer(fit).is_err() {
                        self.offer_each(fit);
                    }
                    self.refuse_series(over, &SinkError::Quota { message, fits });
                }
                Err(_) => self.offer_each(chunk),
            }
        }
        self.fresh = fresh;
    }

    /// The first so many of them whose lines are at most `fits` together.
    fn whole(&self, indexes: &[u32], fits: u32) -> usize {
        let mut room = fits as usize;
        let lines = |index: &u32| self.entries.get(*index as usize).map_or(0, |entry| 1 + entry.more.len());
        let fit = indexes.iter().take_while(|index| match room.checked_sub(lines(index)) {
            Some(left) => {
                room = left;
                true
            }
            None => false,
        });
        fit.count()
    }

    /// Registering is all or nothing: one by one finds out which is refused.
    fn offer_each(&mut self, indexes: &[u32]) {
        for index in indexes {
            let one = std::slice::from_ref(index);
            if let Err(error) = self.offer(one) {
                self.refuse_series(one, &error);
            }
        }
    }

    fn refuse_series(&mut self, indexes: &[u32], error: &SinkError) {
        if indexes.is_empty() {
            return;
        }
        self.refuse(indexes.len(), error);
        for index in indexes {
            if let Some(entry) = self.entries.get_mut(*index as usize) {
                entry.refused_in = self.round;
                entry.lines_mut().for_each(|line| line.number = REFUSED);
            }
        }
    }

    fn offer(&mut self, indexes: &[u32]) -> Result<(), SinkError> {
        let mut defs = Vec::new();
        for &index in indexes {
            let Some(entry) = self.entries.get(index as usize) else { continue };
            let Some(family) = self.families.get(entry.family as usize) else { continue };
            let mut labels: Vec<(String, String)> = if family.dynamic {
                let (pairs, _) = entry.key.as_chunks::<2>();
                pairs.iter().map(|[name, value]| (name.to_string(), value.to_string())).collect()
            } else {
                let names = family.def.label_names.iter();
                names.zip(&entry.key).map(|(n, v)| (n.clone(), v.to_string())).collect()
            };
            for (name, value) in &self.constant {
                if !labels.iter().any(|(n, _)| n == name) {
                    labels.push((name.clone(), value.clone()));
                }
            }
            if family.lines.is_empty() {
                defs.push(SeriesDef { family: family.number, part: entry.part, labels });
                continue;
            }
            for (part, label) in &family.lines {
                let labels = labels.iter().chain(label).cloned().collect();
                defs.push(SeriesDef { family: family.number, part: *part, labels });
            }
        }
        let mut numbers = sys::register(defs)?.into_iter();
        for &index in indexes {
            let Some(entry) = self.entries.get_mut(index as usize) else { continue };
            for line in entry.lines_mut() {
                line.number = numbers.next().unwrap_or(NONE);
            }
        }
        Ok(())
    }

    fn refuse(&mut self, count: usize, error: &SinkError) {
        self.trouble.refused += u32::try_from(count).unwrap_or(u32::MAX);
        if self.trouble.why.is_empty() {
            self.trouble.why = error.to_string();
        }
    }

    pub(super) fn retire(&mut self) {
        let mut gone = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let idle = self.round.wrapping_sub(entry.touched);
            if idle < self.retire_after || entry.accumulating || entry.free {
                continue;
            }
            for line in entry.lines_mut() {
                if line.number < REFUSED {
                    gone.push(line.number);
                }
                line.number = NONE;
            }
            let index = index as u32;
            if entry.pins == 0 {
                entry.free = true;
                if let Ok(found) = self.table.find_entry(entry.hash, |i| *i == index) {
                    found.remove();
                }
                entry.key = Box::default();
                entry.more = Vec::new();
                self.free.push(index);
            }
        }
        if !gone.is_empty()
            && let Err(error) = sys::retire(&gone)
        {
            self.refuse(gone.len(), &error);
        }
    }
}
