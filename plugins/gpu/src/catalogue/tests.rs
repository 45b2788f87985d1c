use super::*;

fn nvlink(unit: &str, fatal: bool, intr_info: u32, status: u32) -> NvLinkError {
    NvLinkError { unit: unit.to_owned(), fatal, link: Some(1), intr_info, status }
}

#[test]
fn every_published_code_has_a_row() {
    assert!(XIDS.iter().map(|row| row.code).eq(1..=172));
    assert!(SXIDS.is_sorted_by_key(|row| row.code));
    assert!(SXIDS.len() > 390);
    assert_eq!(UNITS.iter().map(|u| u.xid).collect::<std::collections::BTreeSet<_>>(), (144..=150).collect());
    for row in XIDS.iter().chain(SXIDS) {
        assert!(!row.name.is_empty() && !row.meaning.is_empty(), "{row:?}");
    }
}

#[test]
fn the_codes_that_ask_for_a_reset_are_exactly_these() {
    let reset: Vec<u32> = XIDS.iter().filter(|r| r.immediate == Action::ResetGpu).map(|r| r.code).collect();
    assert_eq!(reset, [46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158]);
}

#[test]
fn verdicts_of_single_codes() {
    let catalogue = Catalogue::default();
    for (code, action, severity) in [
        (63, Action::Ignore, Level::Info),
        (43, Action::Ignore, Level::Info),
        (69, Action::RestartApp, Level::Warning),
        (94, Action::RestartApp, Level::Warning),
        (31, Action::RestartApp, Level::Warning),
        (79, Action::Reboot, Level::Critical),
        (78, Action::UpdateFirmware, Level::Warning),
        (54, Action::CheckMechanicals, Level::Critical),
        (95, Action::ResetGpu, Level::Critical),
    ] {
        let verdict = catalogue.xid(code, None, None);
        assert_eq!((verdict.immediate, verdict.severity), (action, severity), "{code}");
        assert_eq!(verdict.source, "nvidia", "{code}");
    }
    let unknown = catalogue.xid(9999, None, None);
    assert_eq!((unknown.immediate, unknown.source.as_str()), (Action::ContactSupport, "unknown"));
}

#[test]
fn what_the_driver_asks_for_is_stronger_than_any_row() {
    let site = SiteRow { code: 31, immediate: Some(Action::Ignore), ..SiteRow::default() };
    let catalogue = Catalogue::new(vec![site]).unwrap();
    for (driver, action, source) in [
        (None, Action::Ignore, "site"),
        // It asks for nothing, so the row speaks.
        (Some(Recovery::None), Action::Ignore, "site"),
        (Some(Recovery::GpuReset), Action::ResetGpu, "driver"),
        (Some(Recovery::NodeReboot), Action::Reboot, "driver"),
        (Some(Recovery::DrainAndReset), Action::ResetGpu, "driver"),
        (Some(Recovery::DrainP2p), Action::RestartApp, "driver"),
        (Some(Recovery::Other), Action::ContactSupport, "driver"),
    ] {
        let verdict = catalogue.xid(31, None, driver);
        assert_eq!((verdict.immediate, verdict.source.as_str()), (action, source), "{driver:?}");
    }
}

#[test]
fn a_row_of_the_site_changes_only_what_it_says() {
    let rows = |json: &str| serde_json::from_str::<Vec<SiteRow>>(json).unwrap();
    let catalogue = Catalogue::new(rows(
        r#"[{"code": 43, "severity": "critical"}, {"code": 500, "name": "OURS", "immediate": "reboot"}]"#,
    ))
    .unwrap();
    let changed = catalogue.xid(43, None, None);
    assert_eq!((changed.severity, changed.immediate), (Level::Critical, Action::Ignore));
    assert_eq!(changed.name, "ROBUST_CHANNEL_RESETCHANNEL_VERIF_ERROR");
    let new = catalogue.xid(500, None, None);
    assert_eq!((new.name.as_str(), new.immediate, new.source.as_str()), ("OURS", Action::Reboot, "site"));
    for bad in [r#"[{"severity": "info"}]"#, r#"[{"code": 1}, {"code": 1}]"#] {
        assert!(Catalogue::new(rows(bad)).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<SiteRow>(r#"{"code": 1, "imediate": "reboot"}"#).is_err());
}

/// Each case: the code, the unit and its registers, the action, how bad.
#[test]
fn sub_codes_of_nvlink_5() {
    let catalogue = Catalogue::default();
    for (code, unit, intr, status, action, severity) in [
        // As drivers before R575 write it, and later ones.
        (149, "NETIR_LINK_EVT", 0x0255_25c6, 0, Action::ResetGpu, Level::Critical),
        (149, "NETIR_LINK_DOWN", 0x0250_0011, 0, Action::ResetGpu, Level::Critical),
        (149, "NETIR_BER_EVENT", 0x0008_6226, 1, Action::Ignore, Level::Warning),
        (145, "RLW_REMAP", 0x0000_0082, 0x40, Action::ResetGpu, Level::Critical),
        (145, "RLW_REMAP", 0x0000_0004, 0x40, Action::ResetGpu, Level::Critical),
        (145, "RLW_REMAP", 0x0000_0004, 0x1, Action::RestartApp, Level::Warning),
        (145, "RLW_SRC_TRACK", 0x0409_88e2, 0x8, Action::RestartApp, Level::Warning),
        (144, "SAW_MVB", 0x0000_0021, 0x4, Action::Ignore, Level::Info),
        (144, "SAW_MVB", 0x0000_0021, 0x2, Action::ResetGpu, Level::Critical),
        // Promoted: the bit above the unit.
        (145, "RLW_RXPIPE", 0x0000_00c2, 0x1, Action::Ignore, Level::Warning),
        (145, "RLW_RXPIPE", 0x0000_04c2, 0x1, Action::ResetGpu, Level::Critical),
        (145, "RLW_RXPIPE", 0x0000_0006, 0x1, Action::Ignore, Level::Warning),
        (145, "RLW_RXPIPE", 0x0000_0086, 0x1, Action::ResetGpu, Level::Critical),
        // No row: a person decides.
        (144, "SAW_MVB", 0x0000_0021, 0xdead_beef, Action::ContactSupport, Level::Warning),
        (144, "SOMETHING_NEW", 0x0000_0021, 0x2, Action::ContactSupport, Level::Warning),
    ] {
        let verdict = catalogue.xid(code, Some(&nvlink(unit, false, intr, status)), None);
        assert_eq!(
            (verdict.immediate, verdict.severity),
            (action, severity),
            "{code} {unit} {intr:#x} {status:#x}"
        );
    }
    let fatal = catalogue.xid(144, Some(&nvlink("SOMETHING_NEW", true, 0, 0)), None);
    assert_eq!((fatal.immediate, fatal.severity), (Action::ContactSupport, Level::Critical));
    let bare = catalogue.xid(148, None, None);
    assert_eq!(bare.immediate, Action::ContactSupport);
}

#[test]
fn the_kernels_word_on_a_switch_is_stronger_than_the_row() {
    let catalogue = Catalogue::default();
    for (code, fatal, action, severity) in [
        (20034, Some(true), Action::ResetGpu, Level::Critical),
        (19084, Some(false), Action::Ignore, Level::Warning),
        (22013, Some(false), Action::Ignore, Level::Info),
        (22013, Some(true), Action::ContactSupport, Level::Critical),
        (12028, None, Action::ResetGpu, Level::Critical),
    ] {
        let verdict = catalogue.sxid(code, fatal);
        assert_eq!((verdict.immediate, verdict.severity), (action, severity), "{code} {fatal:?}");
    }
}
