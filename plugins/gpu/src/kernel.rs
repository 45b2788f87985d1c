//! Lines of the kernel's log that speak of GPUs: XIDs of the NVIDIA driver, SXIDs of its NVSwitches, PCIe errors (AER).
//! Foreign text: anything that is not such a line is none, and nothing panics.

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Xid(Xid),
    Sxid(Sxid),
    Aer(Aer),
}

/// `NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, name=python, GPU has fallen off the bus.`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xid {
    pub pci: Pci,
    /// `GPU-I:05` of a divided GPU.
    pub gpu_instance: Option<u32>,
    pub code: u32,
    pub pid: Option<u32>,
    /// What follows the code, and the process where there is one.
    pub detail: String,
    pub nvlink: Option<NvLinkError>,
    /// Of 154: what the driver asks for from now on.
    pub recovery: Option<u32>,
}

/// `NETIR_LINK_EVT Fatal XC0 i0 Link 09 (0x025525c6 0x00000000 …)`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvLinkError {
    pub unit: String,
    pub fatal: bool,
    pub link: Option<u32>,
    pub intr_info: u32,
    pub status: u32,
}

/// `nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Fatal, Link 28 LTSSM Fault Up`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sxid {
    /// `nvswitch0`
    pub switch: String,
    pub code: u32,
    pub fatal: bool,
    pub link: Option<u32>,
    pub detail: String,
}

/// `pcieport 0000:3a:01.0: AER: Correctable error message received from 0000:3b:00.0`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aer {
    pub pci: Pci,
    /// `0000:3b:00.0`
    pub device: String,
    pub severity: AerSeverity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AerSeverity {
    Corrected,
    NonFatal,
    Fatal,
}

impl AerSeverity {
    pub fn word(self) -> &'static str {
        match self {
            Self::Corrected => "corrected",
            Self::NonFatal => "nonfatal",
            Self::Fatal => "fatal",
        }
    }
}

/// Where a device is, without its function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pci {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
}

impl Pci {
    /// `0000:3b:00`, `00000000:3B:00.0`, with or without `PCI:` before it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("PCI:").unwrap_or(text);
        let text = text.split_once('.').map_or(text, |(before, _)| before);
        let mut parts = text.split(':');
        let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || domain.len() > 8 {
            return None;
        }
        let hex = |t: &str| u32::from_str_radix(t, 16).ok().filter(|_| !t.starts_with('+'));
        Some(Self {
            domain: hex(domain)?,
            bus: u8::try_from(hex(bus)?).ok()?,
            device: u8::try_from(hex(device)?).ok()?,
        })
    }
}

impl std::fmt::Display for Pci {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}", self.domain, self.bus, self.device)
    }
}

/// What the line says, where it is of these.
pub fn parse(line: &str) -> Option<Line> {
    if let Some((_, rest)) = line.split_once("NVRM: Xid (") {
        return xid(rest).map(Line::Xid);
    }
    if let Some((before, rest)) = line.split_once(": SXid (") {
        return sxid(before, rest).map(Line::Sxid);
    }
    if line.contains("AER:") || line.contains("PCIe Bus Error:") {
        return aer(line).map(Line::Aer);
    }
    None
}

/// Where, the number, and what follows it.
fn head(rest: &str) -> Option<(&str, u32, &str)> {
    let (place, rest) = rest.split_once(')')?;
    let rest = rest.strip_prefix(": ")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at_checked(digits)?;
    let rest = rest.strip_prefix(',').unwrap_or(rest);
    let number = number.parse().ok().filter(|n| *n > 0)?;
    Some((place, number, rest.trim()))
}

fn xid(rest: &str) -> Option<Xid> {
    let (place, code, rest) = head(rest)?;
    let mut words = place.split(' ');
    let pci = Pci::parse(words.next()?)?;
    let gpu_instance = words.next().and_then(|w| w.strip_prefix("GPU-I:")).and_then(|n| n.parse().ok());
    let mut detail = rest;
    let mut pid = None;
    if let Some(after) = detail.strip_prefix("pid=") {
        let (number, after) = after.split_once(',').unwrap_or((after, ""));
        pid = number.trim_matches('\'').parse().ok();
        detail = after.trim_start();
        if let Some(after) = detail.strip_prefix("name=") {
            detail = after.split_once(',').map_or("", |(_, after)| after).trim_start();
        }
    }
    let nvlink = (144..=150).contains(&code).then(|| nvlink_error(detail)).flatten();
    let recovery = (code == 154).then(|| recovery(detail)).flatten();
    Some(Xid { pci, gpu_instance, code, pid, detail: cut(detail), nvlink, recovery })
}

