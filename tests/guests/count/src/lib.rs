//! Counts its own collects: 1, 2, 3 … since the instance was made, so that a gap in what arrives is visible.

use picket_sdk::{Collect, Describe, Failure, GaugeFamily, Source};
use serde::Deserialize;

/// It has none, and takes those of another plugin that it replaces.
#[derive(Default, Deserialize)]
struct Settings {}

struct Count {
    ticks: GaugeFamily,
    number: f64,
}

impl Source for Count {
    type Settings = Settings;

    fn describe(families: &mut Describe) -> Self {
        Self { ticks: families.gauge("test_ticks", "Collects of this instance so far."), number: 0.0 }
    }

    fn collect(&mut self, _: &mut Collect<'_>) -> Result<(), Failure> {
        self.number += 1.0;
        self.ticks.set(self.number);
        Ok(())
    }
}

picket_sdk::export!(Count);
