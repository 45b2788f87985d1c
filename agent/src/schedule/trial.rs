//! A new version's first collect, which nobody sees: what it pushes is put aside, and handed on only where the version is
//! taken over.
//!
//! Its values are left out even then: the plugin's rhythm goes on as if nothing had been, so that history has neither a gap
//! nor a value too many. Kept are definitions, without which the numbers of later collects would mean nothing, values that
//! bring their own time, and events, which happen once. Logs are not read by a trial: they would have to be read again.

use picket_agent_host::{LogRecord, SampleSink};
use picket_proto::model::{Family, Labels, Part};
use picket_proto::v1;

/// What a trial pushed, in its order. Bounded by the limits of one collect.
#[derive(Default)]
pub(super) struct Trial {
    said: Vec<Said>,
}

enum Said {
    Begin(u64),
    Family(u32, Family),
    Series(u32, u32, Part, Labels),
    Timed(Vec<(u32, f64, i64)>),
    Retire(Vec<u32>),
    Event(Box<v1::Event>),
    Fail(String, String),
}

impl Trial {
    /// Hands on what outlives the trial.
    pub fn hand_on(self, sink: &mut dyn SampleSink) {
        for said in self.said {
            match said {
                Said::Begin(generation) => sink.begin(generation),
                Said::Family(id, family) => sink.family(id, &family),
                Said::Series(id, family, part, labels) => {
                    // Whoever can't take it has counted why.
                    let _ = sink.series(id, family, part, &labels);
                }
                Said::Timed(points) => sink.timed_points(&points),
                Said::Retire(ids) => sink.retire(&ids),
                Said::Event(event) => sink.event(*event),
                Said::Fail(reason, message) => sink.fail(&reason, &message),
            }
        }
    }
}

impl SampleSink for Trial {
    fn begin(&mut self, generation: u64) {
        self.said.push(Said::Begin(generation));
    }

    fn family(&mut self, id: u32, family: &Family) {
        self.said.push(Said::Family(id, family.clone()));
    }

    fn series(&mut self, id: u32, family: u32, part: Part, labels: &Labels) -> Result<(), String> {
        self.said.push(Said::Series(id, family, part, labels.clone()));
        Ok(())
    }

    fn points(&mut self, _: &[(u32, f64)]) {}

    fn timed_points(&mut self, points: &[(u32, f64, i64)]) {
        self.said.push(Said::Timed(points.to_vec()));
    }

    fn retire(&mut self, ids: &[u32]) {
        self.said.push(Said::Retire(ids.to_vec()));
    }

    fn event(&mut self, event: v1::Event) {
        self.said.push(Said::Event(Box::new(event)));
    }

    fn logs(&mut self, _: LogRecord) -> Result<(), String> {
        Err("a trial keeps no log lines; they are read again".to_owned())
    }

    fn fail(&mut self, reason: &str, message: &str) {
        self.said.push(Said::Fail(reason.to_owned(), message.to_owned()));
    }
}
