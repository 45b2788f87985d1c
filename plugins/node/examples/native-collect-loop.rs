//! The node plugin without a sandbox, over the real files: prints the CPU microseconds of a collection.
//! The native side of the benchmark row `tax`.

use std::error::Error;

use picket_plugin_node::Node;
use picket_sdk::testing::Host;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::args().nth(1).ok_or("usage: native-collect-loop ROUNDS")?.parse()?;
    let mut host = Host::<Node>::new().files_root("/");
    host.real_clock();
    host.configure(&picket_sdk::serde_json::json!({}))?;
    for _ in 0..5 {
        host.collect()?;
    }
    let before = cpu_microseconds()?;
    for _ in 0..rounds {
        host.collect()?;
    }
    println!("{:.1}", (cpu_microseconds()? - before) / f64::from(rounds));
    Ok(())
}

/// Of this thread, by the scheduler's clock (proc(5), `schedstat`, nanoseconds on the CPU).
fn cpu_microseconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().ok_or("schedstat is empty")?.parse::<f64>()? / 1000.0)
}
