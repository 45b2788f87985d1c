//! How much is done to the fleet: so many at a time, so many an hour, on so large a part of the nodes.

use std::collections::BTreeSet;

/// The fleet's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub max_running: usize,
    pub per_hour: usize,
    /// Of the connected nodes, those on which something runs or was begun in the last ten minutes; one at least.
    pub max_nodes_percent: usize,
}

/// What the store knows of what was begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The nodes of what runs, one an execution.
    pub running: Vec<String>,
    pub last_hour: usize,
    /// Nodes on which something was begun in the last ten minutes.
    pub recent_nodes: BTreeSet<String>,
    pub paused: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limited {
    #[error("all actions of the fleet are stopped; an admin lets them go on with `picket action resume`")]
    Breaker,
    #[error(
        "{0} actions run on the fleet already, actions.max_running allows no more; try again when one has ended"
    )]
    Running(usize),
    #[error("{0} actions were begun on the fleet within an hour, actions.per_hour allows no more")]
    PerHour(usize),
    #[error(
        "something was done to {0} of {1} connected nodes in the last ten minutes, actions.max_nodes_percent allows no more"
    )]
    Nodes(usize, usize),
}

/// The first reason against it, if there is one.
///
/// # Errors
/// [`Limited`]
pub fn check(bounds: Bounds, seen: &Seen, connected: usize, node: &str) -> Result<(), Limited> {
    if seen.paused {
        return Err(Limited::Breaker);
    }
    if seen.running.len() >= bounds.max_running {
        return Err(Limited::Running(seen.running.len()));
    }
    if seen.last_hour >= bounds.per_hour {
        return Err(Limited::PerHour(seen.last_hour));
    }
    let mut touched: BTreeSet<&str> =
        seen.running.iter().chain(&seen.recent_nodes).map(String::as_str).collect();
    let others = touched.len();
    touched.insert(node);
    let most = (connected * bounds.max_nodes_percent / 100).max(1);
    if touched.len() > most && !(others == touched.len() && others <= most) {
        return Err(Limited::Nodes(others, connected));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { max_running: 2, per_hour: 5, max_nodes_percent: 10 };

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("n{i}")).collect()
    }

    #[test]
    fn the_bounds() {
        let calm = Seen::default();
        assert_eq!(check(BOUNDS, &calm, 1, "n0"), Ok(()));
        let paused = Seen { paused: true, ..calm.clone() };
        assert_eq!(check(BOUNDS, &paused, 1, "n0"), Err(Limited::Breaker));
        let busy = Seen { running: names(2), ..calm.clone() };
        assert_eq!(check(BOUNDS, &busy, 100, "n9"), Err(Limited::Running(2)));
        let often = Seen { last_hour: 5, ..calm.clone() };
        assert_eq!(check(BOUNDS, &often, 100, "n9"), Err(Limited::PerHour(5)));
        // One node of ten at a time, two of twenty.
        let one = Seen { recent_nodes: names(1).into_iter().collect(), ..calm };
        assert_eq!(check(BOUNDS, &one, 10, "n9"), Err(Limited::Nodes(1, 10)));
        assert_eq!(check(BOUNDS, &one, 20, "n9"), Ok(()));
        // The same node again touches no more of them.
        assert_eq!(check(BOUNDS, &one, 10, "n0"), Ok(()));
    }

    proptest! {
        #[test]
        fn never_more_nodes_than_allowed(connected in 0usize..200, order in prop::collection::vec(0usize..200, 1..60)) {
            let bounds = Bounds { max_running: 1000, per_hour: 1000, max_nodes_percent: 10 };
            let mut seen = Seen::default();
            for n in order {
                let node = format!("n{n}");
                if check(bounds, &seen, connected, &node).is_ok() {
                    seen.recent_nodes.insert(node);
                }
            }
            prop_assert!(seen.recent_nodes.len() <= (connected / 10).max(1));
        }
    }
}
