//! The series of one simulated node: named and moving like a Linux host's, the same for us and for every peer.
//!
//! Of each hundred series 45 stand still, 30 are integer counters, 10 are counters in hundredths of a second,
//! 15 are gauges in bytes that wander: the mix of a node_exporter page of an idle server.

/// The batch that stands for one collection of the `node` plugin.
pub const SERIES_PER_NODE: usize = 520;

pub struct SeriesShape {
    pub name: String,
    /// In order of name.
    pub labels: Vec<(String, String)>,
}

pub struct Shape {
    pub node: String,
    pub series: Vec<SeriesShape>,
    pub values: Vec<f64>,
    seed: u64,
}

impl Shape {
    /// `series` series in families of 20, two labels each.
    pub fn new(number: usize, series: usize) -> Self {
        let list: Vec<SeriesShape> = (0..series)
            .map(|i| {
                let family = i / 20;
                let suffix = if family % 2 == 0 { "seconds_total" } else { "bytes" };
                SeriesShape {
                    name: format!("bench_subsystem{family:03}_{suffix}"),
                    labels: vec![
                        ("device".into(), format!("nvme{}n1", i % 20)),
                        ("mode".into(), format!("mode{}", i % 7)),
                    ],
                }
            })
            .collect();
        let mut shape = Self {
            node: format!("bench-{number:05}"),
            values: vec![0.0; list.len()],
            series: list,
            seed: 0x9e37_79b9_7f4a_7c15 ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1,
        };
        for (i, value) in shape.values.iter_mut().enumerate() {
            *value = 1_000_000.0 + (i * 37) as f64;
        }
        shape
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// The next collection's values.
    pub fn step(&mut self) {
        for i in 0..self.values.len() {
            let r = self.random();
            match i % 20 {
                0..=8 => {}
                9..=14 => self.values[i] += (r % 2_000) as f64,
                15..=16 => self.values[i] = ((self.values[i] * 100.0).round() + (r % 1_500) as f64) / 100.0,
                _ => self.values[i] += (r % 64) as f64 * 4096.0 - 32.0 * 4096.0,
            }
        }
    }
}
