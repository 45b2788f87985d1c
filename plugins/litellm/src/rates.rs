//! Rates of each model, from the proxy's counters.
//!
//! A counter that goes back has begun anew, with its process: what it has since then is what it grew by. A series that
//! was not on an earlier page began at nothing. So what was counted stays counted over the proxy's restarts, and the rate
//! over the last minute is right in the midst of one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use picket_sdk::exposition::Watch;

/// What a rate is taken over.
const WINDOW: Duration = Duration::from_secs(60);
/// Names that are remembered: people may ask for anything.
const MOST_NAMES: usize = 1_000;
/// Points of one model in the window.
const MOST_POINTS: usize = 128;

/// What is counted, in the order of [`Totals`].
#[derive(Debug, Clone, Copy)]
enum What {
    Requests,
    Errors,
    Input,
    Output,
    LatencySum,
    LatencyCount,
}

type Totals = [f64; 6];

enum Slot {
    Counter {
        model: usize,
        what: What,
        last: Option<f64>,
    },
    /// Of a deployment.
    State {
        id: String,
    },
}

#[derive(Default)]
struct PerModel {
    totals: Totals,
    points: VecDeque<(Duration, Totals)>,
}

/// What a model did in the last minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Minute {
    pub requests: f64,
    pub errors: f64,
    pub input: f64,
    pub output: f64,
    /// Mean latency in milliseconds, where there was a request.
    pub latency_ms: Option<f64>,
}

/// Reads the page on its way.
#[derive(Default)]
pub struct Rates {
    slots: Vec<Slot>,
    names: HashMap<String, usize>,
    models: Vec<PerModel>,
    states: HashMap<String, f64>,
    /// Deployments on the page under way.
    seen: HashMap<String, f64>,
    now: Duration,
    pages: u64,
}

impl Rates {
    pub fn begin(&mut self, now: Duration) {
        self.now = now;
        self.seen.clear();
    }

    /// The page was read to its end.
    pub fn end(&mut self) {
        self.pages += 1;
        std::mem::swap(&mut self.states, &mut self.seen);
        for model in &mut self.models {
            model.points.push_back((self.now, model.totals));
            // One point older than the window stays: the rate is taken from there.
            while model.points.get(1).is_some_and(|(at, _)| self.now.saturating_sub(*at) >= WINDOW)
                || model.points.len() > MOST_POINTS
            {
                model.points.pop_front();
            }
        }
    }

    /// `litellm_deployment_state`: 0 healthy, 1 partial outage, 2 outage.
    pub fn deployment_state(&self, id: &str) -> Option<f64> {
        self.states.get(id).copied()
    }

    /// The rates of every model that had two pages.
    pub fn per_model(&self) -> Vec<(String, Minute)> {
        let mut list: Vec<(String, Minute)> = self
            .names
            .iter()
            .filter_map(|(name, index)| Some((name.clone(), self.models.get(*index)?.minute()?)))
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }

    fn model(&mut self, name: &str) -> Option<usize> {
        if let Some(index) = self.names.get(name) {
            return Some(*index);
        }
        if self.names.len() >= MOST_NAMES {
            return None;
        }
        let mut model = PerModel::default();
        if self.pages > 0 {
            // Nothing was counted of it on the page before.
            let before = self.models.iter().filter_map(|m| m.points.back()).map(|(at, _)| *at).max();
            model.points.push_back((before.unwrap_or(self.now), Totals::default()));
        }
        self.models.push(model);
        self.names.insert(name.to_owned(), self.models.len() - 1);
        Some(self.models.len() - 1)
    }
}

impl PerModel {
    fn minute(&self) -> Option<Minute> {
        let ((from, old), (to, new)) = (self.points.front()?, self.points.back()?);
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let grown = |what: What| {
            let at = what as usize;
            new.get(at).copied().unwrap_or(0.0) - old.get(at).copied().unwrap_or(0.0)
        };
        let rate = |what: What| grown(what) * 60.0 / seconds;
        let answered = grown(What::LatencyCount);
        Some(Minute {
            requests: rate(What::Requests),
            errors: rate(What::Errors),
            input: rate(What::Input),
            output: rate(What::Output),
            latency_ms: (answered > 0.0).then(|| grown(What::LatencySum) * 1000.0 / answered),
        })
    }
}

