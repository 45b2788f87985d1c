//! Links that go down and come back, as events: one for a flapping link, ended when it was quiet for a while.
//!
//! A port that was never seen active is one that nobody plugged in: nothing is said of it. The end is also sent for
//! each port that is active when it is first seen: the fault may have been told before a restart, and this state is not
//! kept over one.

use std::collections::BTreeMap;
use std::time::Duration;

use picket_sdk::{Collect, Event, Severity};

/// The state of a port that carries traffic.
const ACTIVE: u32 = 4;
const KIND: &str = "infiniband.link-down";

/// What one reading says of a port.
pub struct Reading {
    /// The number and the word.
    pub state: (u32, String),
    pub physical: Option<(u32, String)>,
    /// How often the link went down, as the adapter counts.
    pub downed: Option<u64>,
}

#[derive(Default)]
pub struct Links {
    enabled: bool,
    stable: Duration,
    ports: BTreeMap<(String, String), Port>,
}

struct Port {
    active: bool,
    downed: Option<u64>,
    seen: bool,
    /// Since the condition began.
    times: u64,
    /// When it was last seen down or going down; none: the condition does not hold.
    trouble: Option<Duration>,
}

impl Links {
    pub fn configure(&mut self, enabled: bool, stable: Duration) {
        self.enabled = enabled;
        self.stable = stable;
    }

    pub fn begin(&mut self) {
        self.ports.values_mut().for_each(|port| port.seen = false);
    }

    pub fn see(&mut self, c: &mut Collect<'_>, now: Duration, labels: &[&str; 2], reading: &Reading) {
        if !self.enabled {
            return;
        }
        let active = reading.state.0 == ACTIVE;
        let key = (labels[0].to_owned(), labels[1].to_owned());
        let Some(port) = self.ports.get_mut(&key) else {
            if active {
                c.emit(ended(&key, "is active"));
            }
            let port = Port { active, downed: reading.downed, seen: true, times: 0, trouble: None };
            self.ports.insert(key, port);
            return;
        };
        port.seen = true;
        let counted = match (port.downed, reading.downed) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => 0,
        };
        let went_down = port.active && !active;
        if reading.downed.is_some() {
            port.downed = reading.downed;
        }
        port.active = active;
        if went_down || counted > 0 {
            let physical = reading.physical.as_ref().map_or("", |(_, word)| word.as_str());
            let what = if active {
                "went down and came back".to_owned()
            } else {
                format!("went down: {} ({physical})", reading.state.1)
            };
            let event = trouble(port, now, counted.max(1), &key, &what);
            if let Some(event) = event {
                c.emit(event.attribute("state", &reading.state.1).attribute("physical_state", physical));
            }
        } else if !active && port.trouble.is_some() {
            port.trouble = Some(now);
        }
        self.settle(c, now, &key);
    }

    /// Ends the reading: ports that are gone were not seen.
    pub fn finish(&mut self, c: &mut Collect<'_>, now: Duration) {
        for (key, port) in &mut self.ports {
            if port.seen {
                continue;
            }
            if port.active {
                port.active = false;
                let event = trouble(port, now, 1, key, "vanished with its adapter");
                if let Some(event) = event {
                    c.emit(event.attribute("state", "absent"));
                }
            }
            port.downed = None;
        }
    }

    fn settle(&mut self, c: &mut Collect<'_>, now: Duration, key: &(String, String)) {
        let Some(port) = self.ports.get_mut(key) else { return };
        let quiet = port.trouble.is_some_and(|at| now.saturating_sub(at) >= self.stable);
        if port.active && quiet {
            port.trouble = None;
            let times = std::mem::take(&mut port.times);
            c.emit(ended(key, "is active again").attribute("times_down", times.to_string()));
        }
    }
}

/// Notes it; gives the event where the condition begins with it.
fn trouble(port: &mut Port, now: Duration, times: u64, key: &(String, String), what: &str) -> Option<Event> {
    port.times = port.times.saturating_add(times);
    let begins = port.trouble.replace(now).is_none();
    begins.then(|| {
        let message = format!("port {} of {} {what}", key.1, key.0);
        Event::new(KIND, Severity::Warning, message)
            .about("infiniband-port", format!("{}/{}", key.0, key.1))
            .key(format!("{}/{}", key.0, key.1))
    })
}

fn ended(key: &(String, String), what: &str) -> Event {
    let (device, port) = key;
    Event::ended(KIND, format!("{device}/{port}"), format!("port {port} of {device} {what}"))
        .about("infiniband-port", format!("{device}/{port}"))
}
