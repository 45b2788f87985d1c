//! Which definitions a stream has: each family and series is sent once, when a record that is sent first needs it to be
//! there, and not at all when it is retired before that.

use std::collections::HashMap;

use picket_proto::v1;

/// One more than the largest number of a family or series (the columns codec's bound).
const MAX_NUMBER: u32 = 1 << 22;
/// Definitions are split into messages of about this size.
const MESSAGE_BYTES: usize = 512 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its definitions are damaged: {0}")]
pub(super) struct Damaged(&'static str);

/// Numbers of families and series, a bit each.
#[derive(Default)]
struct Numbers {
    words: Vec<u64>,
}

impl Numbers {
    fn contains(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    fn insert(&mut self, number: u32) {
        let index = number as usize / 64;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        if let Some(word) = self.words.get_mut(index) {
            *word |= 1 << (number % 64);
        }
    }

    fn remove(&mut self, number: u32) {
        if let Some(word) = self.words.get_mut(number as usize / 64) {
            *word &= !(1 << (number % 64));
        }
    }
}

/// The definitions of one life on one stream.
#[derive(Default)]
pub(super) struct Table {
    /// Series that live at the point that was read to.
    live: Numbers,
    sent_families: Numbers,
    sent_series: Numbers,
    /// Read, and not looked at for sending yet.
    waiting: Vec<v1::Definitions>,
}

impl Table {
    /// Takes in the header of a segment: all that lives, so that what waited before it needs no looking at.
    pub fn snapshot(&mut self, definitions: v1::Definitions) -> Result<(), Damaged> {
        check(&definitions)?;
        self.waiting.clear();
        self.define(definitions)
    }

    /// Takes in the definitions of a record. Nothing is taken in from damaged ones.
    pub fn define(&mut self, definitions: v1::Definitions) -> Result<(), Damaged> {
        check(&definitions)?;
        let mut fresh = false;
        for family in families(&definitions) {
            fresh |= !self.sent_families.contains(family.number);
        }
        for series in series(&definitions) {
            self.live.insert(series.number);
            fresh |= !self.sent_series.contains(series.number);
        }
        if fresh {
            self.waiting.push(definitions);
        }
        Ok(())
    }

    pub fn retire(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.live.remove(*number);
            self.sent_series.remove(*number);
        }
    }

    /// The other side of the stream knows this series.
    pub fn has(&self, series: u32) -> bool {
        self.sent_series.contains(series)
    }

    /// What has to be sent before the next batch, in order.
    pub fn take(&mut self, mut send: impl FnMut(v1::Definitions)) {
        let waiting = std::mem::take(&mut self.waiting);
        if let [only] = waiting.as_slice() {
            let mut part = Part::new(only);
            self.take_families(&mut part, &mut send);
            self.take_series(&mut part, &mut send);
            return part.flush(0, &mut send);
        }
        for definitions in &waiting {
            let mut part = Part::new(definitions);
            self.take_families(&mut part, &mut send);
            part.flush(0, &mut send);
        }
        // The last definition of a number is the one that holds.
        for definitions in waiting.iter().rev() {
            let mut part = Part::new(definitions);
            self.take_series(&mut part, &mut send);
            part.flush(0, &mut send);
        }
    }

    fn take_families(&mut self, part: &mut Part<'_>, send: &mut impl FnMut(v1::Definitions)) {
        for family in families(part.from) {
            if self.sent_families.contains(family.number) {
                continue;
            }
            self.sent_families.insert(family.number);
            part.family(&family);
            part.flush(MESSAGE_BYTES, send);
        }
    }

    fn take_series(&mut self, part: &mut Part<'_>, send: &mut impl FnMut(v1::Definitions)) {
        for series in series(part.from) {
            let known = self.sent_families.contains(series.family);
            if !known || !self.live.contains(series.number) || self.sent_series.contains(series.number) {
                continue;
            }
            self.sent_series.insert(series.number);
            part.series(&series);
            part.flush(MESSAGE_BYTES, send);
        }
    }
}

struct FamilyRow<'a> {
    number: u32,
    rest: &'a [u32],
}

struct SeriesRow<'a> {
    number: u32,
    family: u32,
    part: u32,
    labels: &'a [u32],
}

fn families(definitions: &v1::Definitions) -> impl Iterator<Item = FamilyRow<'_>> {
    definitions.families.chunks_exact(6).filter_map(|row| match row {
        [number, rest @ ..] => Some(FamilyRow { number: *number, rest }),
        [] => None,
    })
}

fn series(definitions: &v1::Definitions) -> impl Iterator<Item = SeriesRow<'_>> {
    let mut left = definitions.series.as_slice();
    std::iter::from_fn(move || {
        let [number, family, part, count, rest @ ..] = left else { return None };
        let (labels, rest) = rest.split_at_checked((*count as usize).checked_mul(2)?)?;
        left = rest;
        Some(SeriesRow { number: *number, family: *family, part: *part, labels })
    })
}

/// After this, `families` and `series` see all rows, and every index points to a string.
fn check(definitions: &v1::Definitions) -> Result<(), Damaged> {
    let known = |index: &u32| (*index as usize) < definitions.strings.len();
    if !definitions.families.len().is_multiple_of(6) {
        return Err(Damaged("a family is cut off"));
    }
    for row in families(definitions) {
        if row.number >= MAX_NUMBER {
            return Err(Damaged("a family's number is out of range"));
        }
        let [name, _type, strings @ ..] = row.rest else { return Err(Damaged("a family is cut off")) };
        if !known(name) || !strings.iter().all(known) {
            return Err(Damaged("a family names a string that is not there"));
        }
    }
    let mut seen = 0;
    for row in series(definitions) {
        seen += 4 + row.labels.len();
        if row.number >= MAX_NUMBER {
            return Err(Damaged("a series' number is out of range"));
        }
        if !row.labels.iter().all(known) {
            return Err(Damaged("a series names a string that is not there"));
        }
    }
    if seen != definitions.series.len() {
        return Err(Damaged("a series is cut off"));
    }
    Ok(())
}

