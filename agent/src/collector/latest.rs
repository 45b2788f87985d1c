//! The latest values of some families, for the documents of the HTTP API.

use picket_proto::documents::Reading;
use picket_proto::model::suffix;

use super::Collector;

impl Collector {
    /// What is fresh of these families.
    pub fn latest(&self, names: &[&str]) -> Vec<Reading> {
        let now = self.shared.clock.monotonic();
        let state = self.state();
        let dictionary = &state.dictionary;
        let mut readings = Vec::new();
        for number in names.iter().flat_map(|name| dictionary.families_of(name)) {
            let Some(family) = dictionary.family_entry(*number) else { continue };
            for series in family.order.iter().filter_map(|number| dictionary.entry(*number)) {
                if series.fresh_until < now {
                    continue;
                }
                let labels = series.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
                let name = format!("{}{}", family.family.name, suffix(series.part));
                readings.push(Reading { node: None, name, labels, value: series.value });
            }
        }
        readings
    }
}
