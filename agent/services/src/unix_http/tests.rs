use super::*;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use crate::grants::Granted;

struct Server {
    folder: tempfile::TempDir,
    asked: tokio::sync::mpsc::Receiver<String>,
}

impl Server {
    /// Answers each connection with `answer`; none: never.
    fn start(answer: Option<&'static [u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s.sock")).unwrap();
        let (sender, asked) = tokio::sync::mpsc::channel(8);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut bytes = vec![0; 4096];
                let n = stream.read(&mut bytes).await.unwrap_or(0);
                let _ = sender.send(String::from_utf8_lossy(&bytes[..n]).into_owned()).await;
                match answer {
                    Some(answer) => drop(stream.write_all(answer).await),
                    None => open.push(stream),
                }
            }
        });
        Self { folder, asked }
    }

    fn path(&self) -> String {
        self.folder.path().join("s.sock").to_str().unwrap().to_owned()
    }
}

async fn send(rules: &Rules, limits: &ServiceLimits, request: Request) -> Result<http::Answer, http::Error> {
    let plugin = PluginId::new("p").unwrap();
    super::send(&plugin, rules, &Parts::default(), limits, request).await
}

fn rules(value: serde_json::Value) -> Rules {
    let scope: Scope = serde_json::from_value(serde_json::json!({ "sockets": value })).unwrap();
    Scope::compile(&[&scope]).unwrap()
}

fn limits() -> ServiceLimits {
    ServiceLimits { http_time: Duration::from_millis(300), http_body_bytes: 100, ..ServiceLimits::default() }
}

fn get(socket: &str, url: &str) -> Request {
    let request = http::Request {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
        secret: None,
    };
    Request { socket: socket.to_owned(), request }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

#[tokio::test]
async fn a_request_with_a_secret() {
    let mut server = Server::start(Some(OK));
    let token = server.folder.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let rules = rules(serde_json::json!([{
        "path": server.path(), "path_prefix": "/slurm", "methods": ["GET"],
        "secret": { "name": "jwt", "file": token, "header": "X-SLURM-USER-TOKEN" },
    }]));
    let mut request = get(&server.path(), "http://slurm/slurm/v0.0.40/nodes?a=b");
    request.request.secret = Some("jwt".to_owned());
    let answer = send(&rules, &limits(), request).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hi".as_slice()));
    let asked = server.asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /slurm/v0.0.40/nodes?a=b HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-slurm-user-token: t0ken\r\n") && asked.contains("host: slurm\r\n"), "{asked}");
}

#[tokio::test]
async fn what_no_rule_allows_is_not_sent() {
    let mut server = Server::start(Some(OK));
    let path = server.path();
    let rules = rules(serde_json::json!([{ "path": path, "path_prefix": "/a" }]));
    let folder = server.folder.path().to_str().unwrap();
    let post = || {
        let mut r = get(&path, "http://x/a");
        r.request.method = "POST".to_owned();
        r
    };
    let secret = || {
        let mut r = get(&path, "http://x/a");
        r.request.secret = Some("jwt".to_owned());
        r
    };
    for request in [
        get(&path, "http://x/"),
        get(&path, "http://x/ab"),
        get(&path, "http://x/a/../b"),
        get(&path, "http://x/a/%2e%2e/b"),
        get("/run/docker.sock", "http://x/a"),
        // The same file by other words is not what was granted.
        get(&format!("{folder}/./s.sock"), "http://x/a"),
        get(&format!("{folder}//s.sock"), "http://x/a"),
        get("", "http://x/a"),
        post(),
        secret(),
    ] {
        let answer = send(&rules, &limits(), request.clone()).await;
        assert!(matches!(answer, Err(http::Error::Denied(_))), "{request:?}: {answer:?}");
    }
    let smuggled = Request {
        request: http::Request {
            headers: vec![("transfer-encoding".to_owned(), "chunked".to_owned())],
            ..get(&path, "http://x/a").request
        },
        socket: path.clone(),
    };
    assert!(matches!(send(&rules, &limits(), smuggled).await, Err(http::Error::Denied(_))));
    for url in ["https://x/a", "/a", "", "http://u:p@x/a"] {
        let answer = send(&rules, &limits(), get(&path, url)).await;
        assert!(matches!(answer, Err(http::Error::Invalid(_))), "{url}: {answer:?}");
    }
    assert!(server.asked.try_recv().is_err(), "a denied request reached the server");
    send(&rules, &limits(), get(&path, "http://x/a/b")).await.unwrap();
}

#[tokio::test]
async fn bad_servers() {
    let silent = Server::start(None);
    let rules_of = |s: &Server| rules(serde_json::json!([{ "path": s.path() }]));
    let answer = send(&rules_of(&silent), &limits(), get(&silent.path(), "http://x/")).await;
    assert!(matches!(answer, Err(http::Error::TimedOut(_))), "{answer:?}");
    let long = Server::start(Some(
        b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n\
        0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
        0123456789",
    ));
    let answer = send(&rules_of(&long), &limits(), get(&long.path(), "http://x/")).await;
    assert!(matches!(answer, Err(http::Error::TooLarge(_))), "{answer:?}");
    let gone = rules(serde_json::json!([{ "path": "/nowhere/s.sock" }]));
    let answer = send(&gone, &limits(), get("/nowhere/s.sock", "http://x/")).await;
    assert!(matches!(answer, Err(http::Error::Unreachable(_))), "{answer:?}");
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let no_socket = rules(serde_json::json!([{ "path": path }]));
    let answer = send(&no_socket, &limits(), get(path, "http://x/")).await;
    assert!(matches!(answer, Err(http::Error::Denied(_))), "{answer:?}");
}

/// With a body of 200 bytes.
const LONG: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
    abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij";

/// An answer longer than a request may bring comes in parts over a socket too.
#[tokio::test]
async fn a_long_answer_comes_in_parts() {
    let server = Server::start(Some(LONG));
    let (plugin, parts, limits) = (PluginId::new("p").unwrap(), Parts::default(), limits());
    let rules = rules(serde_json::json!([{ "path": server.path() }]));
    let ask = |from: usize, tag: Option<&str>| {
        let mut request = get(&server.path(), "http://x/dump");
        request.request.headers.push(("range".to_owned(), format!("bytes={from}-{}", from + 69)));
        request.request.headers.extend(tag.map(|tag| ("if-range".to_owned(), tag.to_owned())));
        request
    };
    let mut body = Vec::new();
    let mut tag: Option<String> = None;
    let mut statuses = Vec::new();
    while statuses.len() < 3 {
        let request = ask(body.len(), tag.as_deref());
        let answer = super::send(&plugin, &rules, &parts, &limits, request).await.unwrap();
        tag = answer.headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.clone());
        statuses.push(answer.status);
        body.extend(answer.body);
    }
    assert_eq!(statuses, [206, 206, 206]);
    assert_eq!(body, LONG[LONG.len() - 200..]);
}
