//! Which devices a plugin may see.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::grants::{Granted, list};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// UUIDs of GPUs (their MIG instances go with them), or `"all"`.
    #[serde(default = "all")]
    pub devices: Vec<String>,
}

const ALL: &str = "all";

fn all() -> Vec<String> {
    vec![ALL.to_owned()]
}

/// The devices that may be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Devices {
    All,
    Only(BTreeSet<String>),
}

impl Devices {
    /// Whether the device, or what happened to it, may be seen. One whose UUID nobody knows is shown to who may see all.
    pub(crate) fn admit(&self, gpu: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(devices) => devices.contains(gpu),
        }
    }
}

impl Scope {
    fn covers(&self, device: &str) -> bool {
        self.devices.iter().any(|d| d == ALL || d == device)
    }
}

impl Granted for Scope {
    type Compiled = Devices;

    fn compile(scopes: &[&Self]) -> Result<Devices, String> {
        let devices: BTreeSet<String> = scopes.iter().flat_map(|s| s.devices.iter().cloned()).collect();
        match devices.iter().find(|d| *d != ALL && !d.starts_with("GPU-")) {
            Some(other) => Err(format!(
                "`devices`: {other:?} is no GPU's UUID (\"GPU-…\", as `nvidia-smi -L` prints it) and not \"all\""
            )),
            None if devices.contains(ALL) => Ok(Devices::All),
            None => Ok(Devices::Only(devices)),
        }
    }

    fn uncovered(&self, grants: &[&Self]) -> Option<Self> {
        let rest: Vec<String> =
            self.devices.iter().filter(|d| !grants.iter().any(|g| g.covers(d))).cloned().collect();
        // A plugin that needs all of them works with the few that it is granted.
        let some = grants.iter().any(|g| !g.devices.is_empty());
        let wants_all_and_has_some = some && rest.iter().all(|d| d == ALL);
        (!rest.is_empty() && !wants_all_and_has_some).then_some(Self { devices: rest })
    }

    fn example() -> Self {
        Self { devices: all() }
    }

    fn lines(&self) -> String {
        format!("devices = {}\n", list(&self.devices))
    }
}
