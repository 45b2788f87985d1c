//! The aggregator as strangers, nodes and people meet it: real TLS on real ports, in one process.

// Helpers of tests are tests, which clippy sees only in the test functions themselves.
#![allow(clippy::unwrap_used, clippy::string_slice)]

mod api;
mod fixture;
mod hostile;
mod identity;
mod own_ca;
