//! The aggregator as strangers, nodes and people meet it: real TLS on real ports, in one process.

mod api;
mod fixture;
mod hostile;
mod identity;
mod own_ca;
