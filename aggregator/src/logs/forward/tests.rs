//! The other Loki is a small server of this test's own that answers what it is told to and keeps what it was sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use picket_proto::v1;
use tokio_util::sync::CancellationToken;

use super::super::push::{Format, decode, unpack};
use super::{ForwardError, Forwarder, Target};
use crate::logs::{LogStore, Options};
use crate::store::lock;

#[derive(Default)]
struct Other {
    /// What it answers next; 204 when there is none.
    answers: VecDeque<u16>,
    /// Headers and body of each request.
    heard: Vec<(HeaderMap, Bytes)>,
}

type Shared = Arc<Mutex<Other>>;

async fn take(State(other): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, &'static str) {
    let mut other = lock(&other);
    other.heard.push((headers, body));
    let status = other.answers.pop_front().unwrap_or(204);
    (StatusCode::from_u16(status).unwrap(), "because")
}

async fn other(answers: &[u16]) -> (Shared, String) {
    let shared = Shared::default();
    lock(&shared).answers = answers.iter().copied().collect();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/loki/api/v1/push", post(take)).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (shared, url)
}

fn store(dir: &std::path::Path) -> Arc<LogStore> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    LogStore::open(Options { dir: dir.to_owned(), ..Options::default() }).unwrap().0
}

async fn say(store: &LogStore, sequence: u64, line: &str) {
    let stream = v1::LogStream {
        labels: vec![v1::Label { name: "c".into(), value: "x".into() }],
        timestamps_ns: vec![crate::clock::Clock::system().now_ms() * 1_000_000],
        lines: vec![line.to_owned()],
    };
    store.record(&crate::logs::tests::node(), 7, sequence, vec![stream]).await.unwrap();
}

/// The lines of each request.
fn lines(other: &Shared) -> Vec<Vec<String>> {
    let heard = &lock(other).heard;
    heard
        .iter()
        .map(|(_, body)| {
            let plain = unpack(body.to_vec(), None, Format::Protobuf, 1 << 20).unwrap();
            let streams = decode(&plain, Format::Protobuf).unwrap();
            streams.into_iter().flat_map(|s| s.entries).map(|(_, line)| line).collect()
        })
        .collect()
}

async fn wait_for(mut ready: impl FnMut() -> bool, what: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn start(
    store: &Arc<LogStore>,
    target: Target,
    dir: &std::path::Path,
) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let stop = CancellationToken::new();
    let forwarder = Forwarder::new(Arc::clone(store), target, dir).unwrap();
    (stop.clone(), tokio::spawn(forwarder.run(stop)))
}

#[tokio::test]
async fn requests_have_lokis_shape_and_are_tried_again_until_they_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (there, url) = other(&[503, 429, 204]).await;
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "hush\n").unwrap();
    let target = Target {
        url,
        tenant: Some("ops".into()),
        username: Some("picket".into()),
        password_file: Some(secret),
        ..Target::default()
    };
    let (stop, task) = start(&store, target, dir.path());
    // It begins with what comes after it began.
    wait_for(|| dir.path().join("forward.cursor").exists(), "the cursor").await;
    say(&store, 1, "first").await;
    wait_for(|| lines(&there).len() == 3, "three tries").await;
    say(&store, 2, "second").await;
    wait_for(|| lines(&there).len() == 4, "the second line").await;
    assert_eq!(lines(&there), [["first"], ["first"], ["first"], ["second"]]);
    let (headers, body) = lock(&there).heard[0].clone();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    assert_eq!(headers["x-scope-orgid"], "ops");
    assert_eq!(headers["authorization"], "Basic cGlja2V0Omh1c2g=");
    let plain = unpack(body.to_vec(), None, Format::Protobuf, 1 << 20).unwrap();
    let labels = &decode(&plain, Format::Protobuf).unwrap()[0].labels;
    let names: Vec<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["c", "instance", "node"]);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn what_is_refused_for_good_is_skipped_and_a_restart_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (there, url) = other(&[400]).await;
    let target = Target { url: format!("{url}/loki/api/v1/push"), ..Target::default() };
    let (stop, task) = start(&store, target.clone(), dir.path());
    wait_for(|| dir.path().join("forward.cursor").exists(), "the cursor").await;
    say(&store, 1, "bad").await;
    wait_for(|| lines(&there).len() == 1, "the refused line").await;
    say(&store, 2, "good").await;
    wait_for(|| lines(&there).len() == 2, "the next line").await;
    stop.cancel();
    task.await.unwrap();
    say(&store, 3, "while it was stopped").await;
    let (stop, task) = start(&store, target, dir.path());
    wait_for(|| lines(&there).iter().flatten().any(|line| line == "while it was stopped"), "the missed line")
        .await;
    let all: Vec<String> = lines(&there).into_iter().flatten().collect();
    assert_eq!(all.iter().filter(|line| *line == "bad").count(), 1);
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_wrong_target_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let new = |target| Forwarder::new(Arc::clone(&store), target, dir.path()).map(|_| ());
    let url = |url: &str| Target { url: url.into(), ..Target::default() };
    assert!(matches!(new(url("loki")), Err(ForwardError::Url { .. })));
    assert!(matches!(new(url("ftp://loki")), Err(ForwardError::Url { .. })));
    let absent = Some(dir.path().join("absent"));
    let target = Target { bearer_file: absent.clone(), ..url("http://loki") };
    assert!(matches!(new(target), Err(ForwardError::Secret { .. })));
    let target = Target { authorities: absent, ..url("https://loki") };
    assert!(matches!(new(target), Err(ForwardError::Secret { .. })));
}
