//! The host with real components: what it loads and refuses, what it withstands, how it mends.

#![allow(clippy::unwrap_used)]

mod hostile;
mod kinds;
mod life;
mod support;
