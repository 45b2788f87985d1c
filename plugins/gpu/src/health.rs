//! How well a component is, and why. It gets worse at once, and better only after it was better for a while: what flaps
//! is one event.

use std::collections::BTreeMap;

use picket_sdk::nvml::Device;
use picket_sdk::{Collect, Event, Severity};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Action, Level, Recovery};
use crate::faults::{Fault, Kind};

pub const KIND: &str = "gpu.health";

/// In rising order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[default]
    Healthy,
    Degraded,
    Unhealthy,
}

impl State {
    pub const WORDS: [&'static str; 4] = ["healthy", "degraded", "unhealthy", "unknown"];

    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub state: State,
    /// A word: `xid-79`, `lost`, `row-remap-failure`.
    pub reason: String,
    /// Who says so: `nvml`, `driver`, `baseline`, or the source of a row of the catalogue.
    pub source: String,
}

impl Problem {
    pub fn new(state: State, reason: impl Into<String>, source: impl Into<String>) -> Self {
        Self { state, reason: reason.into(), source: source.into() }
    }
}

/// What a GPU had when all was well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Known {
    pub index: Option<u32>,
    pub name: String,
    pub pci: String,
    /// The links that were up, a bit each.
    pub links: u32,
    pub pcie_width: Option<u32>,
}

/// What is wrong with a GPU.
pub fn problems<'a>(
    device: &Device,
    known: Option<&Known>,
    faults: impl Iterator<Item = &'a Fault>,
) -> Vec<Problem> {
    use State::{Degraded, Unhealthy};
    let mut found = Vec::new();
    let mut add = |wrong: bool, state: State, reason: &str, source: &str| {
        if wrong {
            found.push(Problem::new(state, reason, source));
        }
    };
    add(device.lost.is_some(), Unhealthy, device.lost.as_deref().unwrap_or_default(), "nvml");
    let recovery = device.recovery_action.as_deref().map(Recovery::of);
    if let Some(action) = recovery.and_then(Recovery::action) {
        let state = if action >= Action::ResetGpu { Unhealthy } else { Degraded };
        add(true, state, recovery.map_or("", Recovery::word), "driver");
    }
    add(device.row_remap_failure == Some(true), Unhealthy, "row-remap-failure", "nvml");
    add(device.row_remap_pending == Some(true), Degraded, "row-remap-pending", "nvml");
    add(device.retired_pages_pending == Some(true), Degraded, "retired-pages-pending", "nvml");
    add(device.ecc_dbe_volatile.is_some_and(|n| n > 0), Degraded, "ecc-uncorrectable", "nvml");
    let throttled = device.throttle_reasons_active.iter().flatten();
    for reason in throttled {
        match reason.as_str() {
            "hw_thermal_slowdown" => add(true, Degraded, "hw-thermal-slowdown", "nvml"),
            "hw_power_brake_slowdown" => add(true, Degraded, "hw-power-brake-slowdown", "nvml"),
            _ => {}
        }
    }
    match device.fabric_state.as_deref() {
        Some("completed") => {
            let failed = device.fabric_status.as_deref().is_some_and(|s| s != "ok");
            add(failed, Unhealthy, "fabric-failed", "nvml");
        }
        Some("not-started" | "in-progress") => add(true, Degraded, "fabric-not-ready", "nvml"),
        _ => {}
    }
    if let Some(known) = known.filter(|_| device.lost.is_none()) {
        let down = device.nvlinks.iter().any(|l| l.active == Some(false) && known.links & bit(l.link) != 0);
        add(down, Degraded, "nvlink-down", "baseline");
        let narrower = device.pcie_width.zip(known.pcie_width).is_some_and(|(now, was)| now < was);
        add(narrower, Degraded, "pcie-width", "baseline");
    }
    found.extend(faults.filter(|f| f.kind == Kind::Xid).filter_map(|fault| {
        let state = match fault.severity {
            Level::Info => return None,
            Level::Warning => Degraded,
            Level::Critical => Unhealthy,
        };
        Some(Problem::new(state, format!("xid-{}", fault.code), fault.source.clone()))
    }));
    found
}

/// The bit of a link.
pub fn bit(link: u32) -> u32 {
    1u32.checked_shl(link).unwrap_or(0)
}

/// What is known of one component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Component {
    state: State,
    #[serde(default)]
    better_since: Option<u64>,
    #[serde(default)]
    reasons: String,
}

/// The components that are not well, or were not a moment ago.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Health(BTreeMap<String, Component>);

