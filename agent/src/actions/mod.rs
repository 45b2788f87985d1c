//! What is done to the node on somebody's word.
//!
//! ```text
//! plan ──▶ digest ──▶ apply: plan again, same digest? ──▶ limits ──▶ Accepted ──▶ ┬ Intent ──▶ effect ──▶ Outcome ┬ ──▶ Ended
//!                                                                                └──────── a step at a time ──────┘
//! ```
//!
//! Observe-only unless the operator says otherwise. Each line of the journal is on disk before what it announces is done
//! or told, so after a crash an intent without an outcome is all that is not known; then the plugin is asked whether the
//! step took effect, and nothing is ever done again on a guess. A step of which nobody can say ends the execution as
//! `unknown`, for a person to look.

pub mod actor;
mod book;
pub mod digest;
pub mod execution;
mod executor;
mod hosted;
pub mod journal;
mod let_in;
pub mod limits;
mod run;
mod take;
mod telemetry;
#[cfg(test)]
pub(crate) mod tests;

pub use book::{ActionPlanned, Rules};
pub use executor::{Actions, ActionsOptions, Apply, Refused};
pub use hosted::{HostActors, check};
pub use take::NotTaken;
pub use telemetry::{Figures, Telemetry};
