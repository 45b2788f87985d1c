use std::path::Path;

use picket_agent_services::grants::{Scope, UrlRule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Answers each connection with `answer(path)`, or 404.
async fn serve(stream: impl AsyncReadExt + AsyncWriteExt + Unpin, answers: &[(&str, &str)]) {
    let mut stream = stream;
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut bytes = [0; 512];
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(n) => head.extend_from_slice(&bytes[..n]),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) =
        answers.iter().find(|(p, _)| *p == path).map_or(("404 Not Found", ""), |(_, body)| ("200 OK", *body));
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(text.as_bytes()).await;
}

async fn tcp(answers: &'static [(&'static str, &'static str)]) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers));
        }
    });
    port
}

fn unix(path: &Path, answers: &'static [(&'static str, &'static str)]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answers));
        }
    });
}

/// A port on which nobody listens.
async fn closed() -> u16 {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn empty(root: &Path) -> Machine {
    let ports = probe::Ports { vllm: closed().await, litellm: closed().await, exporters: Vec::new() };
    Machine { root: root.to_owned(), ports }
}

fn plugins(found: &[Found]) -> Vec<&'static str> {
    found.iter().map(|f| f.plugin).collect()
}

#[tokio::test]
async fn a_bare_machine_has_a_kernel_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(plugins(&empty(root.path()).await.look().await), ["node"]);
}

#[tokio::test]
async fn all_that_there_is_is_found() {
    let root = tempfile::tempdir().unwrap();
    let file = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    file("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15\nGCC");
    file("etc/slurm/slurm.conf", "");
    file("opt/slurm/bin/scontrol", "");
    file("run/systemd/journal/socket", "");
    unix(
        &root.path().join("run/docker.sock"),
        &[(
            "/containers/json",
            r#"[{"Names":["/llama"],"Image":"vllm/vllm-openai:v0.12.0","Labels":{"vllm":"true"},
                "Ports":[{"PrivatePort":8000,"PublicPort":8011,"Type":"tcp"}],
                "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2"}}}},
                {"Names":["/other"],"Image":"nginx","Labels":{}}]"#,
        )],
    );
    let mut machine = empty(root.path()).await;
    machine.ports.vllm =
        tcp(&[("/version", r#"{"version":"0.12.0"}"#), ("/metrics", "vllm:num_requests 1\n")]).await;
    machine.ports.litellm = tcp(&[("/health/liveliness", "\"I'm alive!\"")]).await;
    machine.ports.exporters = vec![
        ("node_exporter", tcp(&[("/metrics", "# TYPE up gauge\nup 1\n")]).await),
        ("none", closed().await),
    ];
    let found = machine.look().await;
    assert_eq!(plugins(&found), ["node", "gpu", "vllm", "litellm", "slurm", "logs", "prometheus"]);
    let of = |plugin: &str| found.iter().find(|f| f.plugin == plugin).unwrap();
    assert!(of("gpu").seen[0].contains("550.54.15"));
    assert_eq!(of("vllm").reach.engines, ["/run/docker.sock"]);
    assert!(of("vllm").seen.iter().any(|s| s.contains("container llama of vllm/vllm-openai:v0.12.0")));
    assert!(!of("vllm").seen.iter().any(|s| s.contains("nginx")));
    let inside = Server { scheme: "http", host: "172.17.0.0/16".to_owned(), port: 8000 };
    assert_eq!(of("vllm").reach.servers, [Server::local(8011), inside, Server::local(machine.ports.vllm)]);
    assert_eq!(of("vllm").settings["endpoints"].as_array().map(Vec::len), Some(1));
    assert_eq!(of("slurm").reach.programs, [root.path().join("opt/slurm/bin")]);
    assert_eq!(of("prometheus").reach.servers.len(), 1);
}

#[tokio::test]
async fn what_answers_otherwise_is_not_taken_for_it() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = empty(root.path()).await;
    // Some web server on each of the ports, and a socket that is no engine.
    machine.ports.vllm = tcp(&[("/version", "<html>1</html>")]).await;
    machine.ports.litellm = tcp(&[("/health/liveliness", "<html>no</html>")]).await;
    machine.ports.exporters = vec![("node_exporter", tcp(&[("/metrics", "<html></html>")]).await)];
    unix(&root.path().join("run/docker.sock"), &[("/containers/json", "not json")]);
    let found = machine.look().await;
    // An engine's containers write logs, whether or not it lets us ask.
    assert_eq!(plugins(&found), ["node", "logs"]);
}

#[test]
fn what_a_manifest_leaves_open_is_narrowed_to_what_was_found() {
    let rule = |host: &str| UrlRule { path_prefix: "/metrics".to_owned(), ..UrlRule::get(host) };
    let reach = Reach { servers: vec![Server::local(4000)], ..Reach::default() };
    let need = Scope::Http { urls: vec![rule("huggingface.co"), rule("*")] };
    let Scope::Http { urls } = reach.narrow(&need) else { panic!("another scope") };
    assert_eq!(urls.len(), 2);
    assert_eq!(urls[0], rule("huggingface.co"));
    assert_eq!(
        (urls[1].host.as_str(), urls[1].port, urls[1].path_prefix.as_str()),
        ("127.0.0.1", Some(4000), "/metrics")
    );
    // A need without a list is all open.
    let Scope::Http { urls } = reach.narrow(&Scope::Http { urls: Vec::new() }) else {
        panic!("another scope")
    };
    assert_eq!((urls.len(), urls[0].port), (1, Some(4000)));
    // Nothing found: nothing is guessed.
    assert_eq!(Reach::default().narrow(&need), need);
}

#[tokio::test]
async fn the_text_is_a_configuration() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("dev/nvidiactl"), "").unwrap();
    let file = root.path().join("agent.toml");
    std::fs::write(&file, "plugin_dir = \"/nowhere\"\n").unwrap();
    let sources = crate::config::Sources { file: file.clone(), environment: Vec::new() };
    let config = crate::config::load(&sources).unwrap();
    let text = run(&config, &empty(root.path()).await).await;
    // The components are not there: nothing is switched on, and it says why.
    assert_eq!(text.matches("enabled = false").count(), 2, "{text}");
    assert_eq!(text.matches("# not switched on: ").count(), 2, "{text}");
    let target = target(&file);
    write(&target, &text).unwrap();
    let detected = crate::config::load(&sources).unwrap();
    let ids: Vec<&str> = detected.plugins.keys().map(|id| id.as_str()).collect();
    assert_eq!(ids, ["gpu", "node"]);
}

