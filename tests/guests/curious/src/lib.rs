//! Wants to know the kernel's name, which nobody granted it.

use picket_sdk::{Collect, Describe, Failure, GaugeFamily, NoSettings, Source, system};

struct Curious {
    length: GaugeFamily,
}

impl Source for Curious {
    type Settings = NoSettings;

    fn describe(families: &mut Describe) -> Self {
        Self { length: families.gauge("test_name_length", "Bytes of the node's name.") }
    }

    fn collect(&mut self, _: &mut Collect<'_>) -> Result<(), Failure> {
        self.length.set(system::uname().nodename.len() as f64);
        Ok(())
    }
}

picket_sdk::export!(Curious);
