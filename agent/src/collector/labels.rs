//! A label set in two allocations, where a list of string pairs takes four a label: an agent holds thousands.

use picket_proto::model::Labels;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PackedLabels {
    text: Box<str>,
    /// Where each name and each value ends in `text`, in turn.
    ends: Box<[u32]>,
}

impl PackedLabels {
    pub fn new(labels: &Labels) -> Self {
        let len = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut text = String::with_capacity(len);
        let mut ends = Vec::with_capacity(labels.len() * 2);
        for (name, value) in labels.iter() {
            for part in [name, value] {
                text.push_str(part);
                // 64 labels of 4,352 bytes at most: far below 4 GiB.
                ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            }
        }
        Self { text: text.into(), ends: ends.into() }
    }

    /// In order of name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let part = move |i: usize| {
            let end = |i: usize| self.ends.get(i).map_or(0, |&end| end as usize);
            let start = if i == 0 { 0 } else { end(i - 1) };
            self.text.get(start..end(i)).unwrap_or_default()
        };
        (0..self.ends.len() / 2).map(move |i| (part(2 * i), part(2 * i + 1)))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

impl PartialEq<Labels> for PackedLabels {
    fn eq(&self, labels: &Labels) -> bool {
        self.ends.len() == labels.len() * 2 && self.iter().eq(labels.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in() {
        for pairs in [vec![], vec![("a", "1")], vec![("a", "ä\n\""), ("b", "x"), ("c", "{}")]] {
            let labels = Labels::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))).unwrap();
            let packed = PackedLabels::new(&labels);
            assert_eq!(packed.iter().collect::<Vec<_>>(), pairs);
            assert!(packed == labels);
        }
    }
}
