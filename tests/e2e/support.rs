//! A bug report: what `picket-agent support-bundle` shows before it writes, what it writes, and what stays on the node.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{
    Agent, AgentBuilder, Output, Test, binary, eventually, quoted, run, run_program, run_program_with,
};
use rustix::process::Signal;
use serde_json::Value;

/// In the settings of a plugin, under the name of a secret.
const IN_SETTINGS: &str = "correct horse battery staple";
/// In a file that a grant names, and in the log.
const IN_A_FILE: &str = "Zm9vYmFyLWJhei1xdXV4";
/// In a URL that a mistake in the configuration brings into the log.
const IN_THE_LOG: &str = "hunter2-hunter2";

async fn bundle(config: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("picket-agent")?);
    command.arg("support-bundle").args(arguments).arg("--config").arg(config);
    run_program_with(&mut command).await
}

/// An agent with a certificate, a plugin that it refuses, and secrets in its settings, in a file and in its log.
async fn agent_with_secrets(test: &Test) -> Result<(Agent, String)> {
    let builder = AgentBuilder::new(test, "gpu-17")?;
    let folder = builder.folder().to_owned();
    let write = |name: &str, text: &str| -> Result<String> {
        std::fs::write(folder.join(name), text)?;
        Ok(quoted(folder.join(name)))
    };
    let key = rcgen::KeyPair::generate()?;
    let certificate =
        rcgen::CertificateParams::new(vec!["gpu-17.example".to_owned()])?.self_signed(&key)?.pem();
    let identity = format!(
        "certificate = {0}\nauthorities = {0}\nkey = {1}\n",
        write("certificate.pem", &certificate)?,
        write("key.pem", &key.serialize_pem())?,
    );
    let file = write("upstream", &format!("{IN_A_FILE}\n"))?;
    let plugin = format!(
        "[plugins.gone]\nfile = \"gone.wasm\"\n[plugins.gone.settings]\napi_key = \"{IN_SETTINGS}\"\nplain = \"kept\"\n\
         [[plugins.gone.grants]]\ncapability = \"http\"\n\
         urls = [{{ host = \"h.example\", secret = {{ name = \"api\", file = {file} }} }}]\n"
    );
    let agent = builder.aggregator("127.0.0.1:1").own_identity(&identity).section(plugin).start().await?;
    agent.plugin_state("gone", "refused").await?;

    let good = std::fs::read_to_string(agent.config())?;
    let url = format!("postgres://ada:{IN_THE_LOG}@db.example/?token={IN_A_FILE}");
    std::fs::write(agent.config(), good.replace("\"127.0.0.1:1\"", &quoted(url)))?;
    agent.daemon.signal(Signal::HUP)?;
    eventually("the mistake is logged with its secrets", || async {
        let log = agent.daemon.log();
        ensure!(log.contains(IN_THE_LOG) && log.contains(IN_A_FILE), "{log}");
        Ok(())
    })
    .await?;
    std::fs::write(agent.config(), good)?;
    Ok((agent, key.serialize_pem()))
}

/// The files of the archive, by their names in it.
async fn unpack(test: &Test, archive: &Path) -> Result<Vec<(String, String)>> {
    let folder = test.folder().join("unpacked");
    std::fs::create_dir_all(&folder)?;
    let arguments = ["-xzf".into(), archive.to_owned(), "-C".into(), folder.clone()];
    run_program(Path::new("tar"), &arguments).await?.ok()?;
    let mut files = Vec::new();
    let mut left = vec![folder.clone()];
    while let Some(place) = left.pop() {
        if place.is_dir() {
            left.extend(std::fs::read_dir(&place)?.flatten().map(|entry| entry.path()));
            continue;
        }
        let inside: PathBuf = place.strip_prefix(&folder)?.components().skip(1).collect();
        files.push((inside.display().to_string(), String::from_utf8(std::fs::read(&place)?)?));
    }
    Ok(files)
}

