//! Errors that the kernel's log and NVML tell of: each counted once, judged, opened as a condition, told as an event,
//! and ended.

use picket_sdk::nvml::Snapshot;
use picket_sdk::{Collect, Event, Severity, kmsg};

use crate::catalogue::{Action, Catalogue, Level, Recovery, Verdict};
use crate::faults::{Added, Error, Fault, Kind, Now, Times};
use crate::kernel::{self, AerSeverity, Line, NvLinkError, Pci};
use crate::memory::{Count, Memory};
use crate::occurrences::{Occurrences, Source};
use crate::owners::Owners;

/// Messages of one reading, and readings of one collect.
const PAGE: u32 = 512;
const PAGES: usize = 8;

/// What is passed in with every step.
pub struct Around<'a> {
    pub memory: &'a mut Memory,
    pub owners: &'a mut Owners,
    pub catalogue: &'a Catalogue,
    /// None: the driver gives none now.
    pub snapshot: Option<&'a Snapshot>,
    pub boot: &'a str,
    pub now_ms: u64,
    pub times: Times,
}

#[derive(Default)]
pub struct Errors {
    occurrences: Occurrences,
    /// What the driver asked for last, by the kernel's log, of GPUs whose field NVML does not have.
    asked: std::collections::BTreeMap<String, Recovery>,
}

/// An XID, from either source.
struct Xid<'a> {
    source: Source,
    device: &'a str,
    code: u32,
    pid: Option<u32>,
    at_ms: u64,
    detail: &'a str,
    nvlink: Option<&'a NvLinkError>,
}

impl Errors {
    /// Reads what the kernel logged since the last time.
    pub fn kernel(&mut self, c: &mut Collect<'_>, around: &mut Around<'_>) {
        for _ in 0..PAGES {
            let page = match kmsg::read(around.memory.cursor.as_deref(), PAGE) {
                Ok(page) => page,
                Err(error) => {
                    if matches!(error, kmsg::KmsgError::Invalid(_)) {
                        around.memory.cursor = None;
                    }
                    return c.failed(error);
                }
            };
            if page.lost > 0 {
                let message = format!("{} kernel messages were overwritten before they were read", page.lost);
                c.fail("kmsg-lost", &message);
            }
            for message in &page.messages {
                match kernel::parse(&message.text) {
                    Some(Line::Xid(xid)) => self.kernel_xid(c, around, &xid, message.timestamp_ms),
                    Some(Line::Sxid(sxid)) => {
                        let verdict = around.catalogue.sxid(sxid.code, Some(sxid.fatal));
                        let error = Error {
                            kind: Kind::Sxid,
                            device: sxid.switch.clone(),
                            code: sxid.code,
                            pid: None,
                            at_ms: message.timestamp_ms,
                        };
                        let event = Told {
                            event: "nvswitch.sxid",
                            subject: ("nvswitch", &sxid.switch),
                            what: format!("SXID {} on {}", sxid.code, sxid.switch),
                            detail: &sxid.detail,
                        };
                        let link = sxid.link.map(|l| ("link", l.to_string()));
                        take(c, around, &error, &verdict, &event, link);
                    }
                    Some(Line::Aer(aer)) => {
                        let error = Error {
                            kind: Kind::Aer,
                            device: aer.device.clone(),
                            code: aer_code(aer.severity),
                            pid: None,
                            at_ms: message.timestamp_ms,
                        };
                        let gpu = uuid_at(around, aer.pci).map(|uuid| ("UUID", uuid));
                        let event = Told {
                            event: "pcie.aer",
                            subject: ("pci", &aer.device),
                            what: format!("PCIe error ({}) of {}", aer.severity.word(), aer.device),
                            detail: "",
                        };
                        take(c, around, &error, &aer_verdict(aer.severity), &event, gpu);
                    }
                    None => {}
                }
            }
            around.memory.cursor = Some(page.cursor);
            if !page.more {
                return;
            }
        }
    }

    fn kernel_xid(&mut self, c: &mut Collect<'_>, around: &mut Around<'_>, xid: &kernel::Xid, at_ms: u64) {
        let device = uuid_at(around, xid.pci).unwrap_or_else(|| xid.pci.to_string());
        if let Some(number) = xid.recovery {
            self.asked.insert(device.clone(), Recovery::of_number(number));
        }
        let xid = Xid {
            source: Source::Kernel,
            device: &device,
            code: xid.code,
            pid: xid.pid,
            at_ms,
            detail: &xid.detail,
            nvlink: xid.nvlink.as_ref(),
        };
        self.xid(c, around, &xid);
    }