fn nvlink_error(detail: &str) -> Option<NvLinkError> {
    let (text, registers) = detail.split_once('(')?;
    let mut words = text.split_ascii_whitespace();
    let unit = words.next()?.to_owned();
    let fatal = match words.next()? {
        "Fatal" => true,
        "Nonfatal" | "Non-fatal" => false,
        _ => return None,
    };
    let link = words.skip_while(|w| *w != "Link").nth(1).and_then(|n| n.parse().ok());
    let mut registers = registers.trim_end_matches(')').split_ascii_whitespace();
    let mut register = || {
        let digits = registers.next()?.strip_prefix("0x")?;
        u32::from_str_radix(digits, 16).ok()
    };
    Some(NvLinkError { unit, fatal, link, intr_info: register()?, status: register()? })
}

/// `GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)`
fn recovery(detail: &str) -> Option<u32> {
    let (_, to) = detail.split_once(" to 0x")?;
    let digits = to.bytes().take_while(u8::is_ascii_hexdigit).count();
    u32::from_str_radix(to.get(..digits)?, 16).ok()
}

/// A line without `Fatal` and `Non-fatal` holds registers of the one before it, and is none of its own.
fn sxid(before: &str, rest: &str) -> Option<Sxid> {
    let switch = before.rsplit(' ').next()?.strip_prefix("nvidia-")?;
    let (_, code, rest) = head(rest)?;
    let (word, rest) = rest.split_once(',').unwrap_or((rest, ""));
    let fatal = match word {
        "Fatal" => true,
        "Non-fatal" | "Nonfatal" => false,
        _ => return None,
    };
    let rest = rest.trim();
    let link = rest.strip_prefix("Link ").and_then(|r| r.split(' ').next()).and_then(|n| n.parse().ok());
    Some(Sxid { switch: cut(switch), code, fatal, link, detail: cut(rest) })
}

fn aer(line: &str) -> Option<Aer> {
    let lower = line.to_ascii_lowercase();
    // Lines of details have no severity: they follow one that has.
    let severity = if lower.contains("uncorrect") {
        // `Uncorrected (Non-Fatal)`, `Uncorrectable (Fatal)`; without either word it is the milder one.
        let fatal = lower.contains("fatal") && !lower.contains("non-fatal") && !lower.contains("nonfatal");
        if fatal { AerSeverity::Fatal } else { AerSeverity::NonFatal }
    } else if lower.contains("corrected") || lower.contains("correctable") {
        AerSeverity::Corrected
    } else {
        return None;
    };
    // The last one named is the device that the port speaks of.
    let mut named = lower.split_ascii_whitespace().filter_map(|word| {
        let word = word.trim_end_matches([':', ',', ')']);
        word.contains('.').then(|| Pci::parse(word).map(|pci| (pci, word.to_owned()))).flatten()
    });
    let (pci, device) = named.next_back()?;
    Some(Aer { pci, device: cut(&device), severity })
}