/// What a person changed is not lost, however often it is written.
#[test]
fn what_a_person_changed_is_kept_beside_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = target(&folder.path().join("agent.toml"));
    let beside = |n: u32| file.with_file_name(format!("50-detected.toml.{n}"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(write(&file, "detected = 1\n").unwrap(), None);
    assert_eq!(write(&file, "detected = 1\n").unwrap(), None, "nothing changed, nothing is kept");
    std::fs::write(&file, "changed = 1\n").unwrap();
    assert_eq!(write(&file, "detected = 1\n").unwrap(), Some(beside(1)));
    assert_eq!((read(&file).as_str(), read(&beside(1)).as_str()), ("detected = 1\n", "changed = 1\n"));
    std::fs::write(&file, "changed = 2\n").unwrap();
    assert_eq!(write(&file, "detected = 1\n").unwrap(), Some(beside(2)));
    assert_eq!((read(&beside(1)).as_str(), read(&beside(2)).as_str()), ("changed = 1\n", "changed = 2\n"));
    // Kept already.
    std::fs::write(&file, "changed = 1\n").unwrap();
    assert_eq!(write(&file, "detected = 1\n").unwrap(), Some(beside(1)));
    assert!(!beside(3).exists());
    // A copy that can't be made: the file stays as it is.
    std::fs::write(&file, "changed = 3\n").unwrap();
    std::fs::create_dir(beside(3)).unwrap();
    for n in 4..=MAX_COPIES {
        std::fs::write(beside(n), "").unwrap();
    }
    assert!(write(&file, "detected = 1\n").unwrap_err().to_string().contains("remove some"));
    assert_eq!(read(&file), "changed = 3\n");
}
