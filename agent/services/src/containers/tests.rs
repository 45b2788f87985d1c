//! The filter, held against an engine that would give everything: a stand-in that answers as Docker does, completing
//! names and prefixes, and records what it is asked.

use super::*;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::grants::Granted;

/// A container of the engine: its id, its name, and what its inspection says.
pub(crate) fn container(id: &str, name: &str, labels: Value, image: &str) -> Value {
    json!({
        "Id": id, "Name": format!("/{name}"), "Args": ["--api-key", "s3cret"],
        "Config": { "Image": image, "Labels": labels, "Env": ["TOKEN=s3cret", "NVIDIA_VISIBLE_DEVICES=0"], "Tty": false },
    })
}

pub(crate) fn id(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

pub(crate) struct Engine {
    folder: tempfile::TempDir,
    asked: Arc<Mutex<Vec<String>>>,
    containers: Arc<Mutex<Vec<Value>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Engine {
    pub(crate) fn start(containers: Vec<Value>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let containers = Arc::new(Mutex::new(containers));
        let (seen, known) = (asked.clone(), containers.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, seen.clone(), known.clone()));
            }
        });
        Self { folder, asked, containers, task }
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().join("engine.sock").to_str().unwrap().to_owned()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(mut stream: UnixStream, seen: Arc<Mutex<Vec<String>>>, known: Arc<Mutex<Vec<Value>>>) {
    let mut bytes = vec![0; 8192];
    let n = stream.read(&mut bytes).await.unwrap_or(0);
    let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
    let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let method = text.split(' ').next().unwrap_or_default();
    seen.lock().unwrap().push(if method == "GET" { target.clone() } else { format!("{method} {target}") });
    let (path, _) = target.split_once('?').unwrap_or((target.as_str(), ""));
    let all = known.lock().unwrap().clone();
    let body = match path.strip_prefix("/containers/").and_then(|rest| rest.rsplit_once('/')) {
        None => {
            let list: Vec<Value> = all
                .iter()
                .map(|c| {
                    json!({ "Id": c["Id"], "Names": [c["Name"]], "Image": c["ListImage"].as_str()
                        .or(c["Config"]["Image"].as_str()), "Labels": c["Config"]["Labels"],
                        "Command": "serve --api-key s3cret", "State": "running" })
                })
                .collect();
            Some(json!(list).to_string().into_bytes())
        }
        Some((word, what)) => {
            // As Docker: the whole id, else the name, else the beginning of an id.
            let found = all
                .iter()
                .find(|c| c["Id"] == word)
                .or_else(|| all.iter().find(|c| c["Name"] == format!("/{word}")))
                .or_else(|| all.iter().find(|c| c["Id"].as_str().unwrap().starts_with(word)));
            found.map(|c| match what {
                "stats" => json!({ "id": c["Id"], "name": c["Name"], "memory_stats": { "usage": 1 } })
                    .to_string()
                    .into_bytes(),
                "logs" => {
                    let line = b"2026-11-21T07:09:25.000000001Z hello\n";
                    [&[1, 0, 0, 0, 0, 0, 0, line.len() as u8][..], line].concat()
                }
                _ => c.to_string().into_bytes(),
            })
        }
    };
    if all.iter().any(|c| c["Slow"] == json!(true) && target.contains(c["Id"].as_str().unwrap())) {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let (status, body) = match body {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", br#"{"message":"No such container"}"#.to_vec()),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
}

fn permit(scope: Value) -> Arc<Permit> {
    let scope: Scope = serde_json::from_value(scope).unwrap();
    Scope::compile(&[&scope]).unwrap()
}

fn limits() -> ServiceLimits {
    ServiceLimits { engine_time: Duration::from_millis(500), ..ServiceLimits::default() }
}

async fn listed(permit: &Arc<Permit>, all: bool) -> (Vec<String>, Vec<SocketState>, String) {
    let Ok(Answer::List { containers, sockets }) = call(permit, &limits(), Request::List { all }).await
    else {
        panic!()
    };
    let list: Vec<Value> = serde_json::from_str(&containers).unwrap();
    let ids = list.iter().map(|c| c["Id"].as_str().unwrap().to_owned()).collect();
    (ids, sockets, containers)
}

async fn objects(permit: &Arc<Permit>, request: Request) -> Vec<Result<String, Error>> {
    match call(permit, &limits(), request).await.unwrap() {
        Answer::Objects(list) => list,
        other => panic!("{other:?}"),
    }
}

fn three() -> Vec<Value> {
    vec![
        container(&id(1), "mine", json!({ "vllm": "true" }), "vllm/vllm-openai:v1"),
        container(&id(2), "other", json!({ "vllm": "false", "x": "vllm=true" }), "postgres:16"),
        container(&id(3), &id(9), json!({ "vllm=true": "" }), "postgres:16"),
    ]
}

#[tokio::test]
async fn only_granted_containers_are_there() {
    let engine = Engine::start(three());
    let permit = permit(json!({ "sockets": [engine.path()], "labels": ["vllm=true"] }));
    let (ids, sockets, text) = listed(&permit, true).await;
    assert_eq!(ids, [id(1)]);
    assert_eq!(sockets, [SocketState { path: engine.path(), error: None }]);
    assert!(!text.contains("s3cret") && text.contains(&engine.path()), "{text}");
    assert_eq!(
        engine.asked(),
        ["/containers/json?all=1&filters=%7B%22label%22%3A%5B%22vllm%3Dtrue%22%5D%7D"]
    );
    // By its id, and by nothing that an engine would take for it.
    let mine = objects(&permit, Request::Inspect { ids: vec![id(1)] }).await.remove(0).unwrap();
    assert!(!mine.contains("s3cret") && mine.contains("NVIDIA_VISIBLE_DEVICES=0"), "{mine}");
    engine.asked();
    let tricks = [
        "mine".to_owned(),
        id(1).chars().take(12).collect(),
        id(0xab).to_uppercase(),
        format!("{}/json?x=", id(1)),
        format!("../{}", id(1).split_off(3)),
        format!("{}%2f", id(1).split_off(3)),
        String::new(),
        "*".to_owned(),
    ];
    for asked in [Request::Inspect { ids: tricks.to_vec() }, Request::Stats { ids: tricks.to_vec() }] {
        for (trick, answer) in tricks.iter().zip(objects(&permit, asked).await) {
            assert!(matches!(answer, Err(Error::NotFound(_))), "{trick}: {answer:?}");
        }
    }
    for trick in tricks {
        let logs = call(&permit, &limits(), Request::Logs { id: trick, since: None, tail: Some(1) }).await;
        assert!(matches!(logs, Err(Error::NotFound(_))), "{logs:?}");
    }
    assert_eq!(engine.asked(), Vec::<String>::new(), "the engine was not even asked");
}

#[tokio::test]
async fn a_strangers_id_tells_nothing() {
    let engine = Engine::start(three());
    let permit = permit(json!({ "sockets": [engine.path()], "labels": ["vllm=true"] }));
    // There and not granted, there under a name that looks like an id, and not there at all: one answer.
    let strangers = vec![id(2), id(9), id(7)];
    for request in [Request::Inspect { ids: strangers.clone() }, Request::Stats { ids: strangers.clone() }] {
        for (id, answer) in strangers.iter().zip(objects(&permit, request).await) {
            assert_eq!(answer, Err(Error::NotFound(id.clone())));
        }
    }
    for id in strangers {
        let request = Request::Logs { id: id.clone(), since: None, tail: Some(5) };
        assert_eq!(call(&permit, &limits(), request).await, Err(Error::NotFound(id)));
    }
    let stats_or_logs = engine.asked().into_iter().filter(|t| t.contains("/stats") || t.contains("/logs"));
    assert_eq!(stats_or_logs.count(), 0, "not asked for what is not granted");
}

#[tokio::test]
async fn an_id_given_away_anew_is_checked_anew() {
    let engine = Engine::start(three());
    let permit = permit(json!({ "sockets": [engine.path()], "labels": ["vllm=true"] }));
    listed(&permit, true).await;
    assert!(objects(&permit, Request::Stats { ids: vec![id(1)] }).await[0].is_ok());
    // It is gone, and a stranger took its id for a name.
    *engine.containers.lock().unwrap() = vec![container(&id(4), &id(1), json!({}), "postgres:16")];
    assert_eq!(
        objects(&permit, Request::Stats { ids: vec![id(1)] }).await,
        [Err(Error::NotFound(id(1)))],
        "another's statistics"
    );
    assert_eq!(objects(&permit, Request::Inspect { ids: vec![id(1)] }).await, [Err(Error::NotFound(id(1)))]);
    listed(&permit, true).await;
    let request = Request::Logs { id: id(1), since: None, tail: Some(5) };
    assert_eq!(call(&permit, &limits(), request).await, Err(Error::NotFound(id(1))));
}

#[tokio::test]
async fn by_image_also_where_the_tag_went_on() {
    let mut moved = container(&id(5), "old", json!(null), "docker.io/vllm/vllm-openai:v0.11.0");
    moved["ListImage"] = json!("sha256:0fec7ec5f3e6bc168e54899935fb0557da908a4832a1dbc88e2debcf2f889416");
    let mut stranger = container(&id(6), "db", json!({}), "postgres:16");
    stranger["ListImage"] = json!("5d6db84b79ec");
    let engine = Engine::start(vec![moved, stranger]);
    let permit = permit(json!({ "sockets": [engine.path()], "images": ["vllm/vllm-openai:*"] }));
    assert_eq!(listed(&permit, false).await.0, [id(5)]);
    engine.asked();
    listed(&permit, false).await;
    assert_eq!(engine.asked(), ["/containers/json?all=0", &format!("/containers/{}/json", id(6))]);
}

#[tokio::test]
async fn logs_with_a_beginning_and_a_bound() {
    let engine = Engine::start(three());
    let permit = permit(json!({ "sockets": [engine.path()], "labels": ["vllm=true"] }));
    let ask = |since, tail| Request::Logs { id: id(1), since, tail };
    let Ok(Answer::Logs(page)) =
        call(&permit, &limits(), ask(Some(1_795_244_965_000_000_001), Some(u32::MAX))).await
    else {
        panic!()
    };
    assert_eq!(page.lines[0].text, "hello");
    let asked = engine.asked();
    assert!(asked[1].contains("&since=1795244965.000000001&tail=5000"), "{asked:?}");
    // What an engine gives although it is older is left out.
    let later = call(&permit, &limits(), ask(Some(1_795_244_965_000_000_002), None)).await;
    assert_eq!(later, Ok(Answer::Logs(LogPage::default())));
    let few = ServiceLimits { log_bytes: 20, ..limits() };
    let cut = call(&permit, &few, ask(None, None)).await;
    assert_eq!(cut, Ok(Answer::Logs(LogPage { lines: Vec::new(), more: true })));
}

#[tokio::test]
async fn one_engine_and_one_container_are_not_the_others() {
    let mut containers = three();
    containers[0]["Slow"] = json!(true);
    containers.push(container(&id(8), "quick", json!({ "vllm": "true" }), "x"));
    let engine = Engine::start(containers);
    let folder = tempfile::tempdir().unwrap();
    let (absent, dead) = (folder.path().join("absent.sock"), folder.path().join("dead.sock"));
    drop(UnixListener::bind(&dead).unwrap());
    let text = |p: &PathBuf| p.to_str().unwrap().to_owned();
    let permit =
        permit(json!({ "sockets": [text(&absent), text(&dead), engine.path()], "labels": ["vllm=true"] }));
    let (ids, sockets, _) = listed(&permit, true).await;
    assert_eq!(ids, [id(1), id(8)]);
    let errors: Vec<Option<&Error>> = sockets.iter().map(|s| s.error.as_ref()).collect();
    assert!(matches!(errors[..], [Some(Error::Absent(_)), Some(Error::Unreachable(_)), None]), "{errors:?}");
    let start = std::time::Instant::now();
    let answers = objects(&permit, Request::Inspect { ids: vec![id(1), id(8)] }).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(answers[0], Err(Error::TimedOut(_))) && answers[1].is_ok(), "{answers:?}");
    engine.task.abort();
}

#[tokio::test]
async fn many_at_once_are_bounded() {
    let engine = Engine::start(three());
    let permit = permit(json!({ "sockets": [engine.path()], "labels": ["vllm=true"] }));
    let few = ServiceLimits { engine_ids: 2, ..limits() };
    let request = Request::Inspect { ids: vec![id(1); 4] };
    let Ok(Answer::Objects(answers)) = call(&permit, &few, request).await else { panic!() };
    assert!(answers[0].is_ok() && answers[1].is_ok());
    assert!(matches!(answers[2], Err(Error::TooLarge(_))) && matches!(answers[3], Err(Error::TooLarge(_))));
}
