//! What an XID or an SXID means and asks for: the rows of `config/xid-catalogue.toml`, changed by the site's own rows,
//! both under what the driver itself asks for.

use std::collections::BTreeMap;

use picket_sdk::Severity;
use serde::{Deserialize, Serialize};

use crate::kernel::NvLinkError;

include!(concat!(env!("OUT_DIR"), "/catalogue.rs"));

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Ignore,
    RestartApp,
    UpdateFirmware,
    ContactSupport,
    CheckMechanicals,
    ResetGpu,
    Reboot,
}

impl Action {
    /// The word of the catalogue.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::RestartApp => "restart-app",
            Self::UpdateFirmware => "update-firmware",
            Self::ContactSupport => "contact-support",
            Self::CheckMechanicals => "check-mechanicals",
            Self::ResetGpu => "reset-gpu",
            Self::Reboot => "reboot",
        }
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Info,
    Warning,
    Critical,
}

impl Level {
    /// The word of the catalogue.
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Info => Self::Info,
            Level::Warning => Self::Warning,
            Level::Critical => Self::Critical,
        }
    }
}

/// A row of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub code: u32,
    pub name: &'static str,
    pub meaning: &'static str,
    pub severity: Level,
    pub immediate: Action,
    pub investigate: Action,
    /// Where one word is not enough; else empty.
    pub workflow: &'static str,
    pub source: &'static str,
}

/// A unit of NVLink 5 and what its errors ask for.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    pub xid: u32,
    pub names: &'static [&'static str],
    /// Bits 9 to 0 of the first register.
    pub before_r575: u32,
    /// Bits 6 to 0 of the first register.
    pub r575: u32,
    pub source: &'static str,
    pub rows: &'static [SubRow],
}

/// A row of a [`Unit`].
#[derive(Debug, Clone, Copy)]
pub struct SubRow {
    pub sub: Option<u32>,
    pub status: Option<u32>,
    pub severity: Level,
    pub immediate: Action,
    pub investigate: Action,
    pub promoted: Option<Action>,
}

/// A row of the operator's settings: what it leaves out stays as it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SiteRow {
    pub code: u32,
    pub name: Option<String>,
    pub meaning: Option<String>,
    pub severity: Option<Level>,
    pub immediate: Option<Action>,
    pub investigate: Option<Action>,
    pub workflow: Option<String>,
}

/// What is made of one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub name: String,
    pub meaning: String,
    pub severity: Level,
    pub immediate: Action,
    pub investigate: Action,
    pub workflow: String,
    /// Who says so: `driver`, `site`, or the source of the row (`nvidia`, `nvswitch`, `picket` …); `unknown`: no row.
    pub source: String,
}

/// All rows in force.
#[derive(Debug, Default)]
pub struct Catalogue {
    site: BTreeMap<u32, SiteRow>,
}

impl Catalogue {
    /// With the site's rows.
    ///
    /// # Errors
    /// A code that stands twice, or is none.
    pub fn new(site: Vec<SiteRow>) -> Result<Self, String> {
        let mut rows = BTreeMap::new();
        for row in site {
            let code = row.code;
            if code == 0 {
                return Err("`xids`: a row without `code`".to_owned());
            }
            if rows.insert(code, row).is_some() {
                return Err(format!("`xids`: code {code} stands twice"));
            }
        }
        Ok(Self { site: rows })
    }

    /// What an XID asks for, and where one of NVLink 5 comes with registers, what those ask for. `driver` is what the
    /// driver itself asks for now, and wins.
    pub fn xid(&self, code: u32, nvlink: Option<&NvLinkError>, driver: Option<Recovery>) -> Verdict {
        let mut verdict = self.row(code, XIDS);
        if (144..=150).contains(&code) && !self.site.contains_key(&code) {
            sub_code(&mut verdict, code, nvlink);
        }
        if let Some(driver) = driver
            && let Some(action) = driver.action()
        {
            verdict.immediate = action;
            verdict.severity = verdict.severity.max(Level::Critical);
            verdict.source = "driver".to_owned();
        }
        verdict
    }

    /// What an SXID asks for. `fatal` is the kernel's own word for this one, and wins over the row's severity.
    pub fn sxid(&self, code: u32, fatal: Option<bool>) -> Verdict {
        let mut verdict = self.row(code, SXIDS);
        match fatal {
            Some(true) if verdict.severity < Level::Critical => {
                verdict.severity = Level::Critical;
                if verdict.immediate == Action::Ignore {
                    verdict.immediate = Action::ContactSupport;
                }
            }
            Some(false) => {
                verdict.severity = verdict.severity.min(Level::Warning);
                if verdict.immediate == Action::ResetGpu {
                    verdict.immediate = Action::Ignore;
                }
            }
            _ => {}
        }
        verdict
    }

