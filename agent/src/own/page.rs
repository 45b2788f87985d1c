//! Declares families and pushes samples as a plugin would.

use picket_agent_host::SampleSink;
use picket_proto::model::{Family, Labels, MetricType, Part};

use crate::collector::PluginSink;

pub(super) struct Page<'a> {
    sink: &'a mut PluginSink,
    family: u32,
    series: u32,
}

impl<'a> Page<'a> {
    pub(super) const fn new(sink: &'a mut PluginSink) -> Self {
        Self { sink, family: 0, series: 0 }
    }

    pub(super) fn family(&mut self, name: &str, metric_type: MetricType, help: &str) {
        self.family += 1;
        if let Ok(family) = Family::new(name, metric_type, "", help) {
            self.sink.family(self.family, &family);
        }
    }

    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.part(Part::Value, labels, value);
    }

    pub(super) fn part(&mut self, part: Part, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let Ok(labels) = Labels::new(labels) else { return };
        self.series += 1;
        if self.sink.series(self.series, self.family, part, &labels).is_ok() {
            self.sink.points(&[(self.series, value)]);
        }
    }
}
