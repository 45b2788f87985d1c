//! Landlock: a rule set that allows nothing. What the process holds open stays usable; nothing new can be opened.

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr,
    RulesetCreated, RulesetStatus, Scope,
};

/// The newest rights that this was written for; of an older kernel's, those that it knows.
const NEWEST: ABI = ABI::V7;

pub(super) fn restrict() -> Result<String, String> {
    let ruled = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|r| r.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|r| r.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self)
        .map_err(|e| e.to_string())?;
    match (ruled.ruleset, ruled.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
            Err("the kernel has it switched off (lsm= on its command line)".to_owned())
        }
        (RulesetStatus::NotEnforced, _) => Err("the kernel does not have it (5.13 and later do)".to_owned()),
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            let abi = kernel_abi.unwrap_or(effective_abi as i32);
            Ok(match abi {
                ..4 => format!("ABI {abi}: files; no network ports (4), no signals (6)"),
                4..6 => format!("ABI {abi}: files and ports; no signals (6)"),
                _ => format!("ABI {abi}"),
            })
        }
        (_, other) => Ok(format!("{other:?}")),
    }
}
