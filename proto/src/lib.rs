//! What agent and aggregator say to each other: the gRPC types, the model they describe, and the columns
//! in which samples travel. Fields are only ever added.

pub mod columns;
pub mod definitions;
pub mod documents;
pub mod model;

/// The uplink: generated from `picket/v1/uplink.proto`.
#[allow(clippy::all, clippy::unwrap_used, clippy::string_slice, missing_docs, rust_2018_idioms)]
pub mod v1 {
    include!("generated/picket.v1.rs");
}

/// The spool's records: generated from `picket/v1/spool.proto`.
pub mod spool {
    #[allow(clippy::all, missing_docs)]
    pub mod v1 {
        include!("generated/picket.spool.v1.rs");
    }
}
