//! Families and series on the wire: strings stand once in a table, the rest are numbers (see `Definitions` in
//! `uplink.proto`). The [`Builder`] writes them; [`read`] checks everything once, so that what the [`Reader`] then
//! gives out, borrowed and without an allocation a series, may be trusted: names are names, labels are in order and
//! within bounds.
//!
//! What only the whole stream can tell is left to the caller: whether a series' family is defined, whether its
//! part fits the family's type.

use std::collections::HashMap;

use crate::model::{
    self, Family, InvalidName, MAX_HELP, MAX_LABEL_VALUE, MAX_LABELS, MetricType, Part, PluginId,
};
use crate::v1;

const FAMILY_NUMBERS: usize = 6;
const SERIES_NUMBERS: usize = 4;

/// Gathers definitions for one message.
#[derive(Debug, Default)]
pub struct Builder {
    message: v1::Definitions,
    strings: HashMap<String, u32>,
}

impl Builder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn family(&mut self, number: u32, plugin: &str, family: &Family) {
        let row = [
            number,
            self.string(&family.name),
            family.metric_type as u32,
            self.string(&family.unit),
            self.string(&family.help),
            self.string(plugin),
        ];
        self.message.families.extend(row);
    }

    /// The labels in order of name, as [`model::Labels`] gives them.
    pub fn series<'a>(
        &mut self,
        number: u32,
        family: u32,
        part: Part,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) {
        let count_at = self.message.series.len() + SERIES_NUMBERS - 1;
        self.message.series.extend([number, family, part as u32, 0]);
        let mut count = 0;
        for (name, value) in labels {
            let pair = [self.string(name), self.string(value)];
            self.message.series.extend(pair);
            count += 1;
        }
        if let Some(place) = self.message.series.get_mut(count_at) {
            *place = count;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.message.families.is_empty() && self.message.series.is_empty()
    }

    pub fn finish(self) -> v1::Definitions {
        self.message
    }

    fn string(&mut self, text: &str) -> u32 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = self.message.strings.len() as u32;
        self.message.strings.push(text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }
}

/// Why definitions were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionsError {
    #[error("the list of {list} ends in the middle of one, at number {at} of {length}")]
    Truncated { list: &'static str, at: usize, length: usize },
    #[error("{what} {number}: its {field} is string {index}, there are {strings}")]
    String { what: &'static str, number: u32, field: &'static str, index: u32, strings: usize },
    #[error("family {number}: there is no metric type {metric_type}")]
    MetricType { number: u32, metric_type: u32 },
    #[error("series {number}: there is no part {part}")]
    Part { number: u32, part: u32 },
    #[error("{what} {number}: {source}")]
    Name { what: &'static str, number: u32, source: InvalidName },
    #[error("family {number}: its help text is longer than {MAX_HELP} bytes or has control characters")]
    Help { number: u32 },
    #[error("series {number}: {count} labels, {MAX_LABELS} are allowed")]
    Labels { number: u32, count: u32 },
    #[error("series {number}: the label {name:?} is out of order or stands twice")]
    Order { number: u32, name: String },
    #[error("series {number}: the label {name:?} has an empty value or one above {MAX_LABEL_VALUE} bytes")]
    Value { number: u32, name: String },
    #[error("series {number}: its number is not below {}", crate::columns::MAX_SERIES)]
    Number { number: u32 },
}

/// Checks a message; then it can be read without errors.
pub fn read(message: &v1::Definitions) -> Result<Reader<'_>, DefinitionsError> {
    let reader = Reader { message };
    reader.check_families()?;
    reader.check_series()?;
    Ok(reader)
}

/// Definitions that were checked.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    message: &'a v1::Definitions,
}

/// A family, as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyRef<'a> {
    pub number: u32,
    pub plugin: &'a str,
    pub name: &'a str,
    pub metric_type: MetricType,
    pub unit: &'a str,
    pub help: &'a str,
}

/// A series, as it came.
#[derive(Debug, Clone)]
pub struct SeriesRef<'a> {
    pub number: u32,
    pub family: u32,
    pub part: Part,
    pub labels: LabelsRef<'a>,
}

/// A series' labels, name and value, in order of name.
#[derive(Debug, Clone)]
pub struct LabelsRef<'a> {
    strings: &'a [String],
    pairs: std::slice::ChunksExact<'a, u32>,
}

impl<'a> Iterator for LabelsRef<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = self.pairs.next()?;
        Some((text(self.strings, pair, 0)?, text(self.strings, pair, 1)?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.pairs.size_hint()
    }
}

