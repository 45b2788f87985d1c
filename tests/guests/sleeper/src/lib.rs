//! Sleeps in a host call: asks an address that does not answer.

use picket_sdk::{Collect, Describe, Failure, GaugeFamily, Source, http};
use serde::Deserialize;

#[derive(Deserialize, Default)]
struct Settings {
    url: String,
}

struct Sleeper {
    before: GaugeFamily,
    after: GaugeFamily,
    url: String,
}

impl Source for Sleeper {
    type Settings = Settings;

    fn describe(families: &mut Describe) -> Self {
        Self {
            before: families.gauge("test_before_sleep", "Set before the call."),
            after: families.gauge("test_after_sleep", "Set after the call."),
            url: String::new(),
        }
    }

    fn configure(&mut self, settings: Settings) -> Result<(), Failure> {
        self.url = settings.url;
        Ok(())
    }

    fn collect(&mut self, _: &mut Collect<'_>) -> Result<(), Failure> {
        self.before.set(1.0);
        let answer = http::send(&http::Request::get(&self.url));
        self.after.set(1.0);
        answer.map(drop).map_err(|error| Failure::new("asleep", error.to_string()))
    }
}

picket_sdk::export!(Sleeper);