impl Health {
    /// Takes what is wrong now; gives the state to show, and sends the event where one begins or ends.
    pub fn see(
        &mut self,
        c: &mut Collect<'_>,
        component: &str,
        subject: (&str, &str),
        problems: &[Problem],
        now_ms: u64,
        clear_after_ms: u64,
    ) -> State {
        let seen = problems.iter().map(|p| p.state).max().unwrap_or_default();
        let (shown, change) = self.step(component, seen, now_ms, clear_after_ms);
        let reasons = problems.iter().map(|p| p.reason.as_str()).collect::<Vec<_>>().join(", ");
        let sources = problems.iter().map(|p| p.source.as_str()).collect::<Vec<_>>().join(", ");
        match change {
            Change::Worse => {
                let severity = if shown == State::Unhealthy { Severity::Critical } else { Severity::Warning };
                let message = format!("{component} is {}: {reasons}", shown.word());
                c.emit(
                    Event::new(KIND, severity, message)
                        .about(subject.0, subject.1)
                        .attribute("state", shown.word())
                        .attribute("reason", reasons.clone())
                        .attribute("source", sources)
                        .key(component),
                );
            }
            Change::Ended(was) => {
                let message = format!("{component} is healthy again; it was: {was}");
                c.emit(Event::ended(KIND, component, message).about(subject.0, subject.1));
            }
            Change::None => {}
        }
        if let Some(entry) = self.0.get_mut(component).filter(|_| !reasons.is_empty()) {
            entry.reasons = reasons;
        }
        shown
    }

    fn step(&mut self, component: &str, seen: State, now_ms: u64, clear_after_ms: u64) -> (State, Change) {
        let Some(known) = self.0.get_mut(component) else {
            if seen == State::Healthy {
                return (seen, Change::None);
            }
            let entry = Component { state: seen, ..Component::default() };
            self.0.insert(component.to_owned(), entry);
            return (seen, Change::Worse);
        };
        if seen >= known.state {
            let change = if seen > known.state { Change::Worse } else { Change::None };
            known.state = seen;
            known.better_since = None;
            return (seen, change);
        }
        let since = *known.better_since.get_or_insert(now_ms);
        if now_ms < since {
            known.better_since = Some(now_ms);
        }
        if now_ms.saturating_sub(since) < clear_after_ms {
            return (known.state, Change::None);
        }
        if seen == State::Healthy {
            let was = self.0.remove(component).map(|c| c.reasons).unwrap_or_default();
            return (seen, Change::Ended(was));
        }
        known.state = seen;
        known.better_since = None;
        (seen, Change::None)
    }

    /// Forgets components that are no more.
    pub fn retain(&mut self, c: &mut Collect<'_>, keep: impl Fn(&str) -> bool) {
        self.0.retain(|component, _| {
            let kept = keep(component);
            if !kept {
                let message = format!("{component} is no longer expected");
                c.emit(Event::ended(KIND, component.clone(), message));
            }
            kept
        });
    }
}

enum Change {
    None,
    /// It began, or got worse.
    Worse,
    /// With what was wrong.
    Ended(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn worse_at_once_and_better_after_a_while() {
        let mut health = Health::default();
        use State::{Degraded as D, Healthy as H, Unhealthy as U};
        for (at, seen, shown, worse, ended) in [
            (0, H, H, false, false),
            (1, D, D, true, false),
            (2, H, D, false, false),
            (3, D, D, false, false),
            (4, U, U, true, false),
            (10, D, U, false, false),
            (20, D, D, false, false),
            (21, H, D, false, false),
            (30, H, D, false, false),
            (31, H, H, false, true),
            (32, H, H, false, false),
        ] {
            let (got, change) = health.step("gpu/1", seen, at, 10);
            let got = (got, matches!(change, Change::Worse), matches!(change, Change::Ended(_)));
            assert_eq!(got, (shown, worse, ended), "at {at}");
        }
    }

    proptest! {
        /// An end comes only after a beginning, and a state that holds is shown in the end.
        #[test]
        fn beginnings_and_ends_alternate(story in prop::collection::vec((0u64..20, 0u8..3), 0..80)) {
            let mut health = Health::default();
            let (mut at, mut open) = (0, false);
            for (wait, state) in story {
                at += wait;
                let seen = match state { 0 => State::Healthy, 1 => State::Degraded, _ => State::Unhealthy };
                let (shown, change) = health.step("x", seen, at, 10);
                prop_assert!(shown >= seen);
                match change {
                    Change::Worse => open = true,
                    Change::Ended(_) => prop_assert!(std::mem::replace(&mut open, false)),
                    Change::None => {}
                }
                prop_assert_eq!(open, shown > State::Healthy);
            }
            health.step("x", State::Healthy, at + 1, 10);
            let (shown, _) = health.step("x", State::Healthy, at + 11, 10);
            prop_assert_eq!(shown, State::Healthy);
        }
    }
}