impl ExactSizeIterator for LabelsRef<'_> {}

impl<'a> Reader<'a> {
    pub fn families(&self) -> impl Iterator<Item = FamilyRef<'a>> + use<'a> {
        let strings = self.message.strings.as_slice();
        self.message.families.chunks_exact(FAMILY_NUMBERS).filter_map(move |row| {
            Some(FamilyRef {
                number: *row.first()?,
                name: text(strings, row, 1)?,
                metric_type: metric_type(*row.get(2)?)?,
                unit: text(strings, row, 3)?,
                help: text(strings, row, 4)?,
                plugin: text(strings, row, 5)?,
            })
        })
    }

    pub fn series(&self) -> impl Iterator<Item = SeriesRef<'a>> + use<'a> {
        let strings = self.message.strings.as_slice();
        let mut rest = self.message.series.as_slice();
        std::iter::from_fn(move || {
            let (&[number, family, part, count], after) = rest.split_first_chunk::<SERIES_NUMBERS>()?;
            let (pairs, after) = after.split_at_checked(count as usize * 2)?;
            rest = after;
            let labels = LabelsRef { strings, pairs: pairs.chunks_exact(2) };
            Some(SeriesRef { number, family, part: part_of(part)?, labels })
        })
    }

    fn check_families(&self) -> Result<(), DefinitionsError> {
        let rows = self.message.families.chunks_exact(FAMILY_NUMBERS);
        if !rows.remainder().is_empty() {
            let length = self.message.families.len();
            let at = length - rows.remainder().len();
            return Err(DefinitionsError::Truncated { list: "families", at, length });
        }
        for row in rows {
            let [number, name, kind, unit, help, plugin] = *row else { continue };
            let what = "family";
            let text = |field, index: u32| self.text(what, number, field, index);
            let named = |source| DefinitionsError::Name { what, number, source };
            model::check_metric_name(text("name", name)?).map_err(named)?;
            metric_type(kind).ok_or(DefinitionsError::MetricType { number, metric_type: kind })?;
            let unit = text("unit", unit)?;
            if !unit.is_empty() {
                model::check_metric_name(unit).map_err(named)?;
            }
            let help = text("help", help)?;
            if help.len() > MAX_HELP || help.chars().any(char::is_control) {
                return Err(DefinitionsError::Help { number });
            }
            PluginId::check(text("plugin", plugin)?).map_err(named)?;
        }
        Ok(())
    }

    fn check_series(&self) -> Result<(), DefinitionsError> {
        let what = "series";
        let length = self.message.series.len();
        let mut rest = self.message.series.as_slice();
        // A label name is checked once, however many series bear it.
        let mut good_names = vec![false; self.message.strings.len()];
        while !rest.is_empty() {
            let truncated = DefinitionsError::Truncated { list: what, at: length - rest.len(), length };
            let Some((&[number, _, part, count], after)) = rest.split_first_chunk::<SERIES_NUMBERS>() else {
                return Err(truncated);
            };
            if number >= crate::columns::MAX_SERIES {
                return Err(DefinitionsError::Number { number });
            }
            part_of(part).ok_or(DefinitionsError::Part { number, part })?;
            if count as usize > MAX_LABELS {
                return Err(DefinitionsError::Labels { number, count });
            }
            let (pairs, after) = after.split_at_checked(count as usize * 2).ok_or(truncated)?;
            rest = after;
            let mut before = "";
            for pair in pairs.chunks_exact(2) {
                let [name_index, value_index] = *pair else { continue };
                let name = self.text(what, number, "label name", name_index)?;
                match good_names.get_mut(name_index as usize) {
                    Some(true) => {}
                    good => {
                        model::check_label_name(name).map_err(|source| DefinitionsError::Name {
                            what,
                            number,
                            source,
                        })?;
                        good.into_iter().for_each(|good| *good = true);
                    }
                }
                if name <= before {
                    return Err(DefinitionsError::Order { number, name: name.to_owned() });
                }
                before = name;
                let value = self.text(what, number, "label value", value_index)?;
                if value.is_empty() || value.len() > MAX_LABEL_VALUE {
                    return Err(DefinitionsError::Value { number, name: name.to_owned() });
                }
            }
        }
        Ok(())
    }

    fn text(
        &self,
        what: &'static str,
        number: u32,
        field: &'static str,
        index: u32,
    ) -> Result<&'a str, DefinitionsError> {
        let strings = &self.message.strings;
        strings.get(index as usize).map(String::as_str).ok_or(DefinitionsError::String {
            what,
            number,
            field,
            index,
            strings: strings.len(),
        })
    }
}

