//! The filter, held against an engine that completes names and prefixes as Docker does.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::containers::tests::{Engine, container, id};
use crate::grants::Granted;

fn rules(engine: &Engine, grants: Value) -> Rules {
    let scopes: Vec<Scope> = grants
        .as_array()
        .unwrap()
        .iter()
        .map(|g| {
            let mut g = g.clone();
            g["sockets"] = json!([engine.path()]);
            serde_json::from_value(g).unwrap()
        })
        .collect();
    Scope::compile(&scopes.iter().collect::<Vec<_>>()).unwrap()
}

fn limits() -> ServiceLimits {
    ServiceLimits {
        engine_time: Duration::from_millis(500),
        control_time: Duration::from_millis(500),
        ..ServiceLimits::default()
    }
}

fn engine() -> Engine {
    Engine::start(vec![
        container(&id(1), "mine", json!({ "vllm": "true" }), "vllm/vllm-openai:v1"),
        container(&id(2), "other", json!({ "vllm": "false" }), "postgres:16"),
        // Its name is what another's id begins with, and one that is the whole of it.
        container(&id(3), "01010101", json!({ "vllm": "true" }), "x"),
        container(&id(0xab), "letters", json!({ "vllm": "true" }), "x"),
        container(&id(4), &id(2), json!({ "vllm": "true" }), "x"),
    ])
}

fn restart(id: &str) -> Request {
    Request::Restart { id: id.to_owned(), grace: 7 }
}

#[tokio::test]
async fn within_the_scope() {
    let engine = engine();
    let rules =
        rules(&engine, json!([{ "labels": ["vllm=true"], "verbs": ["restart", "stop", "start", "kill"] }]));
    for (request, posted) in [
        (restart(&id(1)), "restart?t=7"),
        (Request::Stop { id: id(1), grace: 0 }, "stop?t=0"),
        (Request::Start { id: id(1) }, "start"),
        (Request::Kill { id: id(1), signal: "SIGHUP".to_owned() }, "kill?signal=SIGHUP"),
    ] {
        assert_eq!(call(&rules, &limits(), request.clone()).await, Ok(Answer::Done), "{request:?}");
        let asked = engine.asked();
        assert_eq!(
            asked,
            [format!("/containers/{}/json", id(1)), format!("POST /containers/{}/{posted}", id(1))]
        );
    }
}

#[tokio::test]
async fn outside_of_it_nothing_is_posted() {
    let engine = engine();
    let rules = rules(&engine, json!([{ "labels": ["vllm=true"], "verbs": ["restart"] }]));
    for request in [
        restart(&id(2)),
        restart("mine"),
        restart("other"),
        restart(id(1).get(..12).unwrap()),
        restart(""),
        restart("../images/prune"),
        restart(&format!("{}/../{}", &id(1), &id(2))),
        restart(&format!("{}?t=0&x=", id(1))),
        restart(&id(0xab).to_uppercase()),
        restart(&id(9)),
    ] {
        let ended = call(&rules, &limits(), request.clone()).await;
        assert!(matches!(ended, Err(Error::NotFound(_))), "{request:?}: {ended:?}");
    }
    for request in [Request::Stop { id: id(1), grace: 1 }, Request::Start { id: id(1) }] {
        let ended = call(&rules, &limits(), request.clone()).await;
        assert!(
            matches!(&ended, Err(Error::Denied(why)) if why.contains("granted are restart")),
            "{ended:?}"
        );
    }
    let posted: Vec<String> = engine.asked().into_iter().filter(|a| a.starts_with("POST")).collect();
    assert!(posted.is_empty(), "{posted:?}");
}

#[tokio::test]
async fn each_filter_has_its_own_verbs() {
    let engine = engine();
    let rules = rules(
        &engine,
        json!([{ "labels": ["vllm=true"], "verbs": ["restart"] }, { "images": ["postgres:*"], "verbs": ["stop"] }]),
    );
    assert_eq!(call(&rules, &limits(), restart(&id(1))).await, Ok(Answer::Done));
    assert!(matches!(call(&rules, &limits(), restart(&id(2))).await, Err(Error::NotFound(_))));
    let stop = |n| Request::Stop { id: id(n), grace: 1 };
    assert_eq!(call(&rules, &limits(), stop(2)).await, Ok(Answer::Done));
    assert!(matches!(call(&rules, &limits(), stop(1)).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn what_is_not_valid() {
    let engine = engine();
    let rules = rules(&engine, json!([{ "labels": ["*"], "verbs": ["restart", "kill"] }]));
    for request in [
        Request::Restart { id: id(1), grace: MAX_GRACE_SECONDS + 1 },
        Request::Kill { id: id(1), signal: "9".to_owned() },
        Request::Kill { id: id(1), signal: "SIGKILL&x=1".to_owned() },
        Request::Kill { id: id(1), signal: String::new() },
    ] {
        let ended = call(&rules, &limits(), request.clone()).await;
        assert!(matches!(ended, Err(Error::Invalid(_))), "{request:?}: {ended:?}");
    }
    assert!(engine.asked().is_empty());
    for grant in [
        json!({ "labels": ["a"], "verbs": [] }),
        json!({ "labels": [], "verbs": ["stop"] }),
        json!({ "labels": ["a"], "verbs": ["stop"], "sockets": ["docker.sock"] }),
    ] {
        let scope: Scope = serde_json::from_value(grant.clone()).unwrap();
        assert!(Scope::compile(&[&scope]).is_err(), "{grant}");
    }
    assert!(serde_json::from_value::<Scope>(json!({ "labels": ["a"], "verbs": ["remove"] })).is_err());
    assert!(serde_json::from_value::<Scope>(json!({ "labels": ["a"] })).is_err());
}

#[tokio::test]
async fn an_engine_that_does_not_answer() {
    let mut slow = container(&id(1), "slow", json!({ "a": "" }), "x");
    slow["Slow"] = json!(true);
    let engine = Engine::start(vec![slow]);
    let rules = rules(&engine, json!([{ "labels": ["a"], "verbs": ["restart"] }]));
    let ended = call(&rules, &limits(), Request::Restart { id: id(1), grace: 0 }).await;
    assert!(matches!(ended, Err(Error::TimedOut(_))), "{ended:?}");
    let gone = Scope { sockets: vec!["/nowhere/x.sock".to_owned()], ..Scope::example() };
    let gone = Scope::compile(&[&gone]).unwrap();
    let ended = call(&gone, &limits(), restart(&id(1))).await;
    assert!(matches!(ended, Err(Error::NotFound(_) | Error::Absent(_))), "{ended:?}");
}