    /// The XIDs that NVML told of since the last time.
    pub fn nvml(&mut self, c: &mut Collect<'_>, around: &mut Around<'_>) {
        let Some(snapshot) = around.snapshot else { return };
        if around.memory.life != snapshot.events_life {
            around.memory.life.clone_from(&snapshot.events_life);
            around.memory.sequence = 0;
        }
        if let Some(why) = &snapshot.events_error {
            c.fail("nvml-events", &format!("the driver's events cannot be listened for: {why}"));
        }
        let seen = around.memory.sequence;
        for event in snapshot.events.iter().filter(|e| e.sequence > seen) {
            let code = u32::try_from(event.xid).unwrap_or(u32::MAX);
            let xid = Xid {
                source: Source::Nvml,
                device: &event.uuid,
                code,
                pid: None,
                at_ms: event.timestamp_ms,
                detail: "",
                nvlink: None,
            };
            self.xid(c, around, &xid);
        }
        let last = snapshot.events.iter().map(|e| e.sequence).max().unwrap_or_default();
        around.memory.sequence = around.memory.sequence.max(last);
    }

    fn xid(&mut self, c: &mut Collect<'_>, around: &mut Around<'_>, xid: &Xid<'_>) {
        if !self.occurrences.is_new(xid.source, xid.device, xid.code, xid.at_ms) {
            return;
        }
        let driver = self.recovery(around, xid.device);
        let verdict = around.catalogue.xid(xid.code, xid.nvlink, driver.filter(|_| xid.code != 154));
        let error = Error {
            kind: Kind::Xid,
            device: xid.device.to_owned(),
            code: xid.code,
            pid: xid.pid,
            at_ms: xid.at_ms,
        };
        let event = Told {
            event: "gpu.xid",
            subject: ("gpu", xid.device),
            what: format!("XID {} on {}", xid.code, name(around, xid.device)),
            detail: xid.detail,
        };
        take(c, around, &error, &verdict, &event, None);
    }

    /// What the driver asks for: NVML's field, where it has one; else the last that the kernel's log said.
    fn recovery(&self, around: &Around<'_>, uuid: &str) -> Option<Recovery> {
        let device = around.snapshot.into_iter().flat_map(|s| &s.devices).find(|d| d.uuid == uuid);
        let field = device.and_then(|d| d.recovery_action.as_deref()).map(Recovery::of);
        let logged = self.asked.get(uuid).copied();
        match (field, logged) {
            // The log is ahead of a snapshot that was taken before.
            (Some(Recovery::None) | None, Some(logged)) => Some(logged),
            (field, _) => field,
        }
    }

    /// Raises what is open where the driver asks for more, and ends what is over. `reset` are the GPUs whose counters
    /// began anew.
    pub fn settle(&mut self, c: &mut Collect<'_>, around: &mut Around<'_>, reset: &[String]) {
        let devices: Vec<String> = around.memory.faults.iter().map(|f| f.device.clone()).collect();
        for device in &devices {
            let Some(driver) = self.recovery(around, device) else { continue };
            let catalogue = around.catalogue;
            let worse =
                around.memory.faults.driver_asks(device, |f| catalogue.xid(f.code, None, Some(driver)));
            for fault in worse.iter().filter(|_| driver.action().is_some()) {
                let verdict = catalogue.xid(fault.code, None, Some(driver));
                let told = Told {
                    event: "gpu.xid",
                    subject: ("gpu", device),
                    what: format!("XID {} on {}", fault.code, name(around, device)),
                    detail: "",
                };
                c.emit(told.event(around, fault, &verdict, None).at(around.now_ms));
            }
        }
        // What the log said is over when NVML's field says so, or with the reset.
        let snapshot = around.snapshot;
        self.asked.retain(|uuid, _| {
            let device = snapshot.into_iter().flat_map(|s| &s.devices).find(|d| d.uuid == *uuid);
            let says_none = device.is_some_and(|d| d.recovery_action.as_deref() == Some("none"));
            !says_none && !reset.contains(uuid)
        });
        let asked = &self.asked;
        let now_of = |fault: &Fault| {
            if fault.kind != Kind::Xid {
                return Now { reset: !reset.is_empty(), ..Now::default() };
            }
            let device = snapshot.into_iter().flat_map(|s| &s.devices).find(|d| d.uuid == fault.device);
            let Some(device) = device else { return Now { lost: true, ..Now::default() } };
            let field = device.recovery_action.as_deref().map(Recovery::of);
            Now {
                lost: device.lost.is_some(),
                reset: reset.contains(&fault.device),
                recovery: field.or_else(|| asked.get(&fault.device).copied()),
                pids: device.processes.iter().map(|p| p.pid).collect(),
            }
        };
        for (fault, reason) in around.memory.faults.settle(around.now_ms, around.boot, around.times, now_of) {
            c.emit(ended(&fault, reason));
        }
    }
}

fn ended(fault: &Fault, reason: &str) -> Event {
    let (kind, subject) = match fault.kind {
        Kind::Xid => ("gpu.xid", "gpu"),
        Kind::Sxid => ("nvswitch.sxid", "nvswitch"),
        Kind::Aer => ("pcie.aer", "pci"),
    };
    let message = format!("{} is over ({reason}) after {} times", fault.key(), fault.times);
    Event::ended(kind, fault.key(), message)
        .about(subject, fault.device.clone())
        .attribute("reason", reason)
        .attribute("times", fault.times.to_string())
}

