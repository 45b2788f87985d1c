//! What a stream learns of its agent's clock.

/// A batch this much older than the one before it, or newer than now, tells that the agent's clock was set.
const CLOCK_STEP_MS: i64 = 60_000;

/// How the agent's clock stands to ours, so that a replayed sample isn't taken for a fresh one.
#[derive(Default)]
pub(super) struct AgentClock {
    /// To be added to the agent's times.
    pub(super) skew_ms: Option<i64>,
    pub(super) last_ms: Option<i64>,
}

impl AgentClock {
    /// When something of the agent's time `agent_ms` happened by our clock, at most now.
    pub(super) fn ours(&mut self, agent_ms: i64, now_ms: i64) -> i64 {
        let stepped_back = self.last_ms.is_some_and(|last| agent_ms < last.saturating_sub(CLOCK_STEP_MS));
        self.last_ms = Some(agent_ms);
        let skew_ms = match self.skew_ms {
            Some(skew)
                if !stepped_back && agent_ms.saturating_add(skew) <= now_ms.saturating_add(CLOCK_STEP_MS) =>
            {
                skew
            }
            _ => now_ms.saturating_sub(agent_ms),
        };
        self.skew_ms = Some(skew_ms);
        agent_ms.saturating_add(skew_ms).min(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_clock() {
        const HOUR: i64 = 3_600_000;
        // (the agent's time, ours, when it was by ours); the agent is an hour behind.
        let check = |steps: &[(i64, i64, i64)]| {
            let mut clock = AgentClock { skew_ms: Some(HOUR), last_ms: None };
            for &(agent, now, want) in steps {
                assert_eq!(clock.ours(agent, now), want, "{steps:?}");
            }
        };
        let live = (0, HOUR + 5, HOUR);
        check(&[live, (1000, HOUR + 1000, HOUR + 1000)]);
        // A backlog is old, up to where it ends.
        check(&[(-5 * HOUR, HOUR, -4 * HOUR), (-4 * HOUR, HOUR, -3 * HOUR), live]);
        // Set back two hours, set forward two hours: what comes first after that is taken for live.
        check(&[live, (-2 * HOUR, HOUR + 10, HOUR + 10), (-2 * HOUR + 15, HOUR + 30, HOUR + 25)]);
        check(&[live, (2 * HOUR, HOUR + 10, HOUR + 10), (2 * HOUR + 15, HOUR + 30, HOUR + 25)]);
        // A little ahead is now.
        check(&[live, (500, HOUR + 100, HOUR + 100)]);
        check(&[(i64::MIN, 0, i64::MIN + HOUR), (i64::MAX, 0, 0)]);
    }
}
