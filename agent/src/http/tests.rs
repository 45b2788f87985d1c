use std::sync::atomic::AtomicBool;

use axum::body::to_bytes;
use axum::http::Request;
use picket_agent_host::SampleSink;
use picket_proto::model::{Family, Labels, MetricType, Part, PluginId};
use tower::ServiceExt;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::schedule::{
    About, BoxFuture, Condition, Loader, Planned, ScheduleOptions, Source, SourceError, SourceSpec, Took,
};

/// Loads a controllable plugin that takes `{"scenario":"normal"}` alone.
struct Twin;

impl Loader for Twin {
    fn load(&self, _: SourceSpec) -> BoxFuture<'static, Result<Box<dyn Source>, SourceError>> {
        Box::pin(async { Ok(Box::new(Self) as Box<dyn Source>) })
    }
}

impl Source for Twin {
    fn about(&self) -> About {
        About { version: "1.2.3".to_owned(), controllable: true, ..About::default() }
    }

    fn condition(&self) -> Condition {
        Condition { state: crate::schedule::State::Running, reason: String::new(), enterable: true }
    }

    fn collect<'a>(&'a mut self, sink: &'a mut dyn SampleSink) -> BoxFuture<'a, Result<Took, SourceError>> {
        Box::pin(async move {
            sink.begin(0);
            sink.family(0, &Family::new("m", MetricType::Gauge, "", "").unwrap());
            sink.series(0, 0, Part::Value, &Labels::default()).unwrap();
            sink.points(&[(0, 4.0)]);
            Ok(Took::default())
        })
    }

    fn control(&mut self, request: Control) -> BoxFuture<'_, Result<String, ControlError>> {
        Box::pin(async move {
            match request {
                Control::Set(text) if !text.contains("normal") => {
                    Err(ControlError::Refused(vec!["scenario: one of normal".to_owned()]))
                }
                _ => Ok(r#"{"scenario":"normal"}"#.to_owned()),
            }
        })
    }
}

async fn api(plugins: &[&str]) -> Router {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let collector = Collector::new(clock.clone(), None);
    let schedule = Schedule::new(ScheduleOptions {
        loader: Arc::new(Twin),
        shelf: crate::shelf::tests::shelf(),
        clock,
        collector: collector.clone(),
        node: "n".to_owned(),
        wakes: Default::default(),
    });
    let plan = plugins.iter().map(|id| Planned {
        spec: SourceSpec {
            id: PluginId::new(id).unwrap(),
            file: crate::shelf::tests::file(id),
            settings: serde_json::Value::Null,
            grants: Vec::new(),
            limits: Default::default(),
            isolation: Default::default(),
        },
        interval: std::time::Duration::from_secs(1),
    });
    schedule.apply(plan.collect()).await;
    let health = Arc::new(Health {
        lines: crate::lines::Lines::default(),
        board: schedule.board().clone(),
        spool: None,
        spool_fallback: None,
        uplink: None,
        workers: None,
        trust: Arc::new(crate::trust::Trust::open(&crate::config::Trust::of_anybody())),
        stopping: AtomicBool::new(false),
        config: std::sync::Mutex::default(),
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while schedule.board().all().iter().any(|line| line.last.is_none()) {
        assert!(tokio::time::Instant::now() < deadline, "the plugins must collect");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    router(Api { collector, schedule, health, listen: ([127, 0, 0, 1], 1).into() })
}

async fn ask(router: &Router, request: Request<Body>) -> (u16, String, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

fn put(host: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::put(path).header("host", host).body(body.into()).unwrap()
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn pages() {
    let router = api(&["a"]).await;
    let (status, kind, body) = ask(&router, get_request("/metrics")).await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(body, "# TYPE m gauge\nm 4\n");
    let request =
        Request::get("/metrics").header("accept", "application/openmetrics-text").body(Body::empty());
    let (_, kind, body) = ask(&router, request.unwrap()).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(body, "# TYPE m gauge\nm 4\n# EOF\n");

    assert_eq!(ask(&router, get_request("/healthz")).await.0, 200);
    let (status, _, body) = ask(&router, get_request("/readyz")).await;
    let ready: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &ready["ready"], &ready["state"]), (200, &true.into(), &"healthy".into()));
    assert_eq!(ready["notices"][0], "plugins run unsigned: trust.allow_unsigned = true");
    let (_, _, body) = ask(&router, get_request("/api/v1/plugins")).await;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(answer["plugins"][0]["version"], "1.2.3");
    assert_eq!(answer["plugins"][0]["state"], "running");
    assert!(
        crate::client::plugin_table(&answer, 1_000)
            .contains("a       running  1.2.3    eb0bc650023c  unsigned   1s"),
        "{}",
        crate::client::plugin_table(&answer, 1_000)
    );
    assert_eq!(ask(&router, get_request("/nothing")).await.0, 404);
    assert_eq!(ask(&router, put("127.0.0.1", "/metrics", "")).await.0, 405);
}

#[tokio::test]
async fn scenario_calls() {
    let router = api(&["a"]).await;
    let path = "/api/v1/scenario";
    let local = "127.0.0.1:9460";
    let good = r#"{"scenario":"normal"}"#;
    for (request, status, part) in [
        (get_request(path), 200, good),
        (put(local, path, good), 200, good),
        (put("localhost", path, good), 200, good),
        (put("[::1]:9460", path, good), 200, good),
        (put(local, path, r#"{"scenario":"x"}"#), 400, r#""allowed":["scenario: one of normal"]"#),
        (put(local, path, "[]"), 400, "no JSON object"),
        (put(local, path, ""), 400, "no JSON object"),
        (put(local, path, vec![0xff, 0xfe]), 400, "no JSON object"),
        (put(local, path, vec![b' '; MAX_BODY + 1]), 413, "error"),
        (put("evil.example", path, good), 403, "Host"),
        (put("evil.example:9460", path, good), 403, "Host"),
        (put(local, "/api/v1/scenario?plugin=b", good), 404, "no plugin b"),
        (put(local, "/api/v1/scenario?plugn=b", good), 400, "error"),
    ] {
        let told = format!("{request:?}");
        let (got, kind, body) = ask(&router, request).await;
        assert_eq!(got, status, "{told}: {body}");
        assert!(body.contains(part), "{told}: {body}");
        assert_eq!(kind, "application/json", "{told}");
    }
    let (status, _, body) = ask(&api(&[]).await, get_request(path)).await;
    assert_eq!((status, body.as_str()), (404, r#"{"error":"no plugin of this node has controls"}"#));
}

#[tokio::test]
async fn stalled_clients_hold_only_their_own_places() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let server = tokio::spawn(serve(listener, api(&["a"]).await, stop.clone()));
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHos").await.unwrap();
        stalled.push(stream);
    }
    let mut garbage = tokio::net::TcpStream::connect(address).await.unwrap();
    garbage.write_all(&[0x16, 3, 1, 0, 200, 1, 0, 0]).await.unwrap();
    let answer = crate::client::get(address, "/api/v1/plugins").await.unwrap();
    assert_eq!(answer["plugins"][0]["id"], "a");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), garbage.read_to_end(&mut rest));
    closed.await.expect("what is no HTTP is closed").ok();
    stop.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(10), server).await.expect("it ends").unwrap();
}
