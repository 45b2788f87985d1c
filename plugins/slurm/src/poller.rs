//! Which node polls. A dump costs the controller the same whoever asks, so of the nodes that have this plugin one asks.
//!
//! Agents don't talk to each other. So either the operator names the node (`true` on it, or its name everywhere), or each
//! node asks Slurm and comes to the same answer: `auto` is the host that the active controller runs on (after a failover the
//! other one); of a list of candidates the one with the lowest name that Slurm hears of. The second can't see that an agent is
//! dead whose node lives.

use picket_sdk::{Failure, system};

use crate::commands;
use crate::model::Controller;
use crate::settings::Poller;
use crate::text;

/// Whether this node polls, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub polls: bool,
    pub why: String,
}

/// What can be said without asking Slurm.
pub fn settled(poller: &Poller) -> Option<Verdict> {
    let own = own_name();
    match poller {
        Poller::This(polls) => Some(Verdict { polls: *polls, why: format!("poller = {polls}") }),
        Poller::Named(name) if name == "auto" => None,
        Poller::Named(name) => {
            Some(Verdict { polls: same(name, &own), why: format!("poller = {name:?}, this node is {own}") })
        }
        Poller::Candidates(names) if !names.iter().any(|n| same(n, &own)) => {
            Some(Verdict { polls: false, why: format!("this node, {own}, is none of the candidates") })
        }
        Poller::Candidates(_) => None,
    }
}

/// `auto`: on the host of the controller that is active.
pub fn beside(controllers: &[Controller]) -> Verdict {
    let own = own_name();
    match active(controllers) {
        Some(c) if same(&c.host, &own) => {
            Verdict { polls: true, why: format!("the active controller runs here, on {own}") }
        }
        Some(c) => {
            Verdict { polls: false, why: format!("the active controller runs on {}, this is {own}", c.host) }
        }
        None => Verdict { polls: false, why: "no controller answers".to_owned() },
    }
}

/// The first that is up: the primary is told first.
pub fn active(controllers: &[Controller]) -> Option<&Controller> {
    controllers.iter().find(|c| c.up)
}

/// Of the candidates that Slurm hears of, is this node the lowest?
///
/// # Errors
/// Slurm could not be asked.
pub fn elect(candidates: &[String]) -> Result<Verdict, Failure> {
    let own = own_name();
    let list = commands::text(commands::NODE_STATES, &[("nodes", &candidates.join(","))])?;
    let mut heard = text::heard(&list);
    // Slurm may not hear of this node, or not know it: it does ask, though.
    if !heard.iter().any(|n| same(n, &own)) {
        heard.push(own.clone());
    }
    heard.sort();
    let lowest = heard.first().cloned().unwrap_or_default();
    Ok(Verdict {
        polls: same(&lowest, &own),
        why: format!("{lowest} is the lowest of the candidates that Slurm hears of, this is {own}"),
    })
}

fn own_name() -> String {
    system::uname().nodename
}

/// By the part before the first dot, whatever the case.
fn same(a: &str, b: &str) -> bool {
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    !a.is_empty() && short(a) == short(b)
}
