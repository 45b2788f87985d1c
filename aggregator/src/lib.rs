//! The aggregator: ends the fleet's uplinks, makes what they bring durable, exports it as Prometheus metrics,
//! and answers people over an HTTP API.
//!
//! The way of the data: `transport` (TLS) → `ingest` (dedupe) → `log` (durable) → `store` (latest values) →
//! `http` (exposition, API). Plugins go the other way, from a registry through `rollout` to the nodes. Log lines go from `ingest` into `logs` and come out by `http` as Loki tells them. `identity` says who may speak at all: node certificates, enrolment and API tokens.

pub mod actions;
pub mod app;
pub mod audit;
pub mod clock;
pub mod config;
mod database;
mod durable;
pub mod events;
pub mod http;
pub mod identity;
pub mod ingest;
pub mod limiter;
pub mod log;
pub mod logs;
pub mod rollout;
pub mod store;
pub mod telemetry;
pub mod transport;
