//! What is on the node.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Found, Reach, Server};

/// For one question to one server.
const WITHIN: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 4 << 20;

const ENGINES: &[&str] = &["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];
const SLURM_SOCKETS: &[&str] =
    &["/run/slurmrestd/slurmrestd.socket", "/run/slurmrestd.socket", "/var/run/slurmrestd.sock"];
const SLURM_PROGRAMS: &[&str] = &["/usr/bin", "/usr/local/bin", "/opt/slurm/bin", "/usr/local/slurm/bin"];

/// Where to look.
#[derive(Debug, Clone)]
pub struct Machine {
    /// `/`, or a test's folder.
    pub root: PathBuf,
    /// Ports on loopback and what may answer there.
    pub ports: Ports,
}

/// The ports that the servers use when nobody says otherwise.
#[derive(Debug, Clone)]
pub struct Ports {
    pub vllm: u16,
    pub litellm: u16,
    /// Other exporters: a name and a port.
    pub exporters: Vec<(&'static str, u16)>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { root: PathBuf::from("/"), ports: Ports::default() }
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            vllm: 8000,
            litellm: 4000,
            exporters: vec![
                ("dcgm-exporter", 9400),
                ("node_exporter", 9100),
                ("cadvisor", 8080),
                ("process-exporter", 9256),
            ],
        }
    }
}

/// A container of interest.
struct Container {
    name: String,
    image: String,
    labelled: bool,
    servers: Vec<Server>,
}

/// An engine that answers, or why it does not.
struct Engine {
    socket: String,
    containers: Result<Vec<Container>, String>,
}

