//! The host with real components: what it loads and refuses, what it withstands, how it mends.

#![allow(clippy::unwrap_used)]

/// Plugins run in this very process.
pub const WALLED: bool = false;

mod actions;
mod former;
mod hostile;
mod kinds;
mod life;
mod support;
