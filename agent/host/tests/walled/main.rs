//! The same with the plugins in a worker, as the daemon has them; and what a worker may not do.

#![allow(clippy::unwrap_used)]

/// Plugins run in a worker.
pub const WALLED: bool = true;

#[path = "../plugins/actions.rs"]
mod actions;
mod escape;
#[path = "../plugins/former.rs"]
mod former;
#[path = "../plugins/hostile.rs"]
mod hostile;
#[path = "../plugins/kinds.rs"]
mod kinds;
#[path = "../plugins/life.rs"]
mod life;
#[path = "../plugins/support.rs"]
mod support;
mod workers;