impl Watch for Rates {
    fn slot(&mut self, name: &str, labels: &[(String, String)]) -> Option<u32> {
        let what = match name {
            "litellm_proxy_total_requests_metric_total" => What::Requests,
            "litellm_proxy_failed_requests_metric_total" => What::Errors,
            "litellm_input_tokens_metric_total" => What::Input,
            "litellm_output_tokens_metric_total" => What::Output,
            "litellm_request_total_latency_metric_sum" => What::LatencySum,
            "litellm_request_total_latency_metric_count" => What::LatencyCount,
            "litellm_deployment_state" => {
                let id = label(labels, "model_id").filter(|id| !id.is_empty())?.to_owned();
                self.slots.push(Slot::State { id });
                return u32::try_from(self.slots.len() - 1).ok();
            }
            _ => return None,
        };
        // The name that was asked for; older proxies have others. Their own probes ask for none.
        let asked = label(labels, "requested_model").or_else(|| label(labels, "model_group"));
        let model = asked.or_else(|| label(labels, "model")).filter(|m| !m.is_empty() && *m != "None")?;
        let model = self.model(model)?;
        // On the first page nobody knows since when it counts.
        let last = (self.pages > 0).then_some(0.0);
        self.slots.push(Slot::Counter { model, what, last });
        u32::try_from(self.slots.len() - 1).ok()
    }

    fn value(&mut self, slot: u32, value: f64) {
        match self.slots.get_mut(slot as usize) {
            Some(Slot::Counter { model, what, last }) => {
                let grown = match *last {
                    Some(last) if value >= last => value - last,
                    Some(_) => value,
                    None => 0.0,
                };
                *last = Some(value);
                let total = self.models.get_mut(*model).and_then(|m| m.totals.get_mut(*what as usize));
                if let Some(total) = total
                    && grown.is_finite()
                {
                    *total += grown;
                }
            }
            Some(Slot::State { id }) => {
                // The better of several: a deployment may be reached in more than one way.
                let best = self.seen.entry(id.clone()).or_insert(value);
                *best = best.min(value);
            }
            None => {}
        }
    }
}

fn label<'a>(labels: &'a [(String, String)], name: &str) -> Option<&'a str> {
    labels.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Page {
        rates: Rates,
        slots: HashMap<String, u32>,
        at: u64,
    }

    impl Page {
        /// A page after so many seconds, of requests a model.
        fn after(&mut self, seconds: u64, requests: &[(&str, f64)]) {
            self.at += seconds;
            self.rates.begin(Duration::from_secs(self.at));
            for (model, value) in requests {
                let labels = [("requested_model".to_owned(), (*model).to_owned())];
                let rates = &mut self.rates;
                let slot = *self.slots.entry((*model).to_owned()).or_insert_with(|| {
                    rates.slot("litellm_proxy_total_requests_metric_total", &labels).unwrap()
                });
                self.rates.value(slot, *value);
            }
            self.rates.end();
        }

        fn rate(&self, model: &str) -> Option<f64> {
            self.rates.per_model().into_iter().find(|(name, _)| name == model).map(|(_, m)| m.requests)
        }
    }

    fn page() -> Page {
        Page { rates: Rates::default(), slots: HashMap::new(), at: 1000 }
    }

    #[test]
    fn a_rate_is_over_the_last_minute() {
        let mut page = page();
        page.after(0, &[("a", 100.0)]);
        assert_eq!(page.rate("a"), None, "nobody knows when those were");
        page.after(15, &[("a", 110.0)]);
        assert_eq!(page.rate("a"), Some(40.0));
        for _ in 0..10 {
            page.after(15, &[("a", 110.0)]);
        }
        assert_eq!(page.rate("a"), Some(0.0));
        page.after(15, &[("a", 140.0)]);
        assert_eq!(page.rate("a"), Some(30.0));
    }

    #[test]
    fn a_counter_that_begins_anew_loses_and_adds_nothing() {
        let mut page = page();
        page.after(0, &[("a", 1000.0)]);
        page.after(30, &[("a", 1010.0)]);
        page.after(30, &[("a", 5.0)]);
        assert_eq!(page.rate("a"), Some(15.0));
    }

    #[test]
    fn a_series_that_is_new_began_at_nothing() {
        let mut page = page();
        page.after(0, &[("a", 1000.0)]);
        page.after(30, &[("a", 1000.0), ("b", 4.0)]);
        assert_eq!(page.rate("b"), Some(8.0));
    }

    #[test]
    fn names_are_bounded_and_probes_are_nobodys() {
        let mut rates = Rates::default();
        let ask = |rates: &mut Rates, name: &str| {
            let labels = [("requested_model".to_owned(), name.to_owned())];
            rates.slot("litellm_proxy_total_requests_metric_total", &labels)
        };
        assert_eq!(ask(&mut rates, ""), None);
        for i in 0..2 * MOST_NAMES {
            ask(&mut rates, &format!("m{i}"));
        }
        assert_eq!(rates.names.len(), MOST_NAMES);
    }
}