/// How an error is told.
struct Told<'a> {
    event: &'static str,
    subject: (&'static str, &'a str),
    what: String,
    detail: &'a str,
}

impl Told<'_> {
    fn event(
        &self,
        around: &mut Around<'_>,
        fault: &Fault,
        verdict: &Verdict,
        extra: Option<(&'static str, String)>,
    ) -> Event {
        let mut message = format!("{}: {}", self.what, verdict.meaning);
        if !self.detail.is_empty() {
            message = format!("{message} ({})", self.detail);
        }
        let mut event = Event::new(self.event, Severity::from(fault.severity), message)
            .about(self.subject.0, self.subject.1)
            .key(fault.key())
            .attribute("code", fault.code.to_string())
            .attribute("action", fault.action.word())
            .attribute("investigate", verdict.investigate.word())
            .attribute("severity", fault.severity.word())
            .attribute("source", fault.source.clone());
        let mut add = |name: &'static str, value: &str| {
            if !value.is_empty() {
                event = event.clone().attribute(name, value);
            }
        };
        add("name", &verdict.name);
        add("workflow", &verdict.workflow);
        if let Some((name, value)) = &extra {
            add(name, value);
        }
        if let Some(known) = around.memory.baseline.get(&fault.device) {
            add("pci_bus_id", &known.pci);
            add("gpu", &known.index.map(|i| i.to_string()).unwrap_or_default());
        }
        if let Some(pid) = fault.pid {
            let owner = around.owners.of(pid, around.now_ms);
            add("pid", &pid.to_string());
            add("slurm_job_id", &owner.job);
            add("user", &owner.user);
            add("container", &owner.container);
        }
        event
    }
}

/// Counts an error, opens its condition, and tells of it where that is news.
fn take(
    c: &mut Collect<'_>,
    around: &mut Around<'_>,
    error: &Error,
    verdict: &Verdict,
    told: &Told<'_>,
    extra: Option<(&'static str, String)>,
) {
    around.memory.count(Count {
        kind: error.kind,
        device: error.device.clone(),
        code: error.code,
        action: verdict.immediate,
        severity: verdict.severity,
        times: 1,
        last_ms: error.at_ms,
    });
    // An old line of the log, of something that was over long ago.
    let old = around.now_ms.saturating_sub(error.at_ms) > around.times.transient_after_ms;
    if old && verdict.immediate <= Action::RestartApp {
        return;
    }
    if let Some(dropped) = around.memory.faults.make_room() {
        c.emit(ended(&dropped, "too-many"));
    }
    if around.memory.faults.add(error, verdict, around.boot) == Added::Again {
        return;
    }
    let of = |f: &&Fault| f.kind == error.kind && f.code == error.code && f.device == error.device;
    let Some(fault) = around.memory.faults.iter().find(of).cloned() else { return };
    c.emit(told.event(around, &fault, verdict, extra).at(error.at_ms));
}

/// The GPU at a place: as it is now, else as it was.
fn uuid_at(around: &Around<'_>, pci: Pci) -> Option<String> {
    let at = |text: Option<&str>| text.and_then(Pci::parse) == Some(pci);
    let devices = around.snapshot.into_iter().flat_map(|s| &s.devices);
    let mut present = devices.filter(|d| !d.uuid.is_empty());
    let now = present.find(|d| at(d.pci_bus_id.as_deref())).map(|d| d.uuid.clone());
    now.or_else(|| {
        let known = around.memory.baseline.iter().find(|(_, known)| at(Some(&known.pci)));
        known.map(|(uuid, _)| uuid.clone())
    })
}

/// For a person.
fn name(around: &Around<'_>, device: &str) -> String {
    match around.memory.baseline.get(device).and_then(|known| known.index) {
        Some(index) => format!("GPU {index} ({device})"),
        None => device.to_owned(),
    }
}

fn aer_code(severity: AerSeverity) -> u32 {
    match severity {
        AerSeverity::Corrected => 0,
        AerSeverity::NonFatal => 1,
        AerSeverity::Fatal => 2,
    }
}

/// The word of what [`Fault::code`] is for PCIe errors.
pub fn aer_word(code: u32) -> &'static str {
    match code {
        0 => AerSeverity::Corrected.word(),
        1 => AerSeverity::NonFatal.word(),
        _ => AerSeverity::Fatal.word(),
    }
}

fn aer_verdict(severity: AerSeverity) -> Verdict {
    let (meaning, level, immediate) = match severity {
        AerSeverity::Corrected => ("PCIe corrected an error.", Level::Info, Action::Ignore),
        AerSeverity::NonFatal => ("PCIe lost a transfer.", Level::Warning, Action::RestartApp),
        AerSeverity::Fatal => ("The PCIe link failed.", Level::Critical, Action::Reboot),
    };
    Verdict {
        name: String::new(),
        meaning: meaning.to_owned(),
        severity: level,
        immediate,
        investigate: Action::CheckMechanicals,
        workflow: String::new(),
        source: "kernel".to_owned(),
    }
}
