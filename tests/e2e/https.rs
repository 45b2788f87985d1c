//! Exporters behind TLS: a real node_exporter with its own web configuration, passed on by the plugin `prometheus` where the
//! operator's grant says whom to trust; refused, counted and said where it is not to be trusted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::uplink::{Credentials, OtherAuthority};
use e2e::{Agent, AgentBuilder, Daemon, Test, eventually, free_port, quoted, run};

/// A node_exporter that speaks HTTPS alone.
struct Exporter {
    port: u16,
    _daemon: Daemon,
}

impl Exporter {
    async fn start(
        test: &Test,
        program: &Path,
        own: &Credentials,
        clients_of: Option<&OtherAuthority>,
    ) -> Result<Self> {
        let port = free_port()?;
        let folder = test.folder().join(format!("exporter-{port}"));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("server.pem"), &own.certificate)?;
        std::fs::write(folder.join("server.key"), &own.key)?;
        let mut web = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n".to_owned();
        if let Some(authority) = clients_of {
            std::fs::write(folder.join("clients.pem"), &authority.certificate)?;
            web += "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.pem\n";
        }
        std::fs::write(folder.join("web.yml"), web)?;
        let mut command = Command::new(program);
        command
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--web.config.file={}", folder.join("web.yml").display()))
            .args(["--collector.disable-defaults", "--collector.loadavg"]);
        let mut daemon = Daemon::start(test, "node_exporter", &mut command)?;
        eventually("node_exporter listens", || {
            let running = daemon.check_running();
            async move {
                running?;
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(Into::into)
            }
        })
        .await?;
        Ok(Self { port, _daemon: daemon })
    }

    fn target(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn file(test: &Test, name: &str, text: &str) -> Result<PathBuf> {
    let path = test.folder().join(name);
    std::fs::write(&path, text)?;
    Ok(path)
}

/// An agent that asks these exporters over HTTPS, each with a rule of its own.
async fn agent(test: &Test, rules: &[(u16, String)]) -> Result<Agent> {
    let targets: Vec<String> = rules.iter().map(|(port, _)| format!("\"127.0.0.1:{port}\"")).collect();
    let urls: Vec<String> = rules
        .iter()
        .map(|(port, tls)| format!("{{ scheme = \"https\", host = \"127.0.0.1\", port = {port}{tls} }}"))
        .collect();
    let section = format!(
        "[plugins.prometheus]\nfile = \"prometheus.wasm\"\ninterval = \"500ms\"\n[plugins.prometheus.settings]\n\
         [[plugins.prometheus.settings.jobs]]\njob_name = \"app\"\nscheme = \"https\"\nstatic_configs = [{{ targets = [{}] }}]\n\
         [[plugins.prometheus.grants]]\ncapability = \"http\"\nurls = [{}]\n\
         [[plugins.prometheus.grants]]\ncapability = \"files\"\nread = [{}]\n",
        targets.join(", "),
        urls.join(", "),
        quoted(test.folder().join("**"))
    );
    AgentBuilder::new(test, "alone")?.section(section).start().await
}

async fn becomes(agent: &Agent, target: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{target} is {wanted}"), || async {
        let page = agent.api.metrics().await?;
        let labels = [("job", "app"), ("target", target), ("state", wanted)];
        let value = page.value("picket_scrape_state", &labels)?;
        ensure!(value == 1.0, "{:?}", page.series("picket_scrape_state"));
        Ok(())
    })
    .await
}

#[test]
fn exporters_behind_tls_are_asked_by_whom_the_operator_trusts() {
    run(async |test: &Test| {
        let Some(program) = test.part("node_exporter") else { return Ok(()) };
        let (ours, theirs) = (OtherAuthority::new("ours")?, OtherAuthority::new("theirs")?);
        let leaf = |name: &str| ours.issue(name, &[], &[name]);
        let good = Exporter::start(test, &program, &leaf("127.0.0.1")?, None).await?;
        let unknown = Exporter::start(test, &program, &theirs.issue("x", &[], &["127.0.0.1"])?, None).await?;
        let misnamed = Exporter::start(test, &program, &leaf("exporter.example")?, None).await?;
        let named = Exporter::start(test, &program, &leaf("exporter.example")?, None).await?;
        let old =
            Exporter::start(test, &program, &ours.issue_expired("127.0.0.1", &["127.0.0.1"])?, None).await?;
        let closed = Exporter::start(test, &program, &leaf("127.0.0.1")?, Some(&theirs)).await?;
        let open = Exporter::start(test, &program, &leaf("127.0.0.1")?, Some(&theirs)).await?;

        let ca = file(test, "ca.pem", &ours.certificate)?;
        let me = theirs.issue("agent", &[], &["agent.example"])?;
        let (certificate, key) = (file(test, "me.pem", &me.certificate)?, file(test, "me.key", &me.key)?);
        let trust = format!(", ca = {}", quoted(&ca));
        let who =
            format!("{trust}, client_certificate = {}, client_key = {}", quoted(certificate), quoted(key));
        let agent = agent(
            test,
            &[
                (good.port, trust.clone()),
                (unknown.port, trust.clone()),
                (misnamed.port, trust.clone()),
                (named.port, format!("{trust}, server_name = \"exporter.example\"")),
                (old.port, trust.clone()),
                (closed.port, trust.clone()),
                (open.port, who),
            ],
        )
        .await?;
        for exporter in [&good, &named, &open] {
            becomes(&agent, &exporter.target(), "up").await?;
            let target = exporter.target();
            let load =
                agent.api.metrics().await?.value("node_load1", &[("job", "app"), ("target", &target)])?;
            ensure!(load >= 0.0, "{load}");
        }
        for exporter in [&unknown, &misnamed, &old, &closed] {
            becomes(&agent, &exporter.target(), "refusing").await?;
            let page = agent.api.metrics().await?;
            let told = page.value("node_load1", &[("job", "app"), ("target", &exporter.target())]);
            ensure!(told.is_err(), "{told:?} of one that is not trusted");
        }
        eventually("each is counted", || async {
            let labels = [("plugin", "prometheus"), ("reason", "tls")];
            let counted = agent.api.metrics().await?.sum("picket_source_errors_total", &labels);
            ensure!(counted >= 4.0, "{counted}");
            Ok(())
        })
        .await?;
        // With what to do: of each reason of failure the log tells one a minute.
        eventually("the log says why", || async {
            let log = agent.daemon.log();
            let parts =
                ["`ca` in the grant", "`server_name` in the grant", "has expired", "`client_certificate`"];
            ensure!(parts.iter().any(|part| log.contains(part)), "nothing of {parts:?}");
            Ok(())
        })
        .await?;

        // A renewed authority needs no restart.
        let both = format!("{}{}", ours.certificate, theirs.certificate);
        std::fs::write(test.folder().join("next.pem"), both)?;
        std::fs::rename(test.folder().join("next.pem"), &ca)?;
        becomes(&agent, &unknown.target(), "up").await?;
        becomes(&agent, &good.target(), "up").await
    });
}
