//! One module a row of `docs/benchmarks.md`.

pub mod agent;
pub mod exposition;
pub mod flat;
pub mod ingest;
pub mod parse;
pub mod server;
pub mod soak;
pub mod sources;
pub mod streams;
pub mod tax;
pub mod wire;
