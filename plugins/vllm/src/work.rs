//! What a page says of a server's work, read while it is passed on.

use picket_sdk::exposition::Watch;

use crate::engine::Activity;

/// Requests that run or wait.
const REQUESTS: [&str; 2] = ["vllm:num_requests_running", "vllm:num_requests_waiting"];
/// What moves with each token and each iteration.
const MOVES: [&str; 3] =
    ["vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:iteration_tokens_total_count"];

/// The meter of one server. [`Meter::begin`] before each page.
#[derive(Debug, Default)]
pub struct Meter {
    series: Vec<Series>,
    pub activity: Activity,
    /// When the process began, in seconds since the Unix epoch.
    pub started: Option<f64>,
}

#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    what: What,
}

#[derive(Debug, Clone, PartialEq)]
enum What {
    Requests(String),
    Moves(String),
    Started,
}

impl Meter {
    pub fn begin(&mut self) {
        self.activity.clear();
        self.started = None;
    }
}

impl Watch for Meter {
    fn slot(&mut self, name: &str, labels: &[(String, String)]) -> Option<u32> {
        // Servers before 0.9 have one engine and no label for it.
        let engine =
            || labels.iter().find(|(n, _)| n == "engine").map_or_else(String::new, |(_, v)| v.clone());
        let what = if REQUESTS.contains(&name) {
            What::Requests(engine())
        } else if MOVES.contains(&name) {
            What::Moves(engine())
        } else if name == "process_start_time_seconds" && labels.is_empty() {
            What::Started
        } else {
            return None;
        };
        let known = self.series.iter().position(|s| s.name == name && s.labels == labels);
        let slot = known.unwrap_or_else(|| {
            self.series.push(Series { name: name.to_owned(), labels: labels.to_vec(), what });
            self.series.len() - 1
        });
        u32::try_from(slot).ok()
    }

    fn value(&mut self, slot: u32, value: f64) {
        let Some(series) = self.series.get(slot as usize) else { return };
        if !value.is_finite() {
            return;
        }
        match &series.what {
            What::Requests(engine) => self.activity.entry(engine.clone()).or_default().requests += value,
            What::Moves(engine) => self.activity.entry(engine.clone()).or_default().moved += value,
            What::Started => self.started = Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Work;

    #[test]
    fn engines_are_told_apart() {
        let mut meter = Meter::default();
        let engine = |n: &str| vec![("engine".to_owned(), n.to_owned())];
        let page = [
            ("vllm:num_requests_running", engine("0"), 2.0),
            ("vllm:num_requests_waiting", engine("0"), 1.0),
            ("vllm:generation_tokens_total", engine("0"), 5.0),
            ("vllm:iteration_tokens_total_count", engine("0"), 6.0),
            ("vllm:num_requests_running", engine("1"), f64::NAN),
            ("vllm:prompt_tokens_total", engine("1"), 7.0),
            ("vllm:iteration_tokens_total_sum", engine("1"), 9.0),
            ("process_start_time_seconds", Vec::new(), 100.0),
        ];
        for _ in 0..2 {
            meter.begin();
            for (name, labels, value) in &page {
                if let Some(slot) = meter.slot(name, labels) {
                    meter.value(slot, *value);
                }
            }
            let expected = [
                ("0".to_owned(), Work { requests: 3.0, moved: 11.0 }),
                ("1".to_owned(), Work { requests: 0.0, moved: 7.0 }),
            ];
            assert_eq!(meter.activity, Activity::from(expected));
            assert_eq!(meter.started, Some(100.0));
            assert_eq!(meter.series.len(), 7, "asked again, no series is new");
        }
    }
}