/// Texts of the kernel go into events: at most so long.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(line: &str) -> Xid {
        match parse(line) {
            Some(Line::Xid(xid)) => xid,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn xids() {
        for (line, place, code, pid, detail) in [
            (
                "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
                "0000:3b:00",
                79,
                None,
                "GPU has fallen off the bus.",
            ),
            ("NVRM: Xid (0000:03:00): 14, Channel 00000001", "0000:03:00", 14, None, "Channel 00000001"),
            (
                "NVRM: Xid (PCI:0000:cb:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception on (GPC 7, TPC 6, SM 0)",
                "0000:cb:00",
                13,
                None,
                "Graphics SM Warp Exception on (GPC 7, TPC 6, SM 0)",
            ),
            (
                "NVRM: Xid (PCI:0004:01:00): 119, pid=430, name=nv_queue, Timeout waiting for RPC from GSP!",
                "0004:01:00",
                119,
                Some(430),
                "Timeout waiting for RPC from GSP!",
            ),
            (
                "NVRM: Xid (PCI:0000:10:1c): 63, pid=1896, Row Remapper: New row marked",
                "0000:10:1c",
                63,
                Some(1896),
                "Row Remapper: New row marked",
            ),
            ("kernel: NVRM: Xid (PCI:0000:01:00): 45", "0000:01:00", 45, None, ""),
        ] {
            let xid = of(line);
            assert_eq!(
                (xid.pci.to_string().as_str(), xid.code, xid.pid, xid.detail.as_str()),
                (place, code, pid, detail)
            );
        }
        assert_eq!(
            of("NVRM: Xid (PCI:0000:41:00 GPU-I:05): 94, pid=7194, Contained: x").gpu_instance,
            Some(5)
        );
        let r = of(
            "NVRM: Xid (PCI:0000:02:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (OS Reboot)",
        );
        assert_eq!(r.recovery, Some(2));
        for none in [
            "NVRM: Xid (PCI:0000:3b:00): abc, x",
            "NVRM: Xid (PCI:zz): 79, x",
            "NVRM: Xid (PCI:0000:3b:00",
            "NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.",
            "NVRM: Xid (PCI:0000:3b:00): 99999999999, x",
            "",
        ] {
            assert_eq!(parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn nvlink_registers() {
        let e = of(
            "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 09 (0x025525c6 0x00000000 0x00000000)",
        );
        let want = NvLinkError {
            unit: "NETIR_LINK_EVT".into(),
            fatal: true,
            link: Some(9),
            intr_info: 0x0255_25c6,
            status: 0,
        };
        assert_eq!(e.nvlink, Some(want));
        let e = of("NVRM: Xid (PCI:0000:5f:00): 145, RLW_REMAP Nonfatal XC0 i0 Link 02");
        assert_eq!(e.nvlink, None);
    }

    #[test]
    fn sxids() {
        let Some(Line::Sxid(s)) =
            parse("nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): 20034, Fatal, Link 28 LTSSM Fault Up")
        else {
            panic!()
        };
        assert_eq!((s.switch.as_str(), s.code, s.fatal, s.link), ("nvswitch0", 20034, true, Some(28)));
        assert_eq!(s.detail, "Link 28 LTSSM Fault Up");
        let line = "nvidia-nvswitch4: SXid (PCI:0000:c6:00.0): 19084, Non-fatal, Link 29 AN1 Heartbeat Timeout Error (First)";
        assert!(matches!(parse(line), Some(Line::Sxid(s)) if !s.fatal && s.code == 19084));
        // What follows such a line.
        for rest in ["Severity 5 Engine instance 00 Sub-engine instance 00", "Data {0x00000001, 0x0}"] {
            assert_eq!(parse(&format!("nvidia-nvswitch2: SXid (PCI:0000:c4:00.0): 10002, {rest}")), None);
        }
    }

    #[test]
    fn pcie_errors() {
        for (line, device, severity) in [
            (
                "pcieport 0000:3a:01.0: AER: Corrected error received: 0000:3b:00.0",
                "0000:3b:00.0",
                AerSeverity::Corrected,
            ),
            (
                "pcieport 0000:3a:01.0: AER: Multiple Correctable error message received from 0000:3b:00.0",
                "0000:3b:00.0",
                AerSeverity::Corrected,
            ),
            (
                "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer",
                "0000:3b:00.0",
                AerSeverity::NonFatal,
            ),
            (
                "nvidia 0000:3b:00.0: PCIe Bus Error: severity=Uncorrectable (Fatal), type=Inaccessible",
                "0000:3b:00.0",
                AerSeverity::Fatal,
            ),
            (
                "pcieport 0000:00:01.0: AER: Uncorrected (Fatal) error received: 0000:00:01.0",
                "0000:00:01.0",
                AerSeverity::Fatal,
            ),
        ] {
            let Some(Line::Aer(aer)) = parse(line) else { panic!("{line}") };
            assert_eq!((aer.device.as_str(), aer.severity), (device, severity), "{line}");
        }
        for none in [
            "nvidia 0000:3b:00.0: AER:    [ 0] RxErr                  (First)",
            "pcieport 0000:00:1c.0: AER: enabled with IRQ 122",
            "AER: Corrected error received: nowhere",
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }

    #[test]
    fn places() {
        let want = Pci { domain: 0, bus: 0x3b, device: 0 };
        for text in ["0000:3b:00", "PCI:0000:3b:00", "00000000:3B:00.0", "0000:3b:00.1"] {
            assert_eq!(Pci::parse(text), Some(want), "{text}");
        }
        for text in ["", "3b:00", "0000:3b:00:1", "0000:1ff:00", "x:y:z", "+000:3b:00", "000000000:3b:00"] {
            assert_eq!(Pci::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in ".{0,200}") {
            let _ = parse(&line);
        }

        #[test]
        fn no_line_that_looks_like_one_panics(
            head in prop::sample::select(vec!["NVRM: Xid (PCI:0000:3b:00): ", "nvidia-nvswitch0: SXid (PCI:0000:c2:00.0): ", "pcieport 0000:3a:01.0: AER: "]),
            code in 0u32..40_000,
            tail in "[ ,()a-zA-Z0-9=':.x-]{0,80}",
        ) {
            let _ = parse(&format!("{head}{code}, {tail}"));
            let _ = parse(&format!("{head}{tail}"));
        }

        #[test]
        fn what_the_driver_writes_is_read(domain in 0u32..0x1_0000, bus: u8, device in 0u8..32, code in 1u32..1000, pid: u32) {
            let xid = of(&format!("NVRM: Xid (PCI:{domain:04x}:{bus:02x}:{device:02x}): {code}, pid={pid}, name=a b, what"));
            prop_assert_eq!(xid.pci, Pci { domain, bus, device });
            prop_assert_eq!((xid.code, xid.pid, xid.detail.as_str()), (code, Some(pid), "what"));
        }
    }
}