#[test]
fn a_bundle_has_what_helps_and_no_secret() {
    run(async |test: &Test| {
        let (agent, key) = agent_with_secrets(test).await?;
        let archive = test.folder().join("bundle.tar.gz");
        let target = archive.to_string_lossy().into_owned();
        let made =
            bundle(agent.config(), &["--yes", "--all-metrics", "--output", "json", "--output-file", &target])
                .await?;
        let list = made.err.clone();
        let said: Value = serde_json::from_str(&made.ok()?)?;
        ensure!(said["file"] == target.as_str(), "{said}");
        let mode = std::fs::metadata(&archive)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");

        let files = unpack(test, &archive).await?;
        let file = |name: &str| -> Result<&str> {
            let found = files.iter().find(|(inside, _)| inside == name);
            found.map(|(_, text)| text.as_str()).with_context(|| format!("no {name}: {list}"))
        };
        // Every one of them was on the list, with its size.
        for (name, text) in files.iter().filter(|(name, _)| name != "contents.json") {
            let entries = said["entries"].as_array().context("no entries")?;
            let entry = entries.iter().find(|entry| entry["name"] == name.as_str());
            ensure!(entry.is_some_and(|e| e["bytes"] == text.len()), "{name}: {entry:?}");
            ensure!(list.contains(name.as_str()), "{name} is not on the list: {list}");
        }
        for (name, words) in [
            ("version.txt", &["picket-agent 0.", "sha256:"] as &[&str]),
            ("contents.json", &["\"missing\"", "plugins/gone.toml"]),
            (
                "config/effective.toml",
                &["plain = \"kept\"", "api_key = \"[redacted]\"", "h.example", "key.pem"],
            ),
            ("config/check.txt", &["PKT-0001", "gone.wasm"]),
            ("certificates.txt", &["gpu-17.example", "from ", "sha256 "]),
            ("api/healthz.json", &["200", "ok"]),
            ("api/readyz.json", &["503", "plugin/gone"]),
            ("api/plugins.json", &["refused"]),
            ("api/metrics.txt", &["picket_agent_info"]),
            ("log/agent.txt", &["picket-agent runs", "[redacted]"]),
            ("cgroup.txt", &["/cgroup"]),
            ("system.txt", &["Linux", "MemTotal"]),
            ("plugins/files.txt", &["gone.wasm"]),
        ] {
            let text = file(name)?;
            for word in words {
                ensure!(text.contains(word), "{name} has no {word:?}: {text}");
            }
        }
        let process = file(&format!("processes/picket-agent-{}.txt", agent.daemon.pid()))?;
        ensure!(process.contains("VmRSS") && process.contains("Pss"), "{process}");

        let body: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
        let secrets = [IN_SETTINGS, IN_A_FILE, IN_THE_LOG].into_iter().chain(body);
        for secret in secrets {
            ensure!(!list.contains(secret), "{secret} is on the list: {list}");
            for (name, text) in &files {
                ensure!(!text.contains(secret), "{secret} is in {name}: {text}");
            }
        }
        Ok(())
    });
}

#[test]
fn it_is_listed_first_and_never_overwrites() {
    run(async |test: &Test| {
        let config = AgentBuilder::new(test, "alone")?.write()?;
        let (there, link) = (test.folder().join("there.tar.gz"), test.folder().join("link.tar.gz"));
        std::fs::write(&there, "kept")?;
        symlink(test.folder().join("away"), &link)?;
        for target in [&there, &link] {
            let target = target.to_string_lossy();
            bundle(&config, &["--yes", "--output-file", &target]).await?.refused(&["is there already"])?;
        }
        ensure!(std::fs::read(&there)? == b"kept" && !test.folder().join("away").exists(), "overwritten");

        // Nobody to ask.
        let target = test.folder().join("new.tar.gz");
        let refused = bundle(&config, &["--output-file", &target.to_string_lossy()]).await?;
        ensure!(refused.status.code() == Some(2), "{refused:?}");
        refused.refused(&["--list", "--yes"])?;
        ensure!(!target.exists(), "written");

        let mut command = Command::new(binary("picket-agent")?);
        command.args(["support-bundle", "--list", "--config"]).arg(&config).current_dir(test.folder());
        let listed = run_program_with(&mut command).await?.ok()?;
        ensure!(listed.contains("config/effective.toml") && listed.contains("no agent runs"), "{listed}");
        let left: Vec<_> =
            std::fs::read_dir(test.folder())?.flatten().map(|entry| entry.file_name()).collect();
        ensure!(!left.iter().any(|name| name.to_string_lossy().starts_with("picket-support")), "{left:?}");

        // The default name, without an agent and without a configuration that holds.
        std::fs::write(&config, "[htttp]\n")?;
        let mut command = Command::new(binary("picket-agent")?);
        command
            .args(["support-bundle", "-y", "--anonymous", "--config"])
            .arg(&config)
            .current_dir(test.folder());
        let made = run_program_with(&mut command).await?.ok()?;
        let file = test.folder().join(made.trim());
        ensure!(made.starts_with("picket-support-") && file.is_file(), "{made}");
        let files = unpack(test, &file).await?;
        let why = files.iter().find(|(name, _)| name == "config/error.txt").context("no error")?;
        ensure!(why.1.contains("did you mean \"http\""), "{why:?}");
        Ok(())
    });
}
