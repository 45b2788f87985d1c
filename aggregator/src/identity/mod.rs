//! Who may speak to this aggregator: node certificates, enrolment tokens, API tokens.
//!
//! A node is what its certificate says, nothing else. Picket's own CA (`authority`) signs certificates against
//! one-time enrolment tokens and renews them over the uplink; a CA of your own may stand in its place. `registry`
//! is the durable memory (SQLite, every change fsynced before it counts): what was issued, to whom, and who was
//! revoked. Revocation is by node: it voids every certificate issued to the name until then, for good.

mod access;
mod admission;
mod authority;
mod enrolment;
mod names;
mod registry;
mod schema;
pub mod secret;

pub use access::{Access, AccessError, ApiToken, NewApiToken, Role};
pub use admission::{Gatekeeper, Mode};
pub use authority::{Authority, AuthorityError, write_new};
pub use enrolment::{EnrolmentService, EnrolmentText};
pub use names::{NameError, NameRule, node_name, serial_number};
pub use registry::{
    EnrolmentError, EnrolmentToken, IssueNumber, NewEnrolmentToken, NodeRecord, Presented, Registry,
    RegistryError, Revoked,
};
pub use schema::Database;
