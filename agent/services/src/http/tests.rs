use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn rules(value: serde_json::Value) -> RuleSet {
    RuleSet::new(serde_json::from_value(value).unwrap()).unwrap()
}

fn client(limits: ServiceLimits) -> Arc<Client> {
    Arc::new(Client::new(None, &limits).unwrap())
}

fn limits() -> ServiceLimits {
    ServiceLimits { http_time: Duration::from_millis(300), http_body_bytes: 1000, ..ServiceLimits::default() }
}

fn get(url: String) -> Request {
    Request {
        method: "GET".to_owned(),
        url,
        headers: Vec::new(),
        body: Vec::new(),
        timeout: None,
        secret: None,
    }
}

/// Answers each connection with `answer` and hands back what was asked.
async fn server(answer: &'static [u8]) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                let n = stream.read(&mut asked).await.unwrap_or(0);
                let _ = sender.send(String::from_utf8_lossy(&asked[..n]).into_owned()).await;
                let _ = stream.write_all(answer).await;
                if answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    (port, receiver)
}

fn plugin() -> PluginId {
    PluginId::new("p").unwrap()
}

async fn send(client: &Arc<Client>, rules: &RuleSet, request: Request) -> Result<Answer, Error> {
    client.send_many(&plugin(), rules, vec![request]).await.remove(0)
}

#[tokio::test]
async fn a_request_and_its_secret() {
    let (port, mut asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-y: z\r\n\r\nhello").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let rules = rules(serde_json::json!([{
        "host": "127.0.0.1", "port": port,
        "secret": { "name": "api", "file": file.path(), "prefix": "Bearer " },
    }]));
    let client = client(limits());
    let request = Request { secret: Some("api".to_owned()), ..get(format!("http://127.0.0.1:{port}/a?b=c")) };
    let answer = send(&client, &rules, request.clone()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    assert!(answer.headers.contains(&("x-y".to_owned(), "z".to_owned())));
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer s3cret\r\n"), "{asked}");
    assert!(asked.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{asked}");
    let smuggled = |name: &str, value: &str| Request {
        headers: vec![(name.to_owned(), value.to_owned())],
        ..request.clone()
    };
    for (name, value) in [
        ("Authorization", "x"),
        ("host", "x"),
        ("Transfer-Encoding", "chunked"),
        ("content-length", "0"),
        ("a b", "x"),
        ("x", "a\r\nb: c"),
        ("x\r\nb", "c"),
    ] {
        let answer = send(&client, &rules, smuggled(name, value)).await;
        assert!(matches!(answer, Err(Error::Denied(_) | Error::Invalid(_))), "{name:?}: {answer:?}");
    }
}

#[tokio::test]
async fn what_no_rule_allows_is_not_sent() {
    let (port, mut asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let client = client(limits());
    let public = rules(serde_json::json!([{ "host": "*", "port": port }]));
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://169.254.169.254:{port}/latest/meta-data"),
        format!("http://127.0.0.1:{}/", port.wrapping_add(1)),
        format!("ftp://127.0.0.1:{port}/"),
    ] {
        let answer = send(&client, &public, get(url.clone())).await;
        assert!(matches!(answer, Err(Error::Denied(_))), "{url}: {answer:?}");
    }
    for url in ["", "/", "http://", "http://u:p@127.0.0.1/", "http://127.0.0.1:99999/", "::::", "http://a b/"]
    {
        let answer = send(&client, &public, get(url.to_owned())).await;
        assert!(matches!(answer, Err(Error::Invalid(_) | Error::Denied(_))), "{url:?}: {answer:?}");
    }
    let post = Request { method: "POST".to_owned(), ..get(format!("http://127.0.0.1:{port}/")) };
    assert!(matches!(send(&client, &public, post).await, Err(Error::Denied(_))));
    // Private networks by a word of the operator's, a cloud's metadata not even then.
    let private = rules(serde_json::json!([{ "host": "*", "port": port, "allow_private": true }]));
    assert_eq!(send(&client, &private, get(format!("http://127.0.0.1:{port}/"))).await.unwrap().status, 200);
    let metadata = send(&client, &private, get(format!("http://169.254.169.254:{port}/"))).await;
    assert!(matches!(metadata, Err(Error::Denied(_))));
    asked.recv().await.unwrap();
    assert!(asked.try_recv().is_err(), "a denied request reached the server");
}

#[tokio::test]
async fn bad_answers() {
    let client = client(limits());
    for (answer, check) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"[..], "too large or cut"),
        (b"\x16\x03\x01 garbage garbage garbage\r\n\r\n", "malformed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhi", "cut"),
    ] {
        let (port, _asked) = server(answer).await;
        let rules = rules(serde_json::json!([{ "host": "127.0.0.1", "port": port }]));
        let answer = send(&client, &rules, get(format!("http://127.0.0.1:{port}/"))).await;
        assert!(answer.is_err(), "{check}: {answer:?}");
    }
    let long: &'static [u8] = Box::leak(
        [b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n".to_vec(), vec![b'x'; 2000]]
            .concat()
            .into_boxed_slice(),
    );
    let (port, _asked) = server(long).await;
    let rules = rules(serde_json::json!([{ "host": "127.0.0.1", "port": port }]));
    let answer = send(&client, &rules, get(format!("http://127.0.0.1:{port}/"))).await;
    assert!(matches!(answer, Err(Error::TooLarge(_))), "{answer:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let (port, _asked) =
        server(b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n").await;
    let rules = rules(serde_json::json!([{ "host": "127.0.0.1", "port": port }]));
    let answer = send(&client(limits()), &rules, get(format!("http://127.0.0.1:{port}/"))).await.unwrap();
    assert_eq!(answer.status, 302);
}

#[tokio::test]
async fn a_silent_server_delays_only_its_own_answer() {
    let (silent, _a) = server(b"").await;
    let (quick, _b) = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let rules = rules(serde_json::json!([
        { "host": "127.0.0.1", "port": silent }, { "host": "127.0.0.1", "port": quick },
    ]));
    let start = std::time::Instant::now();
    let urls = [silent, quick, silent, 1].map(|p| get(format!("http://127.0.0.1:{p}/")));
    let answers = client(limits()).send_many(&plugin(), &rules, urls.to_vec()).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(matches!(answers[0], Err(Error::TimedOut(_))), "{answers:?}");
    assert_eq!(answers[1].as_ref().unwrap().status, 204);
    assert!(matches!(answers[2], Err(Error::TimedOut(_))));
    assert!(matches!(answers[3], Err(Error::Denied(_))));
}

#[tokio::test]
async fn too_many_at_once() {
    let few = ServiceLimits { http_requests: 1, ..limits() };
    let (port, _asked) = server(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let rules = rules(serde_json::json!([{ "host": "127.0.0.1", "port": port }]));
    let request = get(format!("http://127.0.0.1:{port}/"));
    let answers = client(few).send_many(&plugin(), &rules, vec![request.clone(), request]).await;
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(Error::TooLarge(_))));
}

/// What an answer in parts says, and the request for the next one.
fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
}

