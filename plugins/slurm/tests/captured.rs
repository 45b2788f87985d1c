//! Against what real controllers of three versions said.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::time::Duration;

use common::{Cluster, failed, fixture, ok};
use picket_plugin_slurm::Slurm;
use picket_sdk::command::CommandError;
use picket_sdk::http::{HttpError, Response};
use picket_sdk::testing::Host;
use serde_json::json;

#[track_caller]
fn is(host: &Host<Slurm>, name: &str, labels: &[(&str, &str)], wanted: f64) {
    assert_eq!(host.value(name, labels), Some(wanted), "{name} {labels:?} in\n{}", host.text());
}

/// Two nodes mixed or idle, one drained; whatever the reader.
#[track_caller]
fn common_to_both(host: &Host<Slurm>, alloc: f64, gpus: f64) {
    is(host, "slurm_cpus_alloc", &[], alloc);
    is(host, "slurm_cpus_idle", &[], 6.0 - alloc);
    is(host, "slurm_cpus_other", &[], 2.0);
    is(host, "slurm_cpus_total", &[], 8.0);
    is(host, "slurm_gpus_total", &[], 32.0);
    is(host, "slurm_gpus_alloc", &[], gpus);
    is(host, "slurm_gpus_idle", &[], 24.0 - gpus);
    is(host, "slurm_gpus_other", &[], 8.0);
    is(host, "slurm_gpus_utilization", &[], gpus / 32.0);
    is(host, "slurm_nodes_drain", &[], 1.0);
    is(host, "slurm_nodes_down", &[], 0.0);
    is(host, "slurm_nodes_total", &[], 4.0);
    let gpu4 = [("node", "gpu4"), ("status", "drained")];
    is(host, "slurm_node_cpu_other", &gpu4, 2.0);
    is(host, "slurm_node_cpu_total", &gpu4, 2.0);
    is(host, "slurm_node_mem_total", &gpu4, 4000.0);
    is(host, "slurm_node_status", &gpu4, 1.0);
    is(
        host,
        "slurm_node_gres_total",
        &[("node", "gpu4"), ("status", "drained"), ("gres_type", "gpu:h100")],
        8.0,
    );
    is(host, "slurm_node_drain_reason_info", &[("node", "gpu4"), ("reason", "bad [cable] | x")], 1.0);
    is(host, "slurm_partition_cpus_total", &[("partition", "gpu")], 8.0);
    is(host, "slurm_partition_gpus_allocated", &[("partition", "gpu")], gpus);
    is(host, "picket_slurm_partition_up", &[("partition", "gpu")], 1.0);
    is(host, "slurm_reservation_node_count", &[("reservation_name", "root_1")], 1.0);
    is(host, "slurm_scheduler_jobs_submitted", &[], 12.0);
    is(host, "picket_slurm_controller_up", &[("host", "vm"), ("mode", "primary")], 1.0);
    is(host, "picket_component_health", &[("component", "slurm"), ("state", "healthy")], 1.0);
    assert_eq!(host.failures(), []);
}

#[test]
fn the_text_of_22_05() {
    let cluster = Cluster::of("22.05", &[]);
    let mut host = cluster.host(&json!({}));
    host.collect().unwrap();
    is(&host, "picket_slurm_reader_info", &[("reader", "text")], 1.0);
    common_to_both(&host, 1.0, 8.0);
    is(&host, "slurm_nodes_mix", &[], 1.0);
    is(&host, "slurm_nodes_resv", &[], 1.0);
    is(&host, "slurm_nodes_idle", &[], 1.0);
    is(&host, "slurm_node_drain_since_timestamp_seconds", &[("node", "gpu4")], 1_795_272_401.0);
    is(&host, "slurm_reservation_start_time_seconds", &[("reservation_name", "root_1")], 1_795_272_401.0);
    // Nine of the array wait no more: three, and the one of nine nodes.
    is(&host, "slurm_queue_pending", &[], 4.0);
    is(&host, "slurm_jobs_pending", &[], 4.0);
    is(&host, "slurm_queue_running", &[], 1.0);
    is(&host, "slurm_queue_completed", &[], 1.0);
    is(&host, "picket_slurm_jobs_pending", &[("reason", "JobArrayTaskLimit")], 3.0);
    is(&host, "picket_slurm_jobs_pending", &[("reason", "PartitionConfig")], 1.0);
    is(&host, "slurm_user_gpus_running", &[("user", "root")], 8.0);
    is(&host, "slurm_account_jobs_pending", &[("account", "none")], 4.0);
    is(&host, "slurm_scheduler_mean_cycle", &[], 100.0);
    is(&host, "slurm_rpc_stats", &[("operation", "REQUEST_SUBMIT_BATCH_JOB")], 3.0);
    is(&host, "slurm_user_rpc_stats", &[("user", "root")], 56.0);
}

