//! What plugins read: pages, lines, dumps. Each in the plugin itself, on the SDK's host for tests.

use picket_plugin_logs::Logs;
use picket_plugin_prometheus::Prometheus;
use picket_plugin_slurm::Slurm;
use picket_sdk::command::{CommandError, Output};
use picket_sdk::exposition;
use picket_sdk::http::Response;
use picket_sdk::logs::SourceKind;
use picket_sdk::testing::Host;
use serde_json::json;

/// A page in Prometheus' or OpenMetrics' text, twice: the second time it is known already.
pub fn exposition(bytes: &[u8]) {
    for sample in exposition::samples(bytes).flatten() {
        assert!(!sample.name.is_empty());
    }
    let mut host = Host::<Prometheus>::new();
    let page = bytes.to_vec();
    host.http(move |_| Ok(Response { status: 200, headers: Vec::new(), body: page.clone() }));
    let settings =
        json!({ "jobs": [{ "job_name": "a", "static_configs": [{ "targets": ["127.0.0.1:9"] }] }] });
    host.configure(&settings).expect("the settings are good");
    for _ in 0..2 {
        let _ = host.collect();
        host.advance(std::time::Duration::from_secs(60));
    }
}

/// Lines of containers' logs as Docker and as CRI write them, of a plain file, and of the journal.
pub fn log_lines(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let (source, name) = match kind % 4 {
        0 => (SourceKind::File, "/var/lib/docker/containers/c/c-json.log"),
        1 => (SourceKind::File, "/var/log/pods/space_pod_uid/container/0.log"),
        2 => (SourceKind::Journal, ""),
        _ => (SourceKind::File, "/var/log/app.log"),
    };
    let mut host = Host::<Logs>::new();
    host.configure(&json!({ "units": ["*"] })).expect("the settings are good");
    // In two pieces, as a file that grows.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for piece in [first, second] {
        host.write_log(source, name, &[], piece);
        let _ = host.collect();
        host.advance(std::time::Duration::from_secs(10));
    }
    host.end_log(name);
    let _ = host.collect();
    let sent: usize = host.take_lines().iter().flat_map(|b| &b.lines).map(String::len).sum();
    assert!(sent <= bytes.len() * 8 + 1024, "{sent} bytes came of {}", bytes.len());
}

/// The answers of Slurm's commands, as JSON or as text.
pub fn slurm(bytes: &[u8]) {
    let mut host = Host::<Slurm>::new();
    let answer = bytes.to_vec();
    host.command(move |_, _| -> Result<Output, CommandError> {
        Ok(Output { status: 0, stdout: answer.clone(), stderr: String::new() })
    });
    if host.configure(&json!({})).is_err() {
        return;
    }
    for _ in 0..2 {
        let _ = host.collect();
        host.advance(std::time::Duration::from_secs(120));
    }
}