fn part(url: &str, from: usize, most: usize, tag: &str) -> Request {
    let mut request = get(url.to_owned());
    request.headers.push(("Range".to_owned(), format!("bytes={from}-{}", from + most - 1)));
    if !tag.is_empty() {
        request.headers.push(("If-Range".to_owned(), tag.to_owned()));
    }
    request
}

/// A server that sends `bytes` of a body as fast as they are taken, and counts them.
async fn stream_of(bytes: usize, chunked: bool) -> (u16, Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sent = counted.clone();
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                let _ = stream.read(&mut asked).await;
                let length = if chunked {
                    "transfer-encoding: chunked".to_owned()
                } else {
                    format!("content-length: {bytes}")
                };
                let head = format!("HTTP/1.1 200 OK\r\netag: \"own\"\r\n{length}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                let mut at = 0;
                while at < bytes {
                    let piece: Vec<u8> = (at..(at + 8192).min(bytes)).map(|n| (n % 251) as u8).collect();
                    if chunked {
                        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    }
                    stream.write_all(&piece).await?;
                    if chunked {
                        stream.write_all(b"\r\n").await?;
                    }
                    at += piece.len();
                    sent.store(at, std::sync::atomic::Ordering::Relaxed);
                }
                if chunked { stream.write_all(b"0\r\n\r\n").await } else { Ok(()) }
            });
        }
    });
    (port, sent)
}

