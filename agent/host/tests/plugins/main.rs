//! The host with real components: what it loads and refuses, what it withstands, how it mends.

mod hostile;
mod kinds;
mod life;
mod support;