    fn row(&self, code: u32, rows: &[Row]) -> Verdict {
        let found = rows.binary_search_by_key(&code, |row| row.code).ok().and_then(|at| rows.get(at));
        let mut verdict = match found {
            Some(row) => Verdict {
                name: row.name.to_owned(),
                meaning: row.meaning.to_owned(),
                severity: row.severity,
                immediate: row.immediate,
                investigate: row.investigate,
                workflow: row.workflow.to_owned(),
                source: row.source.to_owned(),
            },
            None => Verdict {
                name: String::new(),
                meaning: "A code that the catalogue does not have.".to_owned(),
                severity: Level::Warning,
                immediate: Action::ContactSupport,
                investigate: Action::ContactSupport,
                workflow: String::new(),
                source: "unknown".to_owned(),
            },
        };
        if let Some(site) = self.site.get(&code) {
            verdict.name = site.name.clone().unwrap_or(verdict.name);
            verdict.meaning = site.meaning.clone().unwrap_or(verdict.meaning);
            verdict.severity = site.severity.unwrap_or(verdict.severity);
            verdict.immediate = site.immediate.unwrap_or(verdict.immediate);
            verdict.investigate = site.investigate.unwrap_or(verdict.investigate);
            verdict.workflow = site.workflow.clone().unwrap_or(verdict.workflow);
            verdict.source = "site".to_owned();
        }
        verdict
    }
}

/// Without a row for the registers the error's own word decides how bad it is, and a person what to do.
fn sub_code(verdict: &mut Verdict, code: u32, nvlink: Option<&NvLinkError>) {
    let Some(error) = nvlink else { return };
    verdict.name = format!("{} {}", verdict.name, error.unit);
    if error.fatal {
        verdict.severity = Level::Critical;
    }
    let sub = (error.intr_info >> 20) & 0x3f;
    for unit in UNITS.iter().filter(|unit| unit.xid == code) {
        let older = error.intr_info & 0x3ff == unit.before_r575;
        let newer = error.intr_info & 0x7f == unit.r575;
        if !unit.names.contains(&error.unit.as_str()) || !(older || newer) {
            continue;
        }
        let row = unit.rows.iter().find(|row| {
            row.sub.is_none_or(|s| s == sub) && row.status.is_none_or(|status| status == error.status)
        });
        let Some(row) = row else { continue };
        let promoted_bit = if older { 1 << 10 } else { 1 << 7 };
        let promoted = row.promoted.filter(|_| error.intr_info & promoted_bit != 0);
        verdict.immediate = promoted.unwrap_or(row.immediate);
        verdict.investigate = row.investigate;
        verdict.severity = if promoted.is_some() { Level::Critical } else { row.severity };
        verdict.workflow = String::new();
        verdict.source = unit.source.to_owned();
        return;
    }
}

/// What the driver itself asks for (NVML's field, and XID 154).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recovery {
    None,
    GpuReset,
    NodeReboot,
    DrainP2p,
    DrainAndReset,
    Other,
}

impl Recovery {
    /// The words that [`Self::word`] gives.
    pub const WORDS: [&'static str; 6] =
        ["none", "gpu-reset", "node-reboot", "drain-p2p", "drain-and-reset", "other"];

    /// NVML's word.
    pub fn of(word: &str) -> Self {
        match word {
            "none" => Self::None,
            "gpu-reset" => Self::GpuReset,
            "node-reboot" => Self::NodeReboot,
            "drain-p2p" => Self::DrainP2p,
            "drain-and-reset" => Self::DrainAndReset,
            _ => Self::Other,
        }
    }

    /// The number in the text of XID 154, which is NVML's.
    pub fn of_number(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::GpuReset,
            2 => Self::NodeReboot,
            3 => Self::DrainP2p,
            4 => Self::DrainAndReset,
            _ => Self::Other,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::GpuReset => "gpu-reset",
            Self::NodeReboot => "node-reboot",
            Self::DrainP2p => "drain-p2p",
            Self::DrainAndReset => "drain-and-reset",
            Self::Other => "other",
        }
    }

    /// In the catalogue's words; none: it asks for nothing.
    pub fn action(self) -> Option<Action> {
        match self {
            Self::None => None,
            Self::GpuReset | Self::DrainAndReset => Some(Action::ResetGpu),
            Self::NodeReboot => Some(Action::Reboot),
            // Peer-to-peer traffic must end first; then the driver says what next.
            Self::DrainP2p => Some(Action::RestartApp),
            Self::Other => Some(Action::ContactSupport),
        }
    }
}

#[cfg(test)]
mod tests;
