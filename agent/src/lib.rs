//! The per-node agent: runs plugins by the clock, keeps what they say in a bounded queue on disk, brings it up to the
//! aggregator, and shows it on a local page. It never trusts a plugin, and never needs the aggregator to keep collecting.

pub mod actions;
pub mod app;
pub mod client;
pub mod clock;
pub mod collector;
mod conditions;
pub mod config;
pub mod detect;
pub mod health;
pub mod http;
pub mod identity;
pub mod lines;
pub mod logs;
pub mod notify;
pub mod offers;
mod own;
pub mod schedule;
pub mod shelf;
pub mod trust;
pub mod uplink;
pub mod watch;
