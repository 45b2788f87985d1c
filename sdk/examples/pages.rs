//! How fast pages are passed on natively: `cargo run --release --example pages -- FILE…`. In the sandbox an
//! end-to-end test measures it.
#![allow(clippy::unwrap_used)] // a measurement, not a plugin

#[cfg(not(target_arch = "wasm32"))]
fn main() {
    use std::time::{Duration, Instant};

    use picket_sdk::exposition::{Passthrough, samples};
    use picket_sdk::testing::Host;
    use picket_sdk::{Collect, Describe, Failure, NoSettings, Source};

    struct Page {
        pass: Passthrough,
        body: Vec<u8>,
        took: Vec<Duration>,
    }

    impl Source for Page {
        type Settings = NoSettings;

        fn describe(_: &mut Describe) -> Self {
            Self { pass: Passthrough::default(), body: Vec::new(), took: Vec::new() }
        }

        fn collect(&mut self, collect: &mut Collect<'_>) -> Result<(), Failure> {
            let begun = Instant::now();
            self.pass.page(collect, &self.body, &[("container", "vllm-0")])?;
            self.took.push(begun.elapsed());
            Ok(())
        }
    }

    for file in std::env::args().skip(1) {
        let body = std::fs::read(&file).unwrap();
        let mut host = Host::<Page>::new();
        host.plugin().body = body.clone();
        for _ in 0..200 {
            host.collect().unwrap();
        }
        let took = std::mem::take(&mut host.plugin().took);
        let (first, least) = (took.first().copied().unwrap(), took.iter().min().copied().unwrap());
        let speed = |time: Duration| body.len() as f64 / time.as_secs_f64() / 1e6;
        println!(
            "{file}: {} bytes, {} samples: {:.0} MB/s ({least:?} a page), the first page {:.0} MB/s",
            body.len(),
            samples(&body).count(),
            speed(least),
            speed(first)
        );
    }
}

#[cfg(target_arch = "wasm32")]
fn main() {}