#[test]
fn the_json_and_the_text_of_26_05_say_the_same() {
    let json = [("slurm-nodes-json", "26.05/nodes.json"), ("slurm-jobs-json", "26.05/jobs.json")];
    let mut by_json = Cluster::of("26.05", &json).host(&json!({}));
    by_json.collect().unwrap();
    is(&by_json, "picket_slurm_reader_info", &[("reader", "json"), ("api", "scontrol")], 1.0);
    common_to_both(&by_json, 2.0, 11.0);
    let mut by_text = Cluster::of("26.05", &[]).host(&json!({ "reader": "text" }));
    by_text.collect().unwrap();
    common_to_both(&by_text, 2.0, 11.0);
    let plain = |host: &Host<Slurm>| -> Vec<String> {
        let text = host.text();
        let own = |l: &&str| {
            !l.contains("picket_slurm_reader_info") && !l.contains("duration") && !l.starts_with('#')
        };
        text.lines().filter(own).map(str::to_owned).collect()
    };
    assert_eq!(plain(&by_json), plain(&by_text));
    is(&by_json, "slurm_queue_pending", &[], 10.0);
    is(&by_json, "slurm_user_gpus_running", &[("user", "root")], 11.0);
}

#[test]
fn the_json_of_22_05() {
    let json = [("slurm-nodes-json-old", "22.05/sinfo.json"), ("slurm-jobs-json", "22.05/squeue.json")];
    let mut host = Cluster::of("22.05", &json).host(&json!({}));
    host.collect().unwrap();
    is(&host, "picket_slurm_reader_info", &[("reader", "json"), ("api", "sinfo")], 1.0);
    is(&host, "slurm_nodes_mix", &[], 1.0);
    is(&host, "slurm_gpus_alloc", &[], 2.0);
    is(&host, "slurm_queue_running", &[], 1.0);
    is(&host, "slurm_user_gpus_running", &[("user", "root")], 2.0);
    assert_eq!(host.failures(), []);
}

fn restd(
    version: &'static str,
    folder: &'static str,
    files: &'static [(&'static str, &'static str)],
) -> Host<Slurm> {
    let mut host = Cluster::default().host(&json!({
        "restd_socket": "/run/slurmrestd.sock", "restd_secret": "slurm", "restd_user": "picket",
    }));
    host.unix_http(move |socket, request| {
        assert_eq!(socket, "/run/slurmrestd.sock");
        assert!(request.headers().iter().any(|(n, v)| n == "X-SLURM-USER-NAME" && v == "picket"));
        let path = request.url().strip_prefix("http://localhost/slurm/").unwrap();
        let (asked, what) = path.split_once('/').unwrap();
        let file = files.iter().find(|(name, _)| *name == what).map(|(_, file)| *file);
        match file {
            Some(file) if asked == version => Ok(Response {
                status: 200,
                body: fixture(&format!("{folder}/{file}")),
                ..Response::default()
            }),
            _ => Ok(Response { status: 404, body: b"Not found".to_vec(), ..Response::default() }),
        }
    });
    host
}

#[test]
fn slurmrestd_of_two_versions() {
    let files = &[
        ("ping", "ping.json"),
        ("nodes", "restd_nodes.json"),
        ("jobs", "jobs.json"),
        ("partitions", "partitions.json"),
        ("diag", "diag.json"),
    ];
    let mut host = restd("v0.0.42", "24.11", files);
    host.collect().unwrap();
    is(&host, "picket_slurm_reader_info", &[("reader", "restd"), ("api", "v0.0.42")], 1.0);
    is(&host, "slurm_nodes_mix", &[], 2.0);
    is(&host, "slurm_gpus_alloc", &[], 16.0);
    is(&host, "slurm_scheduler_last_cycle", &[], 1566.0);
    is(&host, "slurm_user_rpc_stats_avg_time", &[("user", "root")], 637.0);
    is(&host, "picket_slurm_partition_up", &[("partition", "gpu")], 1.0);
    // Reservations are not there: said, and nothing else is missing.
    assert_eq!(host.failures().len(), 1, "{:?}", host.failures());
    assert_eq!(host.failures()[0].0, "status");
    let files = &[
        ("ping", "ping.json"),
        ("nodes", "sinfo.json"),
        ("jobs", "squeue.json"),
        ("partitions", "partitions.json"),
        ("diag", "diag.json"),
    ];
    let mut host = restd("v0.0.38", "22.05", files);
    host.collect().unwrap();
    is(&host, "picket_slurm_reader_info", &[("reader", "restd"), ("api", "v0.0.38")], 1.0);
    is(&host, "slurm_nodes_mix", &[], 1.0);
    is(&host, "slurm_queue_running", &[], 1.0);
    is(&host, "picket_slurm_partition_up", &[("partition", "gpu")], 1.0);
}

