//! Handles of declared families. `N` is the number of labels, so that a forgotten label value does not compile.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::Core;
use crate::model::{MetricType, Part};
use crate::series::{Counter, Gauge, Histogram, Info, SeriesRef, StateSet, Unknown};

/// What every handle is underneath.
#[derive(Clone)]
pub(crate) struct Family {
    pub core: Rc<RefCell<Core>>,
    pub index: u32,
}

impl Family {
    fn unit(&self, unit: &str) {
        if let Some(family) = self.core.borrow_mut().family(self.index) {
            family.def.unit = unit.to_owned();
        }
    }

    fn labels(&self, names: &[&str]) {
        if let Some(family) = self.core.borrow_mut().family(self.index) {
            family.def.label_names = names.iter().map(|n| (*n).to_owned()).collect();
            // A state set's own label is declared with the others.
            let own = family.lines.first().and_then(|(_, label)| label.clone());
            if let Some((name, _)) = own.filter(|_| family.type_is(MetricType::StateSet)) {
                family.def.label_names.push(name);
            }
        }
    }

    #[inline]
    fn find<const N: usize>(&self, values: &[&str; N]) -> SeriesRef<'_> {
        let index = self.core.borrow_mut().find(self.index, Part::Value, values.iter().copied());
        SeriesRef { core: &self.core, index }
    }
}

macro_rules! family {
    ($(#[$doc:meta])* $name:ident, $series:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name<const N: usize = 0>(pub(crate) Family);

        impl<const N: usize> $name<N> {
            /// The unit in OpenMetrics' sense (`seconds`, `bytes`).
            #[must_use]
            pub fn unit(self, unit: &str) -> Self {
                self.0.unit(unit);
                self
            }

            /// The names of its labels.
            #[must_use]
            pub fn labels<const M: usize>(self, names: &[&str; M]) -> $name<M> {
                self.0.labels(names);
                $name(self.0)
            }

            /// The series with these label values, in the order of the declared names. An empty value is no label.
            #[inline]
            pub fn with(&self, values: &[&str; N]) -> $series<'_> {
                $series(self.0.find(values))
            }
        }
    };
}

family!(
    /// Values that go up and down.
    GaugeFamily,
    Gauge
);
family!(
    /// Values that only grow.
    CounterFamily,
    Counter
);
family!(
    /// Distributions.
    HistogramFamily,
    Histogram
);
family!(
    /// Facts as labels.
    InfoFamily,
    Info
);
family!(
    /// Which state something is in.
    StateSetFamily,
    StateSet
);
family!(
    /// Values of no known type.
    UnknownFamily,
    Unknown
);

impl GaugeFamily<0> {
    /// The value of the only series.
    pub fn set(&self, value: f64) {
        self.with(&[]).set(value);
    }
}

impl UnknownFamily<0> {
    /// The value of the only series.
    pub fn set(&self, value: f64) {
        self.with(&[]).set(value);
    }
}

impl CounterFamily<0> {
    /// The total of the only series, as the source has it.
    pub fn set_total(&self, total: f64) {
        self.with(&[]).set_total(total);
    }

    /// Adds to the only series.
    pub fn inc_by(&self, amount: f64) {
        self.with(&[]).inc_by(amount);
    }

    /// Adds one to the only series.
    pub fn inc(&self) {
        self.with(&[]).inc();
    }
}

impl HistogramFamily<0> {
    /// Counts a value in the only series.
    pub fn observe(&self, value: f64) {
        self.with(&[]).observe(value);
    }
}

impl StateSetFamily<0> {
    /// The state of the only series.
    pub fn set(&self, state: &str) {
        self.with(&[]).set(state);
    }
}
