use proptest::prelude::*;

use super::*;
use crate::catalogue::Catalogue;

const TIMES: Times = Times { clear_after_ms: 60_000, transient_after_ms: 300_000 };

fn error(code: u32, pid: Option<u32>, at_ms: u64) -> Error {
    Error { kind: Kind::Xid, device: "GPU-1".to_owned(), code, pid, at_ms }
}

fn with(code: u32, pid: Option<u32>) -> Faults {
    let mut faults = Faults::default();
    let verdict = Catalogue::default().xid(code, None, None);
    assert_eq!(faults.add(&error(code, pid, 1000), &verdict, "boot-1"), Added::Opened);
    faults
}

fn now(recovery: Option<Recovery>) -> Now {
    Now { recovery, ..Now::default() }
}

/// Steps of a case: seconds since the error, the boot, what the GPU says, and what ends the condition then.
type Step = (u64, &'static str, Now, Option<&'static str>);

fn check(code: u32, pid: Option<u32>, steps: &[Step]) {
    let mut faults = with(code, pid);
    for (seconds, boot, now, want) in steps {
        let ended = faults.settle(1000 + seconds * 1000, boot, TIMES, |_| now.clone());
        let reasons: Vec<&str> = ended.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, want.iter().copied().collect::<Vec<_>>(), "XID {code} after {seconds} s");
    }
}

#[test]
fn a_reboot_or_a_reset_ends_anything() {
    for code in [13, 43, 48, 79, 119] {
        check(code, None, &[(5, "boot-1", now(None), None), (6, "boot-2", now(None), Some("reboot"))]);
        let reset = Now { reset: true, ..Now::default() };
        check(code, None, &[(5, "boot-1", reset, Some("gpu-reset"))]);
    }
}

#[test]
fn what_asks_for_a_reset_ends_when_the_driver_asks_for_nothing_any_more() {
    let (asks, none) = (now(Some(Recovery::GpuReset)), now(Some(Recovery::None)));
    check(
        119,
        None,
        &[
            (5, "boot-1", asks.clone(), None),
            (10, "boot-1", none.clone(), None),
            // It asks again: the wait begins anew.
            (40, "boot-1", asks, None),
            (50, "boot-1", none.clone(), None),
            (109, "boot-1", none.clone(), None),
            (110, "boot-1", none, Some("recovery-none")),
        ],
    );
    // A driver that has no such field never says that it is well.
    check(119, None, &[(5, "boot-1", now(None), None), (1_000_000, "boot-1", now(None), None)]);
    // Nor does a GPU that is not there.
    let lost = Now { lost: true, recovery: Some(Recovery::None), ..Now::default() };
    check(79, None, &[(5, "boot-1", lost.clone(), None), (1_000_000, "boot-1", lost, None)]);
}

#[test]
fn what_asks_for_a_restart_of_the_application_ends_with_its_process() {
    let running = Now { pids: vec![7, 8], ..Now::default() };
    let gone = Now { pids: vec![8], ..Now::default() };
    check(
        94,
        Some(7),
        &[
            (5, "boot-1", running.clone(), None),
            (10, "boot-1", gone.clone(), None),
            (69, "boot-1", gone.clone(), None),
            (70, "boot-1", gone, Some("process-gone")),
        ],
    );
    // Where the process lives on, or nobody knows which it was, time ends it.
    check(94, Some(7), &[(299, "boot-1", running.clone(), None), (300, "boot-1", running, Some("quiet"))]);
    check(31, None, &[(299, "boot-1", now(None), None), (300, "boot-1", now(None), Some("quiet"))]);
    // But not while the driver asks for something.
    let asks = now(Some(Recovery::NodeReboot));
    check(31, None, &[(1000, "boot-1", asks, None)]);
}

#[test]
fn an_error_that_comes_again_joins_the_open_one() {
    let catalogue = Catalogue::default();
    let mut faults = with(31, Some(5));
    let verdict = catalogue.xid(31, None, None);
    assert_eq!(faults.add(&error(31, None, 2000), &verdict, "boot-1"), Added::Again);
    let fault = faults.iter().next().unwrap();
    assert_eq!((fault.times, fault.first_ms, fault.last_ms, fault.pid), (2, 1000, 2000, Some(5)));
    // Now the driver says that it is worse.
    let worse = catalogue.xid(31, None, Some(Recovery::GpuReset));
    assert_eq!(faults.add(&error(31, None, 3000), &worse, "boot-1"), Added::Worse);
    let fault = faults.iter().next().unwrap();
    assert_eq!(
        (fault.action, fault.severity, fault.source.as_str()),
        (Action::ResetGpu, Level::Critical, "driver")
    );
    // Another code is another one, and the last.
    faults.add(&error(43, None, 4000), &catalogue.xid(43, None, None), "boot-1");
    assert_eq!(
        (faults.iter().count(), faults.last_xid("GPU-1"), faults.last_xid("GPU-2")),
        (2, Some(43), None)
    );
}