#[test]
fn a_refused_token_is_said_and_commands_take_over() {
    let cluster = Cluster::of("22.05", &[]);
    let mut host = cluster.host(&json!({ "restd_url": "http://127.0.0.1:6820", "restd_secret": "slurm" }));
    host.http(|_| {
        Ok(Response { status: 401, body: b"Authentication failure".to_vec(), ..Response::default() })
    });
    host.collect().unwrap();
    is(&host, "picket_slurm_reader_info", &[("reader", "text")], 1.0);
    assert!(host.take_log().iter().any(|(_, line)| line.contains("refuses the token")));
    let mut host = cluster.host(&json!({ "restd_url": "http://127.0.0.1:6820", "reader": "restd" }));
    host.http(|_| Err(HttpError::Unreachable("refused".to_owned())));
    host.collect().unwrap();
    assert!(host.value("slurm_cpus_total", &[]).is_none(), "the reader that was asked for, or none");
}

#[test]
fn one_dump_a_minute_whatever_the_collects() {
    let cluster = Cluster::of("22.05", &[]);
    let mut host = cluster.host(&json!({}));
    for second in 0..600 {
        if second % 5 == 0 {
            host.collect().unwrap();
            is(&host, "slurm_nodes_total", &[], 4.0);
        }
        host.advance(Duration::from_secs(1));
    }
    for command in ["slurm-nodes", "slurm-jobs", "slurm-partitions", "slurm-reservations", "slurm-diag"] {
        assert_eq!(cluster.asked(command), 10, "{command}");
    }
    is(&host, "picket_slurm_dumps_total", &[("kind", "nodes")], 10.0);
    is(&host, "picket_slurm_data_age_seconds", &[("kind", "nodes")], 55.0);
}

#[test]
fn a_controller_that_dies_and_comes_back() {
    let cluster = Cluster::of("22.05", &[]);
    let mut host = cluster.host(&json!({}));
    host.collect().unwrap();
    let began: Vec<_> = host.take_events();
    assert_eq!(began.len(), 1, "{began:?}");
    assert_eq!((began[0].view().kind, began[0].view().key), ("slurm.node-drained", "gpu4"));
    assert_eq!(began[0].view().attribute("reason"), Some("bad [cable] | x"));
    cluster.set(
        "slurm-ping",
        Ok(picket_sdk::command::Output {
            status: 1,
            stdout: b"Slurmctld(primary) at vm is DOWN\n".to_vec(),
            stderr: String::new(),
        }),
    );
    let before = cluster.asked("slurm-nodes");
    for _ in 0..30 {
        host.advance(Duration::from_secs(10));
        host.collect().unwrap();
    }
    assert_eq!(cluster.asked("slurm-nodes"), before, "nothing is asked of a controller that is down");
    assert!(host.value("slurm_nodes_total", &[]).is_none(), "what is old is not told");
    is(&host, "picket_slurm_controller_up", &[("host", "vm"), ("mode", "primary")], 0.0);
    is(&host, "picket_component_health", &[("component", "slurm"), ("state", "unhealthy")], 1.0);
    let down = host.take_events();
    assert_eq!(down.len(), 1);
    assert_eq!((down[0].view().kind, down[0].view().clear), ("slurm.controller-down", false));
    cluster.set("slurm-ping", ok(fixture("22.05/ping.txt")));
    host.advance(Duration::from_secs(10));
    host.collect().unwrap();
    is(&host, "slurm_nodes_total", &[], 4.0);
    let back = host.take_events();
    assert!(back.len() == 1 && back[0].view().clear, "{back:?}");
}

