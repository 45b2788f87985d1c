//! Passes the page of a busy vLLM server on, once a collect, and says how long that took: what a page costs in the
//! sandbox.

use picket_sdk::exposition::Passthrough;
use picket_sdk::{Collect, Describe, Failure, GaugeFamily, NoSettings, Source, clock};

const PAGE: &[u8] = include_bytes!("../../../../sdk/tests/pages/vllm_busy.txt");

struct Pages {
    seconds: GaugeFamily,
    bytes: GaugeFamily,
    samples: GaugeFamily,
    pages: GaugeFamily,
    pass: Passthrough,
    count: f64,
    /// Of the quickest page so far: what others took from it is not the page's.
    least: f64,
}

impl Source for Pages {
    type Settings = NoSettings;

    fn describe(d: &mut Describe) -> Self {
        Self {
            seconds: d.gauge("test_page_seconds", "The least time that a page took."),
            bytes: d.gauge("test_page_bytes", "The size of the page."),
            samples: d.gauge("test_page_samples", "Samples of the page that were passed on."),
            pages: d.gauge("test_pages", "Pages so far."),
            pass: Passthrough::default(),
            count: 0.0,
            least: f64::INFINITY,
        }
    }

    fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
        let begun = clock::monotonic();
        let stats = self.pass.page(collect, PAGE, &[("container", "vllm-0"), ("gpu", "0,1")])?;
        self.least = self.least.min((clock::monotonic() - begun).as_secs_f64());
        self.count += 1.0;
        self.seconds.set(self.least);
        self.bytes.set(PAGE.len() as f64);
        self.samples.set(stats.samples as f64);
        self.pages.set(self.count);
        Ok(())
    }
}

picket_sdk::export!(Pages);