/// A part of definitions, with a string table of its own.
struct Part<'a> {
    from: &'a v1::Definitions,
    to: v1::Definitions,
    strings: HashMap<u32, u32>,
    bytes: usize,
}

impl<'a> Part<'a> {
    fn new(from: &'a v1::Definitions) -> Self {
        Self { from, to: v1::Definitions::default(), strings: HashMap::new(), bytes: 0 }
    }

    fn string(&mut self, index: u32) -> u32 {
        if let Some(known) = self.strings.get(&index) {
            return *known;
        }
        let text = self.from.strings.get(index as usize).cloned().unwrap_or_default();
        let number = u32::try_from(self.to.strings.len()).unwrap_or(u32::MAX);
        self.bytes += text.len() + 3;
        self.to.strings.push(text);
        self.strings.insert(index, number);
        number
    }

    fn family(&mut self, row: &FamilyRow<'_>) {
        let [name, metric_type, strings @ ..] = row.rest else { return };
        let name = self.string(*name);
        self.to.families.extend([row.number, name, *metric_type]);
        for index in strings {
            let index = self.string(*index);
            self.to.families.push(index);
        }
        self.bytes += 6 * 4;
    }

    fn series(&mut self, row: &SeriesRow<'_>) {
        let labels = u32::try_from(row.labels.len() / 2).unwrap_or(0);
        self.to.series.extend([row.number, row.family, row.part, labels]);
        for index in row.labels {
            let index = self.string(*index);
            self.to.series.push(index);
        }
        self.bytes += (4 + row.labels.len()) * 4;
    }

    /// Sends what there is if it is more than `above` bytes.
    fn flush(&mut self, above: usize, send: &mut impl FnMut(v1::Definitions)) {
        if self.bytes > above {
            self.strings.clear();
            self.bytes = 0;
            send(std::mem::take(&mut self.to));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    /// Families 0.. and series, with labels `n="<number>"`.
    pub fn made(families: &[u32], series: &[(u32, u32)]) -> v1::Definitions {
        let mut out =
            v1::Definitions { strings: vec!["".into(), "p".into(), "n".into()], ..Default::default() };
        for family in families {
            out.strings.push(format!("family_{family}"));
            let name = out.strings.len() as u32 - 1;
            out.families.extend([*family, name, 1, 0, 0, 1]);
        }
        for (number, family) in series {
            out.strings.push(number.to_string());
            out.series.extend([*number, *family, 0, 1, 2, out.strings.len() as u32 - 1]);
        }
        out
    }

    fn taken(table: &mut Table) -> (Vec<u32>, Vec<u32>) {
        let (mut f, mut s) = (Vec::new(), Vec::new());
        table.take(|d| {
            check(&d).unwrap();
            for row in families(&d) {
                assert_eq!(d.strings[row.rest[0] as usize], format!("family_{}", row.number));
                f.push(row.number);
            }
            for row in series(&d) {
                assert_eq!(d.strings[row.labels[1] as usize], row.number.to_string());
                s.push(row.number);
            }
        });
        s.sort_unstable();
        (f, s)
    }

    #[test]
    fn each_is_sent_once_and_the_retired_not_at_all() {
        let mut table = Table::default();
        table.define(made(&[0, 1], &[(0, 0), (1, 1)])).unwrap();
        table.retire(&[1]);
        table.define(made(&[1], &[(2, 1)])).unwrap();
        assert_eq!(taken(&mut table), (vec![0, 1], vec![0, 2]));
        // A snapshot repeats what is known.
        table.define(made(&[0, 1], &[(0, 0), (2, 1), (3, 0)])).unwrap();
        assert_eq!(taken(&mut table), (vec![], vec![3]));
        assert_eq!(taken(&mut table), (vec![], vec![]));
        assert!(table.has(3) && !table.has(1));
        // Of a family that was never defined.
        table.define(made(&[], &[(9, 77)])).unwrap();
        assert_eq!(taken(&mut table), (vec![], vec![]));
        assert!(!table.has(9));
    }

    #[test]
    fn large_definitions_are_split() {
        let all: Vec<(u32, u32)> = (0..40_000).map(|n| (n, 0)).collect();
        let mut table = Table::default();
        table.define(made(&[0], &all)).unwrap();
        let (mut messages, mut count) = (0, 0);
        table.take(|d| {
            messages += 1;
            count += series(&d).count();
            assert!(d.encoded_len() < MESSAGE_BYTES + 1024);
        });
        assert_eq!(count, 40_000);
        assert!(messages > 2, "{messages}");
    }

    #[test]
    fn damaged_definitions_are_refused() {
        let good = made(&[0], &[(0, 0)]);
        let damage: [fn(&mut v1::Definitions); 6] = [
            |d| d.families.push(1),
            |d| d.series.push(1),
            |d| d.series[3] = u32::MAX,
            |d| d.series[0] = MAX_NUMBER,
            |d| d.families[0] = u32::MAX,
            |d| d.strings.truncate(2),
        ];
        for change in damage {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(Table::default().define(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_numbers_are_answered(
            families in prop::collection::vec(0u32..20, 0..40),
            series in prop::collection::vec(prop_oneof![0u32..20, any::<u32>()], 0..60),
            strings in 0usize..20,
        ) {
            let mut table = Table::default();
            let strings = vec!["x".to_owned(); strings];
            let _ = table.define(v1::Definitions { strings, families, series });
            table.take(|d| check(&d).unwrap());
        }
    }
}
