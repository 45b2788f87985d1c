//! Facts of the running kernel that no file tells: uname(2) and the local time zone.
//!
//! The zone is read from the system's own files, not asked of libc: localtime(3) reads the environment, which another
//! thread may be changing.

use jiff::Timestamp;
use jiff::tz::TimeZone as Zone;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Uname,
    LocalTimeZone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Uname(Uname),
    TimeZone(TimeZone),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uname {
    pub sysname: String,
    pub nodename: String,
    pub release: String,
    pub version: String,
    pub machine: String,
    pub domainname: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeZone {
    /// `UTC`, `CEST`.
    pub name: String,
    pub offset_seconds: i32,
}

pub(crate) fn answer(request: Request) -> Answer {
    match request {
        Request::Uname => Answer::Uname(uname()),
        Request::LocalTimeZone => Answer::TimeZone(time_zone(&Zone::system(), Timestamp::now())),
    }
}

fn uname() -> Uname {
    let u = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    Uname {
        sysname: text(u.sysname()),
        nodename: text(u.nodename()),
        release: text(u.release()),
        version: text(u.version()),
        machine: text(u.machine()),
        domainname: text(u.domainname()),
    }
}

fn time_zone(zone: &Zone, at: Timestamp) -> TimeZone {
    // A system without a zone keeps UTC.
    if zone.is_unknown() {
        return TimeZone { name: "UTC".to_owned(), offset_seconds: 0 };
    }
    let info = zone.to_offset_info(at);
    TimeZone { name: info.abbreviation().to_owned(), offset_seconds: info.offset().seconds() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_it_is() {
        let Answer::Uname(u) = answer(Request::Uname) else { panic!() };
        assert_eq!(u.sysname, "Linux");
        assert_eq!(u.release, std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim_end());
        assert_eq!(u.domainname, std::fs::read_to_string("/proc/sys/kernel/domainname").unwrap().trim_end());
    }

    #[test]
    fn summer_and_winter() {
        let berlin = Zone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at = |text: &str| time_zone(&berlin, text.parse().unwrap());
        assert_eq!(at("2026-07-01T00:00:00Z"), TimeZone { name: "CEST".to_owned(), offset_seconds: 7200 });
        assert_eq!(at("2026-01-01T00:00:00Z"), TimeZone { name: "CET".to_owned(), offset_seconds: 3600 });
        let none = time_zone(&Zone::unknown(), Timestamp::now());
        assert_eq!(none, TimeZone { name: "UTC".to_owned(), offset_seconds: 0 });
    }
}