#[test]
fn what_the_driver_asks_for_changes_open_conditions_once() {
    let catalogue = Catalogue::default();
    let mut faults = with(31, None);
    faults.add(&error(43, None, 1000), &catalogue.xid(43, None, None), "boot-1");
    let ask = |faults: &mut Faults| {
        let verdict = |f: &Fault| catalogue.xid(f.code, None, Some(Recovery::NodeReboot));
        faults.driver_asks("GPU-1", verdict).iter().map(|f| f.code).collect::<Vec<_>>()
    };
    assert_eq!(ask(&mut faults), [31]);
    assert_eq!(ask(&mut faults), [0; 0]);
}

#[test]
fn errors_of_switches_and_of_pcie() {
    let catalogue = Catalogue::default();
    for (kind, code, fatal, ends) in
        [(Kind::Sxid, 20034, true, false), (Kind::Sxid, 19084, false, true), (Kind::Aer, 0, false, true)]
    {
        let mut faults = Faults::default();
        let verdict = match kind {
            Kind::Sxid => catalogue.sxid(code, Some(fatal)),
            _ => Verdict { severity: Level::Info, ..catalogue.xid(43, None, None) },
        };
        let error = Error { kind, device: "nvswitch0".to_owned(), code, pid: None, at_ms: 1000 };
        faults.add(&error, &verdict, "boot-1");
        let ended = faults.settle(1_000_000, "boot-1", TIMES, |_| Now::default());
        assert_eq!(!ended.is_empty(), ends, "{kind:?} {code}");
        faults.add(&error, &verdict, "boot-1");
        assert_eq!(faults.settle(2000, "boot-2", TIMES, |_| Now::default()).len(), 1);
    }
}

#[derive(Debug, Clone)]
enum Doing {
    Error(u32, Option<u32>),
    Wait(u32),
    Say(bool, bool, Option<u8>, Vec<u32>),
    Boot,
    BackInTime(u32),
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        (
            prop::sample::select(vec![13u32, 31, 43, 48, 63, 74, 79, 94, 119, 149, 999]),
            prop::option::of(1u32..4)
        )
            .prop_map(|(code, pid)| Doing::Error(code, pid)),
        (0u32..400).prop_map(Doing::Wait),
        (
            any::<bool>(),
            prop::bool::weighted(0.1),
            prop::option::of(0u8..5),
            prop::collection::vec(1u32..4, 0..3)
        )
            .prop_map(|(lost, reset, recovery, pids)| Doing::Say(lost, reset, recovery, pids)),
        Just(Doing::Boot),
        (0u32..400).prop_map(Doing::BackInTime),
    ]
}

proptest! {
    /// Whatever comes in whatever order: a condition opens once until it ended, ends once after it opened, and all of
    /// them end with a reboot. It survives being written and read at any point.
    #[test]
    fn each_condition_opens_and_ends_in_turn(story in prop::collection::vec(doing(), 0..60)) {
        let catalogue = Catalogue::default();
        let (mut faults, mut open) = (Faults::default(), std::collections::BTreeSet::new());
        let (mut at, mut boot, mut now) = (1_000_000_000u64, 0u32, Now::default());
        let boot_name = |boot: u32| format!("boot-{boot}");
        for doing in story.into_iter().chain([Doing::Boot]) {
            match doing {
                Doing::Error(code, pid) => {
                    let verdict = catalogue.xid(code, None, now.recovery);
                    let added = faults.add(&error(code, pid, at), &verdict, &boot_name(boot));
                    prop_assert_eq!(added == Added::Opened, open.insert(code), "{:?} {}", added, code);
                }
                Doing::Wait(seconds) => at += u64::from(seconds) * 1000,
                Doing::BackInTime(seconds) => at -= u64::from(seconds) * 1000,
                Doing::Say(lost, reset, recovery, pids) => {
                    now = Now { lost, reset, recovery: recovery.map(|r| Recovery::of_number(u32::from(r))), pids };
                }
                Doing::Boot => boot += 1,
            }
            let text = serde_json::to_string(&faults).unwrap();
            faults = serde_json::from_str(&text).unwrap();
            for (fault, reason) in faults.settle(at, &boot_name(boot), TIMES, |_| now.clone()) {
                prop_assert!(open.remove(&fault.code), "{} ended twice", fault.code);
                let asks = now.recovery.is_some_and(|r| r.action().is_some());
                prop_assert!(!asks || matches!(reason, "reboot" | "gpu-reset"), "{} {}", reason, fault.code);
                prop_assert!(reason != "gpu-reset" || !now.lost);
            }
            now.reset = false;
            prop_assert!(faults.iter().map(|f| f.code).eq(faults.iter().map(|f| f.code).filter(|c| open.contains(c))));
            prop_assert_eq!(faults.iter().count(), open.len());
        }
        prop_assert!(open.is_empty(), "{:?} outlived a reboot", open);
    }

    #[test]
    fn there_are_never_more_than_so_many(codes in prop::collection::vec(1u32..2000, 0..600)) {
        let mut faults = Faults::default();
        let catalogue = Catalogue::default();
        let mut dropped = 0;
        for code in &codes {
            dropped += usize::from(faults.make_room().is_some());
            let code = *code;
            faults.add(&error(code, None, 0), &catalogue.xid(code, None, None), "b");
            prop_assert!(faults.iter().count() <= MANY);
        }
        // A code that was dropped may have come again: none is lost without having been given.
        let different: std::collections::BTreeSet<u32> = codes.into_iter().collect();
        prop_assert!(faults.iter().count() + dropped >= different.len());
    }
}
