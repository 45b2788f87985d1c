//! GPUs that are held and not used: processes are on it, and for minutes nothing runs. Time is counted from the last
//! use, or from when the present owners came.

use std::collections::BTreeMap;

use picket_sdk::{Collect, Event, Severity};
use serde::{Deserialize, Serialize};

use crate::owners::Owner;

pub const KIND: &str = "gpu.held-idle";

/// A GPU or an instance of one, as `UUID` and the number of the instance.
pub type Place = (String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// Milliseconds since the Unix epoch.
    used_ms: u64,
    /// Who: `job 42, user ada`.
    by: String,
    told: bool,
}

/// What is held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Idle(BTreeMap<String, Held>);

/// When it is too long.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub threshold_percent: f64,
    /// 0: there are no events.
    pub after_ms: u64,
}

impl Idle {
    /// A device with these owners; `used_percent` is how busy it was. Gives for how many milliseconds it was not used.
    pub fn see(
        &mut self,
        c: &mut Collect<'_>,
        place: &Place,
        owners: &[Owner],
        used_percent: f64,
        now_ms: u64,
        limit: Limit,
    ) -> u64 {
        let by = describe(owners);
        let held = self.0.entry(key(place)).or_insert_with(|| Held { used_ms: now_ms, ..Held::default() });
        let used = used_percent >= limit.threshold_percent;
        if used || held.by != by || held.used_ms > now_ms {
            if std::mem::take(&mut held.told) {
                let why = if used { "is used again" } else { "is held by others now" };
                c.emit(ended(place, why));
            }
            held.used_ms = now_ms;
            held.by = by;
            return 0;
        }
        let idle = now_ms - held.used_ms;
        if limit.after_ms > 0 && idle >= limit.after_ms && !held.told {
            held.told = true;
            let minutes = idle / 60_000;
            let message = format!("held by {} and not used for {minutes} minutes", held.by);
            let first = owners.first().cloned().unwrap_or_default();
            c.emit(
                Event::new(KIND, Severity::Warning, message)
                    .about("gpu", place.0.clone())
                    .attribute("slurm_job_id", first.job)
                    .attribute("user", first.user)
                    .attribute("container", first.container)
                    .attribute("GPU_I_ID", place.1.clone())
                    .key(format!("{}/held-idle", key(place))),
            );
        }
        idle
    }

    /// What was said, without the times.
    #[must_use]
    pub fn told(&self) -> Self {
        let told = self.0.iter().filter(|(_, held)| held.told);
        Self(told.map(|(k, held)| (k.clone(), Held { used_ms: 0, ..held.clone() })).collect())
    }

    /// Those that are not among these are held by nobody any more.
    pub fn keep(&mut self, c: &mut Collect<'_>, held: &[Place]) {
        self.0.retain(|name, state| {
            let kept = held.iter().any(|place| key(place) == *name);
            if !kept && state.told {
                let (uuid, instance) = name.split_once('/').unwrap_or((name, ""));
                c.emit(ended(&(uuid.to_owned(), instance.to_owned()), "is free"));
            }
            kept
        });
    }
}

fn key(place: &Place) -> String {
    if place.1.is_empty() { place.0.clone() } else { format!("{}/{}", place.0, place.1) }
}

fn ended(place: &Place, why: &str) -> Event {
    let key = key(place);
    Event::ended(KIND, format!("{key}/held-idle"), format!("GPU {key} {why}")).about("gpu", place.0.clone())
}

/// Without what is not known.
fn describe(owners: &[Owner]) -> String {
    let one = |owner: &Owner| {
        let parts = [
            ("job", owner.job.as_str()),
            ("user", owner.user.as_str()),
            ("container", owner.container.get(..12).unwrap_or(&owner.container)),
        ];
        let known: Vec<String> =
            parts.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k} {v}")).collect();
        if known.is_empty() { "an unknown process".to_owned() } else { known.join(", ") }
    };
    owners.iter().take(8).map(one).collect::<Vec<_>>().join("; ")
}