#[tokio::test]
async fn a_long_answer_comes_in_parts_that_bound_the_memory() {
    const LONG: usize = 64 << 20;
    for chunked in [false, true] {
        let (port, sent) = stream_of(LONG, chunked).await;
        let rules = rules(serde_json::json!([{ "host": "127.0.0.1", "port": port }]));
        let url = format!("http://127.0.0.1:{port}/dump");
        let client = client(ServiceLimits::default());
        // As a whole it is too long, and still is.
        assert!(matches!(send(&client, &rules, get(url.clone())).await, Err(Error::TooLarge(_))));
        let (mut at, mut tag) = (0, String::new());
        loop {
            let answer = send(&client, &rules, part(&url, at, 256 << 10, &tag)).await.unwrap();
            assert_eq!(answer.status, 206);
            let told = header(&answer, "content-range").to_owned();
            let end = at + answer.body.len();
            let total = if end == LONG { LONG.to_string() } else { "*".to_owned() };
            assert_eq!(told, format!("bytes {at}-{}/{total}", end - 1));
            assert!(answer.body.iter().enumerate().all(|(i, b)| *b == ((at + i) % 251) as u8), "at {at}");
            if at == 0 {
                // What is not asked for is not read: it stays with the server, but for what sockets hold.
                tokio::time::sleep(Duration::from_millis(200)).await;
                let sent = sent.load(std::sync::atomic::Ordering::Relaxed);
                assert!(sent < LONG / 2, "{sent} bytes were taken of {LONG}");
            }
            at = end;
            tag = header(&answer, "etag").to_owned();
            assert!(tag.starts_with("\"picket-"), "{tag}");
            if told.ends_with(&format!("/{LONG}")) {
                break;
            }
        }
        assert_eq!(at, LONG);
        // It is done with.
        let after = send(&client, &rules, part(&url, at, 1, &tag)).await;
        assert!(matches!(&after, Err(Error::Invalid(why)) if why.contains("not open any more")), "{after:?}");
    }
}

#[tokio::test]
async fn what_a_part_is_not() {
    let (port, _) = stream_of(1000, false).await;
    let rules_of =
        |port: u16| rules(serde_json::json!([{ "host": "127.0.0.1", "port": port, "path_prefix": "/a" }]));
    let rules = rules_of(port);
    let url = format!("http://127.0.0.1:{port}/a");
    let client = client(limits());
    // Short enough: the answer as the server gave it.
    let answer = send(&client, &rules, part(&url, 0, 1000, "")).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), header(&answer, "etag")), (200, 1000, "\"own\""));
    // Another place, another path, another plugin, a path that is not granted: none has the rest.
    let first = send(&client, &rules, part(&url, 0, 10, "")).await.unwrap();
    let tag = header(&first, "etag").to_owned();
    let denied = send(&client, &rules, part(&format!("http://127.0.0.1:{port}/b"), 10, 10, &tag)).await;
    assert!(matches!(denied, Err(Error::Denied(_))), "{denied:?}");
    let other = PluginId::new("other").unwrap();
    let stolen = client.send_many(&other, &rules, vec![part(&url, 10, 10, &tag)]).await.remove(0);
    assert!(matches!(stolen, Err(Error::Invalid(_))), "{stolen:?}");
    let next = send(&client, &rules, part(&url, 10, 10, &tag)).await.unwrap();
    assert_eq!(next.body, (10..20).collect::<Vec<u8>>());
    let skipped = send(&client, &rules, part(&url, 30, 10, &tag)).await;
    assert!(matches!(skipped, Err(Error::Invalid(_))), "{skipped:?}");
    // A part is no larger than an answer.
    let first = send(&client, &rules, part(&url, 0, 5000, "")).await.unwrap();
    assert_eq!(first.body.len(), 1000);

    // A body that breaks off is no end.
    let (port, _asked) = server(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort").await;
    let (rules, url) = (rules_of(port), format!("http://127.0.0.1:{port}/a"));
    let answer = send(&client, &rules, part(&url, 0, 50, "")).await;
    assert!(matches!(answer, Err(Error::Unreachable(_))), "{answer:?}");
    // A status that is none of success is the answer; a server's own part is passed on.
    for (raw, status) in [
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno".as_slice(), 404),
        (b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-1/9\r\ncontent-length: 2\r\n\r\nok", 206),
    ] {
        let (port, mut asked) = server(raw).await;
        let (rules, url) = (rules_of(port), format!("http://127.0.0.1:{port}/a"));
        let answer = send(&client, &rules, part(&url, 0, 50, "")).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 2));
        assert!(!header(&answer, "etag").starts_with("\"picket"));
        assert!(asked.recv().await.unwrap().contains("range: bytes=0-49\r\n"), "the server may know ranges");
    }
}