fn text<'a>(strings: &'a [String], row: &[u32], field: usize) -> Option<&'a str> {
    strings.get(*row.get(field)? as usize).map(String::as_str)
}

fn metric_type(number: u32) -> Option<MetricType> {
    MetricType::try_from(i32::try_from(number).ok()?).ok()
}

fn part_of(number: u32) -> Option<Part> {
    Part::try_from(i32::try_from(number).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Labels;
    use proptest::prelude::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|&(n, v)| (n.to_owned(), v.to_owned()))).unwrap()
    }

    fn example() -> v1::Definitions {
        let mut builder = Builder::new();
        assert!(builder.is_empty());
        let family =
            Family::new("node_cpu_seconds_total", MetricType::Counter, "seconds", "Seconds.").unwrap();
        builder.family(0, "node", &family);
        builder.series(0, 0, Part::Value, labels(&[("cpu", "0"), ("mode", "idle")]).iter());
        builder.series(1, 0, Part::Value, labels(&[]).iter());
        assert!(!builder.is_empty());
        builder.finish()
    }

    #[test]
    fn what_is_built_is_read() {
        let message = example();
        assert_eq!(message.strings.len(), 8);
        let reader = read(&message).unwrap();
        let families: Vec<_> = reader.families().collect();
        let expected = FamilyRef {
            number: 0,
            plugin: "node",
            name: "node_cpu_seconds_total",
            metric_type: MetricType::Counter,
            unit: "seconds",
            help: "Seconds.",
        };
        assert_eq!(families, [expected]);
        let series: Vec<_> = reader.series().collect();
        assert_eq!(series.len(), 2);
        assert_eq!(series[0].labels.len(), 2);
        assert_eq!(series[0].labels.clone().collect::<Vec<_>>(), [("cpu", "0"), ("mode", "idle")]);
        assert_eq!((series[1].number, series[1].family, series[1].part), (1, 0, Part::Value));
        assert_eq!(series[1].labels.clone().count(), 0);
    }

    #[test]
    fn malformed_definitions_say_why() {
        type Change = fn(&mut v1::Definitions);
        let cases: &[(&str, Change)] = &[
            ("ends in the middle", |d| d.families.truncate(5)),
            ("ends in the middle", |d| d.series.truncate(11)),
            ("ends in the middle", |d| d.series.truncate(6)),
            ("is string 99, there are 8", |d| d.families[1] = 99),
            ("is string 99, there are 8", |d| d.series[4] = 99),
            ("is string 99, there are 8", |d| d.series[5] = 99),
            ("no metric type 99", |d| d.families[2] = 99),
            ("no metric type 4294967295", |d| d.families[2] = u32::MAX),
            ("no part 9", |d| d.series[2] = 9),
            ("65 labels", |d| d.series[3] = 65),
            ("4294967295 labels", |d| d.series[3] = u32::MAX),
            ("out of order or stands twice", |d| d.series[6] = d.series[4]),
            ("out of order or stands twice", |d| d.series.swap(4, 6)),
            ("empty value", |d| d.strings[5].clear()),
            ("empty value or one above", |d| d.strings[5] = "x".repeat(MAX_LABEL_VALUE + 1)),
            ("metric name is empty", |d| d.strings[0].clear()),
            ("the label name", |d| d.strings[4] = "a b".into()),
            ("Picket's own", |d| d.strings[4] = "__name__".into()),
            ("control characters", |d| d.strings[2] = "a\nb".into()),
            ("the plugin id", |d| d.strings[3] = "a/b".into()),
            ("not below", |d| d.series[0] = u32::MAX),
        ];
        for (expected, change) in cases {
            let mut message = example();
            change(&mut message);
            let error = read(&message).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }

    fn foreign() -> impl Strategy<Value = v1::Definitions> {
        let number = || prop_oneof![0..9_u32, any::<u32>()];
        (
            prop::collection::vec("[a-c]{0,2}", 0..6),
            prop::collection::vec(number(), 0..20),
            prop::collection::vec(number(), 0..30),
        )
            .prop_map(|(strings, families, series)| v1::Definitions { strings, families, series })
    }

    proptest! {
        #[test]
        fn foreign_definitions_are_refused_or_read_whole(message in foreign()) {
            if let Ok(reader) = read(&message) {
                prop_assert_eq!(reader.families().count() * FAMILY_NUMBERS, message.families.len());
                let numbers: usize = reader.series().map(|s| SERIES_NUMBERS + 2 * s.labels.count()).sum();
                prop_assert_eq!(numbers, message.series.len());
            }
        }
    }
}
