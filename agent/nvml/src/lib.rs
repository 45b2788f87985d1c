//! What the agent and its helper `picket-nvml` say to each other over the helper's standard input and output.
//!
//! The helper is a process of its own because a call into a sick driver may never return, not even for SIGKILL. It is
//! the only process of Picket that loads the driver's library. The agent asks one question at a time; events come
//! unasked between the answers.
//!
//! A frame is the length of what follows (four bytes, little endian), a byte that says what it is, and its content.
//! Texts and lists in it carry their length before them in the same way. Neither side trusts the other's lengths.

mod frame;

pub use frame::{Ask, DeviceText, FrameError, MAX_FRAME, Tell, XidText, length};
