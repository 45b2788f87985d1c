//! The checks, against a `systemctl` that writes down how it was called and knows a few units.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::grants::Granted;

struct Systemctl {
    folder: tempfile::TempDir,
}

impl Systemctl {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            r#"#!/bin/sh
for last; do :; done
echo "$*" >> {calls}
case "$2" in
show)
    id="$last"; load=loaded
    case "$last" in
        alias.service) id=sshd.service ;;
        missing.service) load=not-found ;;
        slow.service) sleep 60 ;;
        nobus.service) echo "Failed to connect to bus: No such file" >&2; exit 1 ;;
    esac
    printf 'Id=%s\nLoadState=%s\nActiveState=active\nSubState=running\nInvocationID=abc\nCanStart=yes\nCanStop=yes\nCanReload=no\nStateChangeTimestampMonotonic=77\nNRestarts=2\nDescription=a = b\nJob=\n' "$id" "$load" ;;
*)
    case "$last" in
        bad.service) echo "Job for bad.service failed." >&2; exit 1 ;;
    esac ;;
esac
"#,
            calls = folder.path().join("calls").display()
        );
        let program = folder.path().join("systemctl");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("systemctl")
    }

    fn calls(&self) -> Vec<String> {
        let file = self.folder.path().join("calls");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = std::fs::remove_file(file);
        text.lines().map(str::to_owned).collect()
    }

    fn rules(&self, units: &[&str], verbs: Value) -> Rules {
        let scope: Scope =
            serde_json::from_value(json!({ "units": units, "verbs": verbs, "program": self.program() }))
                .unwrap();
        Scope::compile(&[&scope]).unwrap()
    }
}

fn change(unit: &str, verb: Verb) -> Request {
    Request::Change { unit: unit.to_owned(), verb }
}

async fn ask(rules: &Rules, request: Request) -> Result<Answer, Error> {
    let limits = ServiceLimits { control_time: Duration::from_secs(10), ..ServiceLimits::default() };
    call(rules, &limits, request).await
}

#[tokio::test]
async fn within_the_scope() {
    let systemctl = Systemctl::new();
    let rules = systemctl.rules(&["vllm@*.service", "bad.service"], json!(["restart"]));
    let Answer::Shown(unit) = ask(&rules, Request::Show { unit: "vllm@a.service".to_owned() }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!((unit.active.as_str(), unit.changed, unit.restarts), ("active", 77, 2));
    assert_eq!((unit.description.as_str(), unit.can_reload, unit.job), ("a = b", false, false));
    systemctl.calls();
    assert_eq!(ask(&rules, change("vllm@a.service", Verb::Restart)).await, Ok(Answer::Changed));
    let calls = systemctl.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert_eq!(calls[1], "--no-pager --no-ask-password --quiet restart -- vllm@a.service");
    let refused = ask(&rules, change("bad.service", Verb::Restart)).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Refused(why) if why.contains("Job for bad.service failed")),
        "{refused}"
    );
}

#[tokio::test]
async fn outside_of_it_nothing_is_changed() {
    let systemctl = Systemctl::new();
    let rules = systemctl.rules(&["vllm.service", "alias.service", "missing.service"], json!(["restart"]));
    for unit in [
        "sshd.service",
        "vllm.socket",
        "vllm",
        "",
        "--help",
        "-Hroot@elsewhere.service",
        "vllm.service sshd.service",
        "vllm.service;id",
        "vllm.service\nsshd.service",
        "/etc/systemd/system/vllm.service",
        "../vllm.service",
        "vllm*.service",
        "vllm.servicé",
    ] {
        let ended = ask(&rules, change(unit, Verb::Restart)).await;
        assert!(matches!(ended, Err(Error::Denied(_) | Error::Invalid(_))), "{unit:?}: {ended:?}");
    }
    assert!(systemctl.calls().is_empty());
    // An alias of a unit that is not granted: it was asked who it is, and no more.
    assert!(matches!(ask(&rules, change("alias.service", Verb::Restart)).await, Err(Error::Denied(_))));
    let show = Request::Show { unit: "alias.service".to_owned() };
    assert!(matches!(ask(&rules, show).await, Err(Error::Denied(_))));
    assert!(matches!(ask(&rules, change("missing.service", Verb::Restart)).await, Err(Error::NotFound(_))));
    assert!(matches!(ask(&rules, change("vllm.service", Verb::Stop)).await, Err(Error::Denied(_))));
    assert!(systemctl.calls().iter().all(|call| call.contains(" show ")));
}

#[tokio::test]
async fn a_systemd_that_is_not_there() {
    let systemctl = Systemctl::new();
    let rules = systemctl.rules(&["nobus.service"], json!(["restart"]));
    assert!(matches!(ask(&rules, change("nobus.service", Verb::Restart)).await, Err(Error::Unavailable(_))));
    let scope = Scope { program: "/nowhere/systemctl".to_owned(), ..Scope::example() };
    let rules = Scope::compile(&[&scope]).unwrap();
    assert!(matches!(
        ask(&rules, change("example.service", Verb::Restart)).await,
        Err(Error::Unavailable(_))
    ));
}

#[test]
fn grants_that_make_no_sense() {
    for grant in [
        json!({ "units": [] }),
        json!({ "units": ["*"] }),
        json!({ "units": ["*.service"] }),
        json!({ "units": ["vllm"] }),
        json!({ "units": ["a.service"], "program": "systemctl" }),
    ] {
        let scope: Scope = serde_json::from_value(grant.clone()).unwrap();
        assert!(Scope::compile(&[&scope]).is_err(), "{grant}");
    }
    assert!(serde_json::from_value::<Scope>(json!({ "units": ["a.service"], "verbs": ["mask"] })).is_err());
}
