//! The API: roles, errors, tokens, data.

use picket_aggregator::http::router;
use picket_aggregator::identity::Role;
use serde_json::json;

use crate::fixture::{Aggregator, call};

#[tokio::test]
async fn every_route_asks_for_its_role() {
    let aggregator = Aggregator::start().await;
    let (_, routes) = router(std::sync::Arc::clone(&aggregator.api));
    assert!(routes.len() >= 17, "{routes:?}");
    for route in &routes {
        let path = route.path.replace("{node}", "nobody").replace("{id}", "nothing");
        let method = route.method.as_str();
        for bad in [None, Some("x"), Some("picket-api-v1.0.0"), Some("picket-api-v1.a.b.c"), Some("")] {
            let answer = aggregator.call(method, &path, bad, None).await;
            // Many failures from one address are slowed down.
            assert!([401, 429].contains(&answer.status), "{method} {path} with {bad:?}: {answer:?}");
            assert!(answer.json()["error"].is_string() && answer.json()["advice"].is_string());
        }
        for role in Role::ALL {
            let token = aggregator.token(role);
            let answer = aggregator.call(method, &path, Some(&token), None).await;
            if role < route.role {
                assert_eq!(answer.status, 403, "{method} {path} as {role}: {answer:?}");
                assert!(answer.json()["error"].as_str().unwrap().contains(role.as_str()));
            } else {
                assert!(
                    ![401, 403, 405, 429, 500].contains(&answer.status),
                    "{method} {path} as {role}: {answer:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn not_even_the_paths_are_told_without_a_token() {
    let aggregator = Aggregator::start().await;
    assert_eq!(aggregator.call("GET", "/nothing", None, None).await.status, 401);
    let token = aggregator.token(Role::Viewer);
    let answer = aggregator.call("GET", "/nothing", Some(&token), None).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["advice"].is_string());
    assert_eq!(aggregator.call("PATCH", "/metrics", Some(&token), None).await.status, 405);
    let answer = aggregator.call("GET", "/healthz", None, None).await;
    assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"picket\"");
}

#[tokio::test]
async fn api_tokens_are_made_listed_and_ended() {
    let aggregator = Aggregator::start().await;
    let admin = aggregator.admin.clone();
    let make = async |body| aggregator.call("POST", "/api/v1/tokens", Some(&admin), Some(body)).await;
    for (body, status) in [
        (json!({"role": "viewer", "name": "grafana"}), 201),
        (json!({"role": "viewer", "name": "grafana"}), 409),
        (json!({"role": "king", "name": "x"}), 400),
        (json!({"role": "viewer"}), 400),
        (json!({"role": "viewer", "name": ""}), 400),
        (json!({"node": "a", "role": "viewer", "name": "y"}), 400),
        (json!({"node": "a b"}), 400),
        (json!({"node": "a", "ttl": "soon"}), 400),
        (json!({"node": "a", "ttl": "0s"}), 400),
        (json!({"node": "a", "ttl": "90d"}), 400),
        (json!({"node": "a", "unknown": 1}), 422),
        (json!({}), 400),
        (json!([]), 422),
    ] {
        let answer = make(body.clone()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let made = make(json!({"role": "operator", "name": "ci", "ttl": "1h"})).await.json();
    let token = made["token"].as_str().unwrap();
    assert_eq!(aggregator.call("GET", "/healthz", Some(token), None).await.status, 200);
    let list = aggregator.call("GET", "/api/v1/tokens", Some(&admin), None).await;
    assert!(!list.body.contains(token.rsplit('.').next().unwrap()), "the list tells a secret");
    let names: Vec<_> = list.json()["api"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert!(names.contains(&json!("ci")) && names.contains(&json!("admin")), "{names:?}");
    assert_eq!(aggregator.call("DELETE", "/api/v1/tokens/ci", Some(&admin), None).await.status, 200);
    assert_eq!(aggregator.call("DELETE", "/api/v1/tokens/ci", Some(&admin), None).await.status, 404);
    assert_eq!(aggregator.call("GET", "/healthz", Some(token), None).await.status, 401);
}

#[tokio::test]
async fn a_token_made_offline_works_at_once_and_guessers_are_slowed_alone() {
    let aggregator = Aggregator::start().await;
    let clock = picket_aggregator::clock::Clock::system();
    let made =
        picket_aggregator::app::create_token(&aggregator.config, &clock, "offline", Role::Viewer, None)
            .unwrap();
    let mut statuses = std::collections::BTreeSet::new();
    for _ in 0..30 {
        statuses.insert(aggregator.call("GET", "/healthz", Some("guess"), None).await.status);
    }
    assert_eq!(statuses, [401, 429].into());
    assert_eq!(aggregator.call("GET", "/healthz", Some(&made.text), None).await.status, 200);
}

#[tokio::test]
async fn queries_are_checked() {
    let aggregator = Aggregator::start().await;
    let token = aggregator.token(Role::Viewer);
    for (path, status) in [
        ("/metrics", 200),
        ("/metrics/self", 200),
        ("/readyz", 200),
        ("/api/v1/status", 200),
        ("/api/v1/nodes?limit=1", 200),
        ("/api/v1/nodes?limit=0", 400),
        ("/api/v1/nodes/a%20b", 400),
        ("/api/v1/nodes/nobody", 404),
        ("/api/v1/nodes/nobody/scenario", 404),
        ("/api/v1/grants", 200),
        ("/api/v1/grants?node=nobody&plugin=node", 200),
        ("/api/v1/grants?node=a%20b", 400),
        ("/api/v1/grants?who=me", 400),
        ("/api/v1/rollouts", 200),
        ("/api/v1/rollouts?plugin=node", 200),
        ("/api/v1/rollouts?phase=running", 400),
        ("/api/v1/rollouts/nothing", 404),
        ("/api/v1/series", 200),
        ("/api/v1/series?match=up&match=down", 200),
        ("/api/v1/series?match=%7B", 400),
        ("/api/v1/series?limit=1000000", 400),
        ("/api/v1/series?mtach=up", 400),
        ("/api/v1/events?severity=warning&limit=5", 200),
        ("/api/v1/events?severity=dire", 400),
        ("/api/v1/events?since_ms=yesterday", 400),
        ("/api/v1/export?match=up&node=a", 200),
        ("/api/v1/export?node=a&node=b", 400),
    ] {
        let answer = aggregator.call("GET", path, Some(&token), None).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(status == 200 || answer.json()["error"].is_string(), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn plain_http_is_possible_and_metrics_are_exposition() {
    let aggregator = Aggregator::with(|config| config.http.tls = false).await;
    let identity = aggregator_enrol_over_plain(&aggregator).await;
    let stream = aggregator.stream(Some(&identity)).await.unwrap();
    let tcp = tokio::net::TcpStream::connect(aggregator.http).await.unwrap();
    let answer = call(tcp, "GET", "/metrics", Some(&aggregator.admin), None).await;
    assert_eq!(answer.status, 200);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(answer.body.contains("picket_node_up{"), "{}", answer.body);
    assert!(answer.body.contains("instance=\"a\""), "{}", answer.body);
    let tcp = tokio::net::TcpStream::connect(aggregator.http).await.unwrap();
    let own = call(tcp, "GET", "/metrics/self", Some(&aggregator.admin), None).await;
    for name in ["picket_certificate_expiry_timestamp_seconds", "picket_aggregator_connections_total"] {
        assert!(own.body.contains(name), "{name} is missing in {}", own.body);
    }
    drop(stream);
}

async fn aggregator_enrol_over_plain(aggregator: &Aggregator) -> crate::fixture::Identity {
    let node = picket_proto::model::NodePattern::new("a").unwrap();
    let life = std::time::Duration::from_secs(60);
    let token = aggregator.api.registry.create_enrolment(&node, 1, life, "test").unwrap();
    aggregator.enrol_with(&token.secret, "a").await.unwrap()
}

/// A recorded start of a server, line by line.
#[tokio::test]
async fn a_containers_last_lines_and_whether_it_loads() {
    const START: &str = include_str!("../../../plugins/vllm/tests/fixtures/startup.log");
    let aggregator = Aggregator::start().await;
    let (viewer, operator) = (aggregator.token(Role::Viewer), aggregator.token(Role::Operator));
    let now_ns = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let ask = async |query: &str| {
        let path = format!("/api/v1/containers/vllm-a/logs{query}");
        aggregator.call("GET", &path, Some(&viewer), None).await
    };
    let nothing = ask("").await;
    assert_eq!((nothing.status, nothing.json()), (200, json!({ "logs": [], "loading": false })));
    let lines: Vec<&str> = START.lines().filter(|line| !line.trim().is_empty()).collect();
    let begun = lines.iter().position(|line| line.contains("Starting to load model")).unwrap();
    let ready = lines.iter().position(|line| line.contains("Application startup complete")).unwrap();
    for (i, line) in lines.iter().enumerate() {
        let time = (now_ns - 3_600_000_000_000 + i as u128 * 1_000_000_000).to_string();
        let stream =
            json!({ "stream": { "container": "vllm-a", "stream": "stderr" }, "values": [[time, line]] });
        let body = json!({ "streams": [stream] });
        let pushed = aggregator.call("POST", "/loki/api/v1/push", Some(&operator), Some(body)).await;
        assert_eq!(pushed.status, 204);
        let told = ask("?lines=2").await.json();
        assert_eq!(told["loading"], (begun..ready).contains(&i), "after {line}");
        let last: Vec<&str> = lines[..=i].iter().rev().take(2).rev().copied().collect();
        assert_eq!(told["logs"], json!(last));
    }
    let all = ask("?lines=500").await.json();
    assert_eq!(all["logs"].as_array().unwrap().len(), lines.len());
    let elsewhere = ask("?node=gpu-9").await.json();
    assert_eq!(elsewhere, json!({ "logs": [], "loading": false }));
    for (path, status) in [
        ("/api/v1/containers/vllm-a/logs?lines=501", 400),
        ("/api/v1/containers/vllm-a/logs?lines=0", 400),
        ("/api/v1/containers/vllm-a/logs?lines=many", 400),
        ("/api/v1/containers/vllm-a/logs?tail=5", 400),
        ("/api/v1/containers/x%22%7D/logs", 400),
    ] {
        let answer = aggregator.call("GET", path, Some(&viewer), None).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.json());
    }
    assert_eq!(aggregator.call("GET", "/api/v1/containers/a/logs", None, None).await.status, 401);
}
