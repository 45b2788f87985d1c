//! The capabilities: every effect that a plugin can have on the node, and the only door to them.
//!
//! An effect takes a [`grants::Grant`], and only [`grants::admit`] makes one, so no path leads around the
//! operator's word. Requests and answers are plain owned data ([`Request`], [`Response`]): what calls a plugin and
//! what acts for it can later stand in two processes with a socket between them. Nothing here knows of WASM.

pub mod always;
pub mod command;
pub mod containers;
pub mod containers_control;
pub mod files;
pub mod files_write;
pub mod grants;
mod held;
pub mod http;
pub mod kmsg;
pub mod logs;
mod message;
pub mod nvml;
mod octets;
pub mod secrets;
mod socket;
pub mod store;
pub mod system;
pub mod systemd_control;
pub mod unix_http;
mod wakes;

mod services;

pub use message::{Request, Response};
pub use octets::Octets;
pub use services::{ServiceLimits, Services, ServicesError, ServicesOptions};
pub use wakes::Wakes;
