//! Facts of the running kernel that no file tells. Grant: `system`.

use crate::sys;

/// What uname(2) says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Uname {
    pub sysname: String,
    pub nodename: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub domainname: String,
}

/// The node's local time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone {
    /// The abbreviation: `UTC`, `CEST`.
    pub name: String,
    /// East of Greenwich.
    pub offset_seconds: i32,
}

/// The kernel's names.
pub fn uname() -> Uname {
    sys::uname()
}

/// The zone in force now.
pub fn local_time_zone() -> TimeZone {
    sys::local_time_zone()
}
