//! Handles of series: what `with` gives, and what `keep` makes of it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::Core;
use crate::sys;

/// What every handle is underneath.
#[derive(Clone, Copy)]
pub(crate) struct SeriesRef<'a> {
    pub core: &'a Rc<RefCell<Core>>,
    pub index: u32,
}

impl SeriesRef<'_> {
    fn keep(self) -> Kept {
        self.core.borrow_mut().pin(self.index);
        Kept { core: self.core.clone(), index: self.index }
    }
}

struct Kept {
    core: Rc<RefCell<Core>>,
    index: u32,
}

impl Kept {
    #[inline]
    fn get(&self) -> SeriesRef<'_> {
        SeriesRef { core: &self.core, index: self.index }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Ok(mut core) = self.core.try_borrow_mut() {
            core.unpin(self.index);
        }
    }
}

/// A gauge's series.
#[derive(Clone, Copy)]
pub struct Gauge<'a>(pub(crate) SeriesRef<'a>);

impl Gauge<'_> {
    /// The value of this collect.
    #[inline]
    pub fn set(self, value: f64) {
        self.0.core.borrow_mut().set(self.0.index, value);
    }

    /// A value with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_at(self, value: f64, time_ms: u64) {
        self.0.core.borrow_mut().set_at(self.0.index, value, time_ms);
    }

    /// Ends the series with this collect.
    pub fn remove(self) {
        self.0.core.borrow_mut().remove(self.0.index);
    }

    /// A handle to keep over collects, which saves looking the labels up. Not to be used with an instance's end:
    /// it belongs to the source that made it.
    pub fn keep(self) -> KeptGauge {
        KeptGauge(self.0.keep())
    }
}

/// A gauge's series, kept. A series not set is still retired; setting it again brings it back.
pub struct KeptGauge(Kept);

impl KeptGauge {
    /// The value of this collect.
    #[inline]
    pub fn set(&self, value: f64) {
        Gauge(self.0.get()).set(value);
    }

    /// A value with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_at(&self, value: f64, time_ms: u64) {
        Gauge(self.0.get()).set_at(value, time_ms);
    }
}

/// A series of no known type.
#[derive(Clone, Copy)]
pub struct Unknown<'a>(pub(crate) SeriesRef<'a>);

impl Unknown<'_> {
    /// The value of this collect.
    #[inline]
    pub fn set(self, value: f64) {
        Gauge(self.0).set(value);
    }

    /// A value with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_at(self, value: f64, time_ms: u64) {
        Gauge(self.0).set_at(value, time_ms);
    }
}

/// A counter's series. Either the source has the total (`set_total`), or the plugin counts (`inc_by`): not both.
#[derive(Clone, Copy)]
pub struct Counter<'a>(pub(crate) SeriesRef<'a>);

impl Counter<'_> {
    /// The total, as the source has it.
    #[inline]
    pub fn set_total(self, total: f64) {
        self.0.core.borrow_mut().set(self.0.index, total);
    }

    /// A total with a time of its own, in milliseconds since the Unix epoch.
    pub fn set_total_at(self, total: f64, time_ms: u64) {
        self.0.core.borrow_mut().set_at(self.0.index, total, time_ms);
    }

    /// Adds to a total that the plugin keeps: pushed with every collect, and from 0 again after a restart of the
    /// instance. What is not a positive number is left out.
    pub fn inc_by(self, amount: f64) {
        if amount >= 0.0 && amount.is_finite() {
            self.0.core.borrow_mut().add_to(self.0.index, amount);
        }
    }

    /// Adds one.
    pub fn inc(self) {
        self.inc_by(1.0);
    }

    /// Ends the series with this collect, and its total.
    pub fn remove(self) {
        self.0.core.borrow_mut().remove(self.0.index);
    }

    /// A handle to keep over collects, which saves looking the labels up.
    pub fn keep(self) -> KeptCounter {
        KeptCounter(self.0.keep())
    }
}

/// A counter's series, kept. A series not set is still retired; setting it again brings it back.
pub struct KeptCounter(Kept);

impl KeptCounter {
    /// The total, as the source has it.
    #[inline]
    pub fn set_total(&self, total: f64) {
        Counter(self.0.get()).set_total(total);
    }

    /// Adds to a total that the plugin keeps.
    pub fn inc_by(&self, amount: f64) {
        Counter(self.0.get()).inc_by(amount);
    }
}

/// A series of facts.
#[derive(Clone, Copy)]
pub struct Info<'a>(pub(crate) SeriesRef<'a>);

impl Info<'_> {
    /// It is so in this collect.
    #[inline]
    pub fn set(self) {
        Gauge(self.0).set(1.0);
    }
}

/// A state set's series.
#[derive(Clone, Copy)]
pub struct StateSet<'a>(pub(crate) SeriesRef<'a>);

impl StateSet<'_> {
    /// The state of this collect. One that was not declared is a failure (`state`), and nothing is set.
    pub fn set(self, state: &str) {
        let mut core = self.0.core.borrow_mut();
        match core.state(self.0.index, state) {
            Some((nth, count)) => {
                let values = (0..count).map(|i| f64::from(u8::from(i == nth)));
                core.set_lines(self.0.index, values);
            }
            None => {
                drop(core);
                sys::fail("state", &format!("{state:?} is none of the declared states"));
            }
        }
    }
}

/// A histogram's series. Either the source has the buckets (`set_totals`), or the plugin counts (`observe`): not both.
#[derive(Clone, Copy)]
pub struct Histogram<'a>(pub(crate) SeriesRef<'a>);

impl Histogram<'_> {
    /// Counts a value: pushed with every collect, and from 0 again after a restart of the instance. NaN is left out.
    pub fn observe(self, value: f64) {
        if !value.is_nan() {
            self.0.core.borrow_mut().observe(self.0.index, value);
        }
    }

    /// What the source has: a cumulative count for each declared bound, the sum, and the count of all. Another
    /// number of buckets is a failure (`buckets`), and nothing is set.
    pub fn set_totals(self, cumulative: &[f64], sum: f64, count: f64) {
        let mut core = self.0.core.borrow_mut();
        let wanted = core.bounds(self.0.index);
        if wanted == cumulative.len() {
            let values = cumulative.iter().copied().chain([count, sum, count]);
            core.set_lines(self.0.index, values);
        } else {
            drop(core);
            let message = format!("{} buckets for a histogram that declares {wanted}", cumulative.len());
            sys::fail("buckets", &message);
        }
    }

    /// Ends the series with this collect, and what it counted.
    pub fn remove(self) {
        self.0.core.borrow_mut().remove(self.0.index);
    }
}