#[test]
fn a_node_that_comes_back_ends_its_event_over_a_restart_too() {
    let cluster = Cluster::of("22.05", &[]);
    let mut host = cluster.host(&json!({}));
    host.collect().unwrap();
    assert_eq!(host.take_events().len(), 1);
    host.advance(Duration::from_secs(60));
    host.collect().unwrap();
    assert_eq!(host.take_events(), [], "told once");
    let text = String::from_utf8(fixture("22.05/nodes.txt")).unwrap();
    let mut host = host.restarted();
    host.configure(&json!({})).unwrap();
    host.collect().unwrap();
    assert_eq!(host.take_events(), [], "not again after a restart");
    cluster.set("slurm-nodes", ok(text.replace("State=IDLE+DRAIN ", "State=DOWN* ")));
    host.advance(Duration::from_secs(60));
    host.collect().unwrap();
    let events = host.take_events();
    let told: Vec<_> = events.iter().map(|e| (e.view().kind, e.view().clear)).collect();
    assert_eq!(told, [("slurm.node-drained", true), ("slurm.node-down", false)]);
    cluster.set("slurm-nodes", ok(text.replace("State=IDLE+DRAIN ", "State=IDLE ")));
    host.advance(Duration::from_secs(60));
    host.collect().unwrap();
    let events = host.take_events();
    assert!(events.len() == 1 && events[0].view().clear && events[0].view().key == "gpu4");
    is(&host, "slurm_nodes_drain", &[], 0.0);
    assert!(!host.text().contains("slurm_node_drain_reason_info{"));
}

