//! Our binaries and the peers, started with configurations of the bench's own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::fleet::Authority;
use crate::process::{Server, free_port, until};

/// Where the binaries are.
pub struct Places {
    /// `picket-aggregator`, `picket-compile` and the loops of the row `tax`.
    pub binaries: PathBuf,
    /// `picket-agent`, which is built for size.
    pub agent: PathBuf,
    /// `node.wasm`, `mock.wasm`
    pub plugins: PathBuf,
    /// Peers, as `cargo xtask` links them into `bin`. None: they are not asked.
    pub parts: Option<PathBuf>,
}

impl Places {
    pub fn ours(&self, name: &str) -> Result<PathBuf> {
        let path = match name {
            "picket-agent" => self.agent.clone(),
            // It lies beside the agent, built as that is.
            "picket-worker" => self.agent.with_file_name(name),
            _ => self.binaries.join(name),
        };
        if !path.is_file() {
            bail!("{} is not there: `cargo xtask bench` builds it", path.display());
        }
        Ok(path)
    }

    /// A peer's program, or none with a word about it.
    pub fn peer(&self, name: &str) -> Option<PathBuf> {
        let path = self.parts.as_ref()?.join("bin").join(name);
        if !path.is_file() {
            eprintln!("no {}: its column stays empty (`cargo xtask bench` brings it)", path.display());
            return None;
        }
        Some(path)
    }
}

/// A running aggregator that takes the bench's certificates.
pub struct Aggregator {
    pub server: Server,
    pub authority: Authority,
    pub uplink: u16,
    pub http: u16,
    pub token: String,
    _dir: tempfile::TempDir,
}

impl Aggregator {
    pub async fn start(places: &Places) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("picket-bench-").tempdir_in("target")?;
        let dir_path = std::fs::canonicalize(dir.path())?;
        let authority = Authority::new(&dir_path)?;
        let (uplink, http) = (free_port()?, free_port()?);
        let path = dir_path.join("aggregator.toml");
        let at = dir_path.display();
        std::fs::write(
            &path,
            format!(
                "state_dir = \"{at}/state\"\n\
                 [uplink]\nlisten = \"127.0.0.1:{uplink}\"\n\
                 [http]\nlisten = \"127.0.0.1:{http}\"\ntls = false\n\
                 [identity]\ncertificate = \"{at}/server.pem\"\nkey = \"{at}/server.key\"\n\
                 client_authorities = \"{at}/ca.pem\"\n\
                 [store]\nlog_max_size = \"4GiB\"\n"
            ),
        )?;
        let program = places.ours("picket-aggregator")?;
        let config = path.display().to_string();
        let init = std::process::Command::new(&program).args(["init", "--config", &config]).output()?;
        if !init.status.success() {
            bail!("picket-aggregator init: {}", String::from_utf8_lossy(&init.stderr));
        }
        let token = std::fs::read_to_string(dir_path.join("state/admin.token"))?.trim().to_owned();
        let log = dir_path.join("aggregator.log");
        let server =
            Server::start("picket-aggregator", &program, &["run".into(), "--config".into(), config], &log)?;
        let this = Self { server, authority, uplink, http, token, _dir: dir };
        until("the aggregator to listen", Duration::from_secs(30), async || {
            get(this.http, "/healthz", Some(&this.token)).await.is_ok()
        })
        .await
        .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(this)
    }
}

/// GET on loopback; the length of the body, and the body when it is short.
pub async fn get(port: u16, path: &str, token: Option<&str>) -> Result<(usize, Bytes)> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::get(format!("http://127.0.0.1:{port}{path}"));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let answer = client.request(request.body(Empty::new())?).await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let (mut length, mut kept) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            length += data.len();
            if kept.len() < 1 << 20 {
                kept.extend_from_slice(data);
            }
        }
    }
    if !status.is_success() {
        bail!("GET {path}: {status}: {}", String::from_utf8_lossy(&kept));
    }
    Ok((length, kept.into()))
}

/// A running Prometheus that takes remote write.
pub async fn prometheus(
    places: &Places,
    dir: &Path,
    config: &str,
    extra: &[&str],
) -> Result<Option<(Server, u16)>> {
    let Some(program) = places.peer("prometheus") else { return Ok(None) };
    let port = free_port()?;
    std::fs::create_dir_all(dir)?;
    let file = dir.join("prometheus.yml");
    std::fs::write(&file, config)?;
    let mut args =
        vec![format!("--config.file={}", file.display()), format!("--web.listen-address=127.0.0.1:{port}")];
    args.extend(extra.iter().map(|a| (*a).to_owned()));
    if !extra.contains(&"--agent") {
        args.push(format!("--storage.tsdb.path={}/data", dir.display()));
        // Its default of 512 would leave a thousand agents waiting for each other.
        args.push("--web.max-connections=4096".into());
        args.push("--web.enable-remote-write-receiver".into());
    } else {
        args.push(format!("--storage.agent.path={}/data", dir.display()));
    }
    let server = Server::start("prometheus", &program, &args, &dir.join("prometheus.log"))?;
    until("Prometheus", Duration::from_secs(30), async || get(port, "/-/ready", None).await.is_ok()).await?;
    Ok(Some((server, port)))
}

/// A running VictoriaMetrics.
pub async fn victoria(places: &Places, dir: &Path) -> Result<Option<(Server, u16)>> {
    let Some(program) = places.peer("victoria-metrics") else { return Ok(None) };
    let port = free_port()?;
    std::fs::create_dir_all(dir)?;
    let args = [
        format!("-storageDataPath={}/data", dir.display()),
        format!("-httpListenAddr=127.0.0.1:{port}"),
        "-search.latencyOffset=0s".into(),
        // Its default of two minutes would end a connection, and the kernel's count of it, in the midst of a run.
        "-http.connTimeout=1h".into(),
    ];
    let server = Server::start("victoria-metrics", &program, &args, &dir.join("victoria.log"))?;
    until("VictoriaMetrics", Duration::from_secs(30), async || get(port, "/health", None).await.is_ok())
        .await?;
    Ok(Some((server, port)))
}
