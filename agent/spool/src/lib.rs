//! The bounded queue on disk between what the plugins gave and the uplink. It knows bytes and sequence numbers alone.
//!
//! The contract:
//! - [`Spool::append`] never waits for a disk: it queues, and a thread writes. What is queued together is made durable
//!   together, by one fsync; a [`Ticket`] tells when. A queue that is full, because the disk is slow, full or hung, refuses
//!   and counts. A record that was refused has no sequence number: what it said must be said again.
//! - A [`Reader`] gives durable records only, oldest first, earlier lives of the agent first.
//! - A record leaves by [`Spool::ack`], or is lost and counted: `cap` and `age` (the oldest whole segments, when there are
//!   too many bytes or they are too old), `corrupt` (damaged on disk), `write-error` and `stall` (refused by the queue).
//!   The counts outlive the process, as exactly as the disk allows.
//! - After a crash at any point, each record whose ticket was resolved is there or counted, unless the disk lied about
//!   fsync. Acknowledgements may be forgotten, then records come twice: the receiver knows them by life and sequence.
//!
//! On disk, one folder: `lock`, held by the one agent that uses it; `position`, what is acknowledged and lost
//! (`position.rs`); segments `seg-<number>.spool` of one life each (`format.rs`), which begin with what the caller gives
//! as a header, so that each can be understood without those before it. That is also why nothing behind a damaged
//! record of a segment is used: it may lean on what the damaged one said. Other files are left alone.

mod disk;
mod error;
mod format;
mod memory;
mod position;
mod reader;
mod recovery;
mod spool;
mod state;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

pub use error::SpoolError;
pub use reader::{Item, Reader};
pub use spool::{Options, Spool, Ticket};
pub use state::Stats;
pub use tail::newest_segment;

/// The longest record or header, in bytes.
pub const MAX_RECORD: usize = 16 << 20;