impl Machine {
    /// All that is found, in the order in which a person would read it.
    pub async fn look(&self) -> Vec<Found> {
        let engines = self.engines().await;
        let mut found = vec![self.node()];
        found.extend(self.gpu());
        found.extend(self.vllm(&engines).await);
        found.extend(self.litellm().await);
        found.extend(self.slurm());
        found.extend(self.logs(&engines));
        found.extend(self.exporters().await);
        found
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn there(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    fn node(&self) -> Found {
        found("node", "every node has a kernel".to_owned())
    }

    fn gpu(&self) -> Option<Found> {
        let version = std::fs::read_to_string(self.at("/proc/driver/nvidia/version")).ok();
        let line = version.as_deref().and_then(|text| text.lines().next()).map(str::trim);
        let seen = match line {
            Some(line) => format!("/proc/driver/nvidia/version says: {line}"),
            None if self.there("/dev/nvidiactl") => "there is /dev/nvidiactl".to_owned(),
            None => return None,
        };
        Some(Found { interval: Some("5s"), ..found("gpu", seen) })
    }

    async fn engines(&self) -> Vec<Engine> {
        let mut engines: Vec<Engine> = Vec::new();
        let mut known = Vec::new();
        for socket in ENGINES {
            let path = self.at(socket);
            // /var/run is /run on most systems: one engine, one entry.
            let Ok(real) = path.canonicalize() else { continue };
            if known.contains(&real) {
                continue;
            }
            known.push(real);
            engines.push(Engine { socket: (*socket).to_owned(), containers: containers(&path).await });
        }
        engines
    }

    async fn vllm(&self, engines: &[Engine]) -> Option<Found> {
        let mut seen = Vec::new();
        let mut reach = Reach::default();
        let mut images = false;
        let mut todo = Vec::new();
        for engine in engines {
            match &engine.containers {
                Ok(list) => {
                    let ours: Vec<&Container> =
                        list.iter().filter(|c| c.labelled || c.image.contains("vllm")).collect();
                    for container in &ours {
                        images |= !container.labelled;
                        seen.push(format!("container {} of {}", container.name, container.image));
                        for server in &container.servers {
                            if !reach.servers.contains(server) {
                                reach.servers.push(server.clone());
                            }
                        }
                    }
                    if !ours.is_empty() {
                        reach.engines.push(engine.socket.clone());
                    }
                }
                Err(why) => todo.push(format!(
                    "{} could not be asked for containers ({why}): the agent's user needs to be in the socket's group",
                    engine.socket
                )),
            }
        }
        let mut settings = toml::Table::new();
        if let Some(version) = ask_tcp(self.ports.vllm, "/version").await
            && version.contains("\"version\"")
            && ask_tcp(self.ports.vllm, "/metrics").await.is_some_and(|page| page.contains("vllm:"))
        {
            seen.push(format!("127.0.0.1:{} answers as vLLM does: {}", self.ports.vllm, version.trim()));
            // A container that publishes the port is asked as a container.
            let server = Server::local(self.ports.vllm);
            if !reach.servers.contains(&server) {
                let mut endpoint = toml::Table::new();
                endpoint.insert("url".to_owned(), format!("http://127.0.0.1:{}", self.ports.vllm).into());
                settings.insert("endpoints".to_owned(), vec![toml::Value::from(endpoint)].into());
                reach.servers.push(server);
            }
        }
        if seen.is_empty() {
            return None;
        }
        if images {
            todo.push(
                "some containers were known by their image only: label them vllm=true to be sure".to_owned(),
            );
        }
        Some(Found { seen, settings, reach, todo, ..found("vllm", String::new()) })
    }

    async fn litellm(&self) -> Option<Found> {
        let port = self.ports.litellm;
        let alive = ask_tcp(port, "/health/liveliness").await?;
        if !alive.to_lowercase().contains("alive") {
            return None;
        }
        let mut settings = toml::Table::new();
        settings.insert("url".to_owned(), format!("http://127.0.0.1:{port}").into());
        Some(Found {
            settings,
            reach: Reach {
                servers: vec![
                    Server::local(port),
                    Server { scheme: "https", host: "huggingface.co".to_owned(), port: 443 },
                ],
                ..Reach::default()
            },
            todo: vec![
                "the models' names are asked of huggingface.co: leave out its grant and set hub.enabled = false if they are secret".to_owned(),
                "its /metrics and /model/info want a key: put one into a file that only the agent may read, and name the file in the grant's secret"
                    .to_owned(),
            ],
            ..found("litellm", format!("127.0.0.1:{port} answers as LiteLLM does"))
        })
    }

    fn slurm(&self) -> Option<Found> {
        let conf =
            ["/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf"].into_iter().find(|p| self.there(p));
        let programs: Vec<PathBuf> =
            SLURM_PROGRAMS.iter().map(|p| self.at(p)).filter(|p| p.join("scontrol").exists()).collect();
        let mut seen = Vec::new();
        seen.extend(conf.map(|conf| format!("there is {conf}")));
        seen.extend(programs.first().map(|p| format!("there is {}", p.join("scontrol").display())));
        if seen.is_empty() {
            return None;
        }
        let sockets: Vec<String> =
            SLURM_SOCKETS.iter().filter(|s| self.there(s)).map(|s| (*s).to_owned()).collect();
        seen.extend(sockets.iter().map(|s| format!("slurmrestd listens on {s}")));
        let mut settings = toml::Table::new();
        settings.extend(sockets.first().map(|socket| ("restd_socket".to_owned(), socket.clone().into())));
        Some(Found {
            seen,
            settings,
            interval: Some("60s"),
            reach: Reach { sockets, programs, ..Reach::default() },
            ..found("slurm", String::new())
        })
    }

    fn logs(&self, engines: &[Engine]) -> Option<Found> {
        let mut seen = Vec::new();
        let mut reach = Reach::default();
        let mut settings = toml::Table::new();
        if self.there("/run/systemd/journal") || self.there("/var/log/journal") {
            seen.push("there is a journal".to_owned());
            reach.units.push("*".to_owned());
            settings.insert("units".to_owned(), vec![toml::Value::from("*")].into());
        }
        if self.there("/var/lib/docker/containers")
            || engines.iter().any(|e| e.socket.ends_with("docker.sock"))
        {
            seen.push("containers write logs".to_owned());
            reach.files.push("/var/lib/docker/containers/*/*-json.log".to_owned());
        }
        if self.there("/var/log/pods") {
            seen.push("pods write logs".to_owned());
            reach.files.push("/var/log/pods/*/*/*.log".to_owned());
        }
        if seen.is_empty() {
            return None;
        }
        Some(Found { seen, settings, reach, ..found("logs", String::new()) })
    }

    async fn exporters(&self) -> Option<Found> {
        let mut seen = Vec::new();
        let mut servers = Vec::new();
        let mut jobs = toml::value::Array::new();
        for (name, port) in &self.ports.exporters {
            let Some(page) = ask_tcp(*port, "/metrics").await else { continue };
            if !page.contains("# TYPE ") {
                continue;
            }
            seen.push(format!("127.0.0.1:{port} answers with metrics ({name} by its port)"));
            servers.push(Server::local(*port));
            let mut targets = toml::Table::new();
            targets.insert("targets".to_owned(), vec![toml::Value::from(format!("127.0.0.1:{port}"))].into());
            let mut job = toml::Table::new();
            job.insert("job_name".to_owned(), (*name).into());
            job.insert("static_configs".to_owned(), vec![toml::Value::from(targets)].into());
            jobs.push(job.into());
        }
        if seen.is_empty() {
            return None;
        }
        let mut settings = toml::Table::new();
        settings.insert("jobs".to_owned(), jobs.into());
        Some(Found {
            seen,
            settings,
            reach: Reach { servers, ..Reach::default() },
            todo: vec!["leave out what the plugins `node` and `gpu` read themselves".to_owned()],
            ..found("prometheus", String::new())
        })
    }
}

fn found(plugin: &'static str, seen: String) -> Found {
    Found {
        plugin,
        seen: if seen.is_empty() { Vec::new() } else { vec![seen] },
        settings: toml::Table::new(),
        reach: Reach::default(),
        interval: None,
        todo: Vec::new(),
    }
}

/// The running containers, by the engine's own list.
async fn containers(socket: &Path) -> Result<Vec<Container>, String> {
    let stream = tokio::time::timeout(WITHIN, UnixStream::connect(socket))
        .await
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| e.to_string())?;
    let body = ask(stream, "/containers/json").await.ok_or("no answer that is understood")?;
    let list: serde_json::Value = serde_json::from_str(&body).map_err(|e| e.to_string())?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let read = |c: &serde_json::Value| Container {
        name: c.pointer("/Names/0").map(text).unwrap_or_default().trim_start_matches('/').to_owned(),
        image: c.get("Image").map(text).unwrap_or_default(),
        labelled: c.pointer("/Labels/vllm").and_then(|v| v.as_str()) == Some("true"),
        servers: servers(c),
    };
    Ok(list.as_array().ok_or("the answer is no list")?.iter().map(read).collect())
}

/// Where a container answers: on the ports that it publishes, and in its networks.
fn servers(container: &serde_json::Value) -> Vec<Server> {
    const VLLM: u16 = 8000;
    let ports = container.get("Ports").and_then(|p| p.as_array()).map(Vec::as_slice).unwrap_or_default();
    let number = |port: &serde_json::Value, key: &str| port.get(key)?.as_u64()?.try_into().ok();
    let mut servers: Vec<Server> =
        ports.iter().filter_map(|p| number(p, "PublicPort")).map(Server::local).collect();
    let inside: u16 = ports.iter().find_map(|p| number(p, "PrivatePort")).unwrap_or(VLLM);
    let networks = container.pointer("/NetworkSettings/Networks").and_then(|n| n.as_object());
    for (name, network) in networks.into_iter().flatten() {
        let address = network.get("IPAddress").and_then(|a| a.as_str()).and_then(|a| a.parse().ok());
        match address {
            // Its address changes with each start, its network does not.
            Some(std::net::IpAddr::V4(ip)) => {
                let [a, b, ..] = ip.octets();
                servers.push(Server { scheme: "http", host: format!("{a}.{b}.0.0/16"), port: inside });
            }
            _ if name == "host" => servers.push(Server::local(inside)),
            _ => {}
        }
    }
    servers.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    servers.dedup();
    servers
}

async fn ask_tcp(port: u16, path: &'static str) -> Option<String> {
    let stream = tokio::time::timeout(WITHIN, TcpStream::connect(("127.0.0.1", port))).await.ok()?.ok()?;
    ask(stream, path).await
}

/// The body of a `GET`, where the answer is 200.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &'static str,
) -> Option<String> {
    let ask = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, "localhost")
            .header(hyper::header::USER_AGENT, concat!("picket-agent/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())
            .ok()?;
        let response = sender.send_request(request).await.ok()?;
        if response.status() != hyper::StatusCode::OK {
            return None;
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?.to_bytes();
        drop(connection);
        String::from_utf8(body.to_vec()).ok()
    };
    tokio::time::timeout(WITHIN, ask).await.ok()?
}
