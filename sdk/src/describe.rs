//! Declaring families.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::{Core, histogram_lines, state_lines};
use crate::families::{
    CounterFamily, Family, GaugeFamily, HistogramFamily, InfoFamily, StateSetFamily, UnknownFamily,
};
use crate::model::{FamilyDef, MetricType};

/// Where a source declares its families, each once: name, type and help here, then
/// `.unit(…)` and `.labels(&[…])` on the handle.
pub struct Describe {
    pub(crate) core: Rc<RefCell<Core>>,
}

impl Describe {
    fn declare(&mut self, name: &str, help: &str, metric_type: MetricType) -> Family {
        let def = FamilyDef {
            name: name.to_owned(),
            metric_type,
            unit: String::new(),
            help: help.to_owned(),
            label_names: Vec::new(),
        };
        let index = self.core.borrow_mut().add_family(def, None);
        Family { core: self.core.clone(), index }
    }

    /// A value that goes up and down. `name` is the whole name as it is exposed, unit included.
    pub fn gauge(&mut self, name: &str, help: &str) -> GaugeFamily {
        GaugeFamily(self.declare(name, help, MetricType::Gauge))
    }

    /// A value that only grows; `name` ends in `_total` (or is a name in use elsewhere that does not).
    pub fn counter(&mut self, name: &str, help: &str) -> CounterFamily {
        CounterFamily(self.declare(name, help, MetricType::Counter))
    }

    /// A distribution, with the upper bounds of its buckets in rising order, without `+Inf`.
    pub fn histogram(&mut self, name: &str, help: &str, bounds: &[f64]) -> HistogramFamily {
        let family = self.declare(name, help, MetricType::Histogram);
        if let Some(state) = self.core.borrow_mut().family(family.index) {
            state.bounds = bounds.to_vec();
            state.lines = histogram_lines(bounds);
        }
        HistogramFamily(family)
    }

    /// Facts as labels, with the value 1; `name` ends in `_info`.
    pub fn info(&mut self, name: &str, help: &str) -> InfoFamily {
        InfoFamily(self.declare(name, help, MetricType::Info))
    }

    /// Which of `states` something is in: one is 1, the others 0. The state stands in the label `label`.
    pub fn state_set(&mut self, name: &str, help: &str, label: &str, states: &[&str]) -> StateSetFamily {
        let family = self.declare(name, help, MetricType::StateSet);
        if let Some(state) = self.core.borrow_mut().family(family.index) {
            state.lines = state_lines(label, states);
        }
        StateSetFamily(family)
    }

    /// A value of no known type (`untyped`).
    pub fn unknown(&mut self, name: &str, help: &str) -> UnknownFamily {
        UnknownFamily(self.declare(name, help, MetricType::Unknown))
    }

    /// A label that every series of the plugin has, unless it has one of that name.
    pub fn label_all(&mut self, name: &str, value: &str) {
        self.core.borrow_mut().constant.push((name.to_owned(), value.to_owned()));
    }

    /// A series that so many collects in a row did not touch is retired: it vanishes at once. 1 unless said
    /// otherwise: what a collect does not set is gone at its end, as from an exporter's page. At least 1. What the
    /// plugin itself adds up (`inc_by`, `observe`) stays until it is removed.
    pub fn retire_after(&mut self, collects: u32) {
        self.core.borrow_mut().retire_after = collects.max(1);
    }
}
