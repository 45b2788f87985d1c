//! The plugin as a whole, against the twin of the host's logs.

#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

use std::time::Duration;

use picket_plugin_logs::Logs;
use picket_sdk::logs::{Batch, SourceKind};
use picket_sdk::testing::Host;
use serde_json::json;

const DOCKER: &str = "/var/lib/docker/containers/x/x-json.log";

fn host(settings: serde_json::Value) -> Host<Logs> {
    let mut host = Host::new();
    host.configure(&settings).unwrap();
    host
}

fn lines(batches: &[Batch]) -> Vec<(String, u64, String)> {
    let labels = |batch: &Batch| {
        let pairs: Vec<String> = batch.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(",")
    };
    let of = |batch: &Batch| -> Vec<(String, u64, String)> {
        let lines = batch.timestamps.iter().zip(&batch.lines);
        lines.map(|(time, line)| (labels(batch), *time, line.clone())).collect()
    };
    batches.iter().flat_map(of).collect()
}

fn texts(batches: &[Batch]) -> Vec<String> {
    lines(batches).into_iter().map(|(.., text)| text).collect()
}

fn docker(stream: &str, text: &str) -> String {
    json!({"log": text, "stream": stream, "time": "2026-11-21T14:00:01.5Z"}).to_string() + "\n"
}

#[test]
fn a_containers_lines_have_its_name_stream_level_and_time() {
    let mut host = host(json!({"container_labels": ["com.example.team"]}));
    let labels =
        [("id", "abc"), ("container", "vllm-a"), ("image", "vllm:1"), ("label.com.example.team", "ml")];
    let text = docker("stderr", "INFO 11-21 14:00:01 [x.py:1] ready\n") + &docker("stdout", "plain\n");
    host.write_log(SourceKind::File, DOCKER, &labels, text.as_bytes());
    host.collect().unwrap();
    let got = lines(&host.take_lines());
    let common = "com_example_team=ml,container=vllm-a,job=logs";
    let time = 1_795_269_601_500_000_000;
    assert_eq!(
        got,
        [
            (
                format!("{common},level=info,stream=stderr"),
                time,
                "INFO 11-21 14:00:01 [x.py:1] ready".to_owned()
            ),
            (format!("{common},level=unknown,stream=stdout"), time, "plain".to_owned()),
        ]
    );
    assert_eq!(
        host.value("picket_log_entries_total", &[("source", "container"), ("level", "info")]),
        Some(1.0)
    );
    assert!(host.failures().is_empty(), "{:?}", host.failures());
}

#[test]
fn plain_files_and_units() {
    let mut host = host(json!({"units": ["*"], "job": "node"}));
    host.write_log(
        SourceKind::File,
        "/var/log/app.log",
        &[],
        b"2026-11-21T14:00:01Z [error] no\nbad \xff byte\n",
    );
    let entry = json!({"MESSAGE": "Started", "PRIORITY": "6", "_SYSTEMD_UNIT": "a.service", "__REALTIME_TIMESTAMP": "1795269601000000"});
    host.write_log(SourceKind::Journal, "", &[], format!("{entry}\n").as_bytes());
    host.collect().unwrap();
    let got = lines(&host.take_lines());
    let read_at = 1_767_225_600_000_000_001;
    let expected = [
        (
            "file=/var/log/app.log,job=node,level=error",
            1_795_269_601_000_000_000,
            "2026-11-21T14:00:01Z [error] no",
        ),
        ("file=/var/log/app.log,job=node,level=unknown", read_at, "bad \u{fffd} byte"),
        ("job=node,level=info,unit=a.service", 1_795_269_601_000_000_000, "Started"),
    ];
    let expected = expected.map(|(labels, time, text)| (labels.to_owned(), time, text.to_owned()));
    assert_eq!(got, expected);
    assert_eq!(host.value("picket_log_oddities_total", &[("kind", "invalid-utf8")]), Some(1.0));
}

#[test]
fn a_trace_waits_for_its_rest_but_not_for_ever() {
    let mut host = host(json!({}));
    let name = "/var/log/app.log";
    host.write_log(SourceKind::File, name, &[], b"before\nTraceback (most recent call last):\n  File\n");
    host.collect().unwrap();
    assert_eq!(texts(&host.take_lines()), ["before"]);
    host.advance(Duration::from_secs(1));
    host.write_log(SourceKind::File, name, &[], b"ValueError: x\nafter\n");
    host.collect().unwrap();
    let trace = "Traceback (most recent call last):\n  File\nValueError: x";
    assert_eq!(texts(&host.take_lines()), [trace, "after"]);

    host.write_log(SourceKind::File, name, &[], b"Traceback (most recent call last):\n  File\n");
    for _ in 0..3 {
        host.collect().unwrap();
        assert!(host.take_lines().is_empty());
        host.advance(Duration::from_secs(1));
    }
    host.collect().unwrap();
    assert_eq!(texts(&host.take_lines()), ["Traceback (most recent call last):\n  File"]);

    host.write_log(SourceKind::File, name, &[], b"panic: the end");
    host.end_log(name);
    host.collect().unwrap();
    assert_eq!(texts(&host.take_lines()), ["panic: the end"]);
}