#[test]
fn one_bad_dump_hides_no_other() {
    let html = b"<html><body>502 Bad Gateway</body></html>".to_vec();
    for (answer, reason) in [
        (ok(html), "parse"),
        (ok(b"\xff\xfe\x00 garbage".to_vec()), "parse"),
        (failed(1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"), "status"),
        (Err(CommandError::TimedOut("killed after 8 s".to_owned())), "timed-out"),
        (Err(CommandError::TooLarge("more than".to_owned())), "too-large"),
        (Err(CommandError::NotFound("/usr/bin/squeue".to_owned())), "not-found"),
        (Err(CommandError::Denied("slurm-jobs".to_owned())), "denied"),
    ] {
        let cluster = Cluster::of("22.05", &[]);
        cluster.set("slurm-jobs", answer);
        let mut host = cluster.host(&json!({}));
        host.collect().unwrap();
        let reasons: Vec<String> = host.failures().into_iter().map(|(r, _)| r).collect();
        assert_eq!(reasons, [reason]);
        is(&host, "slurm_nodes_total", &[], 4.0);
        is(&host, "slurm_scheduler_jobs_submitted", &[], 12.0);
        is(&host, "picket_component_health", &[("component", "slurm"), ("state", "degraded")], 1.0);
        assert!(host.value("slurm_queue_running", &[]).is_none());
    }
}

#[test]
fn broken_json_of_all_kinds() {
    for body in [
        &b"{\"nodes\": [{\"name\": \"a\", \"state\": \"idle\"}"[..],
        b"{\"nodes\": 7}",
        b"{\"nodes\": [1, 2]}",
        b"[]",
        b"{\"errors\": [{\"description\": \"Access denied\"}], \"nodes\": []}",
    ] {
        let json = [("slurm-jobs-json", "26.05/jobs.json")];
        let cluster = Cluster::of("26.05", &json);
        cluster.set("slurm-nodes-json", ok(fixture("26.05/nodes.json")));
        let mut host = cluster.host(&json!({}));
        host.collect().unwrap();
        cluster.set("slurm-nodes-json", ok(body));
        host.advance(Duration::from_secs(60));
        host.collect().unwrap();
        assert_eq!(host.failures().len(), 1, "{}: {:?}", String::from_utf8_lossy(body), host.failures());
        is(&host, "slurm_queue_running", &[], 2.0);
    }
}

#[test]
fn who_polls() {
    let cluster = Cluster::of("22.05", &[]);
    cluster.set("slurm-node-states", ok("vm|idle\nalpha|down*\nzeta|mixed\n"));
    for (poller, polls) in [
        (json!(true), 1.0),
        (json!(false), 0.0),
        (json!("auto"), 1.0),
        (json!("VM.example.org"), 1.0),
        (json!("other"), 0.0),
        (json!(["alpha", "vm", "zeta"]), 1.0),
        (json!(["alpha", "zeta"]), 0.0),
    ] {
        let mut host = cluster.host(&json!({ "poller": poller }));
        host.collect().unwrap();
        is(&host, "picket_slurm_poller", &[], polls);
        assert_eq!(host.value("slurm_nodes_total", &[]).is_some(), polls > 0.0, "{poller}");
    }
    cluster.set("slurm-node-states", ok("vm|idle\nalpha|idle\n"));
    let mut host = cluster.host(&json!({ "poller": ["alpha", "vm"] }));
    host.collect().unwrap();
    is(&host, "picket_slurm_poller", &[], 0.0);
    // The lower one goes; at the next look this one takes over.
    cluster.set("slurm-node-states", ok("vm|idle\nalpha|down*\n"));
    host.advance(Duration::from_secs(120));
    host.collect().unwrap();
    is(&host, "picket_slurm_poller", &[], 1.0);
    // After a failover the controller's new host polls.
    cluster.set("slurm-ping", ok("Slurmctld(primary) at vm is DOWN\nSlurmctld(backup) at b is UP\n"));
    let mut host = cluster.host(&json!({}));
    host.collect().unwrap();
    is(&host, "picket_slurm_poller", &[], 0.0);
}

#[test]
fn the_labels_of_the_newer_exporter() {
    let json = [("slurm-nodes-json", "26.05/nodes.json"), ("slurm-jobs-json", "26.05/jobs.json")];
    let mut host = Cluster::of("26.05", &json).host(&json!({ "labels": "sckyzo" }));
    host.collect().unwrap();
    let pending = [("user", "root"), ("partition", "gpu"), ("reason", "JobArrayTaskLimit")];
    is(&host, "slurm_queue_pending", &pending, 9.0);
    is(&host, "slurm_queue_running", &[("user", "root"), ("partition", "gpu")], 2.0);
    is(&host, "slurm_cores_running", &[("user", "root"), ("partition", "gpu")], 2.0);
    is(&host, "slurm_nodes_drain", &[("partition", "gpu")], 1.0);
    is(&host, "slurm_node_status", &[("node", "gpu4"), ("status", "drained"), ("partition", "gpu")], 1.0);
    is(&host, "slurm_jobs_pending", &[], 10.0);
}

#[test]
fn more_nodes_than_have_series() {
    let mut host = Cluster::of("22.05", &[]).host(&json!({ "max_nodes": 1 }));
    host.collect().unwrap();
    is(&host, "slurm_nodes_total", &[], 4.0);
    is(&host, "picket_slurm_nodes_without_series", &[], 3.0);
    assert_eq!(host.samples().iter().filter(|s| s.name == "slurm_node_status").count(), 1);
    assert_eq!(host.take_events().len(), 1, "one that is out has its event all the same");
}

#[test]
fn the_controllers_own_metrics_are_kept_apart() {
    let mut host = Cluster::of("26.05", &[]).host(&json!({
        "openmetrics_url": "http://ctl:6817", "openmetrics_pages": ["jobs", "partitions", "scheduler"],
    }));
    host.http(|request| match request.url() {
        "http://ctl:6817/metrics/jobs" => {
            Ok(Response { status: 200, body: fixture("26.05/metrics-jobs.txt"), ..Response::default() })
        }
        "http://ctl:6817/metrics/partitions" => {
            Ok(Response { status: 200, body: fixture("26.05/metrics-partitions.txt"), ..Response::default() })
        }
        _ => Err(HttpError::TimedOut("slow".to_owned())),
    });
    for _ in 0..3 {
        host.collect().unwrap();
        is(&host, "slurm_jobs_pending", &[("job", "slurmctld")], 10.0);
        is(&host, "slurm_jobs_pending", &[], 10.0);
        is(&host, "slurm_partition_jobs_running", &[("partition", "gpu"), ("job", "slurmctld")], 2.0);
        host.advance(Duration::from_secs(15));
    }
    assert_eq!(host.value("picket_slurm_dumps_total", &[("kind", "openmetrics")]), Some(1.0));
}

#[test]
fn settings_that_cannot_be() {
    for bad in [
        json!({ "reader": "restd" }),
        json!({ "restd_url": "ftp://x" }),
        json!({ "restd_socket": "run/x" }),
        json!({ "restd_url": "http://a", "restd_socket": "/b" }),
        json!({ "restd_version": "0.0.42" }),
        json!({ "interval_seconds": 0 }),
        json!({ "poller": [] }),
        json!({ "poller": "" }),
        json!({ "openmetrics_pages": ["../x"] }),
        json!({ "polling": true }),
    ] {
        assert!(Host::<Slurm>::new().configure(&bad).is_err(), "{bad}");
    }
}