#[test]
fn an_instance_that_is_replaced_loses_nothing_that_it_held_back() {
    let mut host = host(json!({}));
    host.write_log(SourceKind::File, "/a.log", &[], b"Traceback (most recent call last):\n  File\n");
    host.collect().unwrap();
    let mut host = host.restarted();
    host.configure(&json!({})).unwrap();
    host.write_log(SourceKind::File, "/a.log", &[], b"KeyError: y\nend\n");
    host.collect().unwrap();
    assert_eq!(texts(&host.take_lines())[0], "Traceback (most recent call last):\n  File\nKeyError: y");
}

#[test]
fn long_lines_are_cut_and_marked() {
    let mut host = host(json!({"max_line": 256}));
    host.write_log(SourceKind::File, "/a.log", &[], format!("{}\nshort\n", "é".repeat(400)).as_bytes());
    // Parts of one line, as an engine cuts it.
    let parts =
        docker("stdout", &"x".repeat(200)) + &docker("stdout", &"y".repeat(200)) + &docker("stdout", "end\n");
    host.write_log(SourceKind::File, DOCKER, &[("container", "c")], parts.as_bytes());
    host.collect().unwrap();
    let got = texts(&host.take_lines());
    assert!(got.contains(&format!("{}[…cut]", "é".repeat(128))), "{got:?}");
    assert!(got.contains(&format!("{}{}[…cut]", "x".repeat(200), "y".repeat(56))), "{got:?}");
    assert_eq!(host.value("picket_log_oddities_total", &[("kind", "cut")]), Some(2.0));
}

#[test]
fn rules_redact_and_drop() {
    let mut host = host(json!({
        "redact": {"rules": [{"name": "ids", "match": "user-[0-9]+", "replace": "user-#"}]},
        "drop": [{"name": "health", "match": "GET /health"}, {"name": "debug", "levels": ["debug"]}],
    }));
    host.write_log(
        SourceKind::File,
        "/a.log",
        &[],
        b"GET /health 200\nDEBUG noise\nuser-17 sent Bearer abcdefgh12345\nkept\n",
    );
    host.collect().unwrap();
    let mut got = texts(&host.take_lines());
    got.sort();
    assert_eq!(got, ["kept", "user-# sent Bearer ***"]);
    for (name, label, value) in [
        ("picket_log_dropped_total", ("rule", "health"), 1.0),
        ("picket_log_dropped_total", ("rule", "debug"), 1.0),
        ("picket_log_redactions_total", ("rule", "bearer"), 1.0),
        ("picket_log_redactions_total", ("rule", "ids"), 1.0),
    ] {
        assert_eq!(host.value(name, &[label]), Some(value), "{name} {label:?}");
    }
}

#[test]
fn label_sets_are_bounded() {
    let mut host = host(json!({"max_streams": 3}));
    for number in 0..6 {
        host.write_log(SourceKind::File, &format!("/log/{number}.log"), &[], b"a line\n");
    }
    host.collect().unwrap();
    let batches = host.take_lines();
    let others = "file=other,job=logs,level=unknown";
    let got = lines(&batches);
    assert_eq!((batches.len(), got.len()), (4, 6));
    assert_eq!(got.iter().filter(|(labels, ..)| labels == others).count(), 3);
    assert_eq!(host.value("picket_log_oddities_total", &[("kind", "other-stream")]), Some(3.0));
}

#[test]
fn a_full_queue_leaves_the_lines_where_they_are() {
    let mut host = host(json!({}));
    host.write_log(SourceKind::File, "/a.log", &[], b"a line\n");
    host.full_log_queue(true);
    host.collect().unwrap();
    assert!(host.take_lines().is_empty());
    host.full_log_queue(false);
    host.collect().unwrap();
    assert_eq!(texts(&host.take_lines()), ["a line"]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [
        json!({"max_line": 1}),
        json!({"max_streams": 0}),
        json!({"multiline": {"lines": 1}}),
        json!({"drop": [{"name": "all"}]}),
        json!({"drop": [{"name": "x", "levels": ["loud"]}]}),
        json!({"drop": [{"name": "x", "match": "("}]}),
        json!({"redact": {"rules": [{"name": "x", "match": "["}]}}),
        json!({"from": "middle"}),
        json!({"file": []}),
    ] {
        let mut host: Host<Logs> = Host::new();
        assert!(host.configure(&bad).is_err(), "{bad}");
    }
    let host = host(json!({"files": ["/var/log/*.log"], "from": "beginning"}));
    drop(host);
}

#[test]
fn what_is_asked_is_what_the_settings_say() {
    let mut host = host(json!({"files": ["/var/log/*.log"], "units": ["a.service"], "from": "beginning"}));
    host.collect().unwrap();
    let asked = host.log_selection().unwrap();
    assert_eq!(
        (asked.files, asked.units, asked.from_the_end),
        (vec!["/var/log/*.log".into()], vec!["a.service".into()], false)
    );
}
