//! What an author types, with each language's real tools: from `new` to the metric in the aggregator. The worked examples are
//! held to their own tests and to the contract by the same commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Output, Test, binary, picket, quoted, repository, run, run_program, run_within, skip, target, which,
};

/// A command line of an author's, with the tools of this machine.
struct Desk {
    folder: PathBuf,
    path: Vec<PathBuf>,
    wasi: Option<PathBuf>,
}

impl Desk {
    fn new(test: &Test) -> Self {
        Self { folder: test.folder().to_owned(), path: Vec::new(), wasi: None }
    }

    async fn plugin(&self, arguments: &[&str]) -> Result<Output> {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(self.path.iter().cloned().chain(std::env::split_paths(&own)))?;
        let mut command = tokio::process::Command::new(binary("picket")?);
        command
            .arg("plugin")
            .args(arguments)
            .current_dir(&self.folder)
            .env("PATH", path)
            // What is compiled for one test is there for the next.
            .env("XDG_CACHE_HOME", target().join("author-cache"))
            // Where the first-party plugins' crates are built already, with the same profile.
            .env("CARGO_TARGET_DIR", repository().join("plugins/target"))
            .kill_on_drop(true);
        if let Some(wasi) = &self.wasi {
            command.env("WASI_SYSROOT", wasi);
        }
        let output = tokio::time::timeout(Duration::from_secs(540), command.output())
            .await
            .with_context(|| format!("picket plugin {arguments:?} did not end"))??;
        Ok(Output {
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// From nothing to samples: `new`, `test` (which builds), `check`, `run`. Gives the plugin file.
    async fn new_to_run(&self, name: &str, language: &str) -> Result<PathBuf> {
        self.plugin(&["new", name, "--language", language]).await?.ok()?;
        self.plugin(&["new", name, "--language", language]).await?.refused(&["is there already"])?;
        let tested = self.plugin(&["test", name]).await?.ok()?;
        ensure!(tested.contains("2 readings in the node's host"), "{tested}");
        let checked = self.plugin(&["check", name]).await?.ok()?;
        ensure!(checked.contains("2 families"), "{checked}");
        self.plugin(&["run", name, "-n", "1"]).await?.refused(&[
            "capability = \"files\"",
            "/proc/sys/fs/file-nr",
            "--grant-needs",
        ])?;
        let page =
            self.plugin(&["run", name, "--grant-needs", "-n", "2", "--interval", "200ms"]).await?.ok()?;
        let open = format!("{}_open_files ", name.replace('-', "_"));
        let value = page.lines().filter_map(|line| line.strip_prefix(&open)).next_back();
        let value: f64 = value.with_context(|| format!("no {open} in {page}"))?.parse()?;
        ensure!(value > 0.0, "{value} files are open");
        Ok(self.folder.join(name).join("target").join(format!("{name}.wasm")))
    }
}

/// `[plugins.ID]` with what `picket plugin grants` prints, as an operator would paste it.
async fn section(file: &Path, id: &str) -> Result<String> {
    let grants = picket(&["plugin", "grants", &file.to_string_lossy()]).await?;
    Ok(format!("[plugins.{id}]\nfile = {}\ninterval = \"500ms\"\n\n{grants}", quoted(file)))
}

/// Builds the SDK twice, for the component and for the tests: most of a minute where nothing is there yet.
#[test]
fn a_rust_plugin_from_nothing_to_the_aggregator() {
    run_within(Duration::from_secs(600), async |test: &Test| {
        let file = Desk::new(test).new_to_run("my-rust", "rust").await?;
        let aggregator = test.aggregator().await?;
        let _agent = aggregator
            .agent(test, "host-1")?
            .section(section(&file, "my-rust").await?)
            .enrol_and_start(&aggregator)
            .await?;
        aggregator.has("my_rust_open_files", &[("instance", "host-1")]).await?;
        Ok(())
    });
}

#[test]
fn the_example_ib_link() {
    run_within(Duration::from_secs(600), async |test: &Test| {
        let example = repository().join("sdk/examples/ib-link");
        let tested = Desk::new(test).plugin(&["test", &example.to_string_lossy()]).await?.ok()?;
        ensure!(tested.contains("2 readings"), "{tested}");
        Ok(())
    });
}

/// Where node finds the tool: as `npm install` would leave it.
fn with_npm(test: &Test) -> Option<Desk> {
    let tool = test.part("componentize-qjs")?;
    let folder = std::fs::canonicalize(tool).ok()?;
    // componentize-qjs/bin/componentize-qjs in node_modules.
    let bin = folder.ancestors().nth(3)?.join(".bin");
    Some(Desk { path: vec![bin], ..Desk::new(test) })
}

#[test]
fn a_javascript_plugin_from_nothing_to_samples() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(desk) = with_npm(test) else { return Ok(()) };
        desk.new_to_run("my-js", "javascript").await?;
        // What its manifest does not name it can't import.
        let manifest = test.folder().join("my-js/plugin.toml");
        let text = std::fs::read_to_string(&manifest)?;
        std::fs::write(
            &manifest,
            text.replace("capability = \"files\"", "capability = \"system\"")
                .replace("read = [", "# read = ["),
        )?;
        desk.plugin(&["build", "my-js"]).await?.refused(&["componentize-qjs ended"])?;
        Ok(())
    });
}

/// The key goes from the agent's file into the request's header, by way of nobody.
#[test]
fn the_example_weather_reads_with_a_secret() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(desk) = with_npm(test) else { return Ok(()) };
        let example = repository().join("sdk/examples/weather-of-the-datacentre");
        let tested = desk.plugin(&["test", &example.to_string_lossy()]).await?.ok()?;
        ensure!(tested.contains("2 readings"), "{tested}");
        let rooms = r#"{"rooms": [{"name": "hall-1", "temperature_c": 24.5, "humidity_percent": 40, "time": "2999-01-01T00:00:00Z"}]}"#;
        let server = Sensors::start(rooms).await?;
        let key = test.folder().join("key");
        std::fs::write(&key, "not-for-plugins\n")?;
        let file = example.join("target/weather-of-the-datacentre.wasm");
        let grants = picket(&["plugin", "grants", &file.to_string_lossy()]).await?;
        ensure!(grants.contains("x-api-key"), "{grants}");
        let section = format!(
            "[plugins.weather]\nfile = {}\ninterval = \"500ms\"\n[plugins.weather.settings]\nurl = \"{}\"\n\
             [[plugins.weather.grants]]\ncapability = \"http\"\nurls = [{{ scheme = \"http\", host = \"127.0.0.1\", port = {}, \
             allow_private = true, secret = {{ name = \"sensors\", file = {}, header = \"x-api-key\" }} }}]\n",
            quoted(&file),
            server.url(),
            server.port,
            quoted(&key)
        );
        let aggregator = test.aggregator().await?;
        let agent = aggregator.agent(test, "host-1")?.section(section).enrol_and_start(&aggregator).await?;
        let room = [("instance", "host-1"), ("room", "hall-1")];
        let temperature = aggregator.has("datacentre_room_temperature_celsius", &room).await?;
        ensure!(temperature == 24.5, "{temperature}");
        let plugins = agent.api.text("/api/v1/plugins").await?;
        ensure!(!plugins.contains("not-for-plugins"), "the key is told");
        Ok(())
    });
}

#[test]
fn a_c_plugin_from_nothing_to_samples() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let Some(tree) = test.part("wasi-clang") else { return Ok(()) };
        let path = vec![tree.join("usr/bin"), tree.join("usr/lib/llvm-14/bin")];
        let desk = Desk { path, wasi: Some(tree.join("usr")), ..Desk::new(test) };
        let file = desk.new_to_run("my-c", "c").await?;
        ensure!(std::fs::metadata(&file)?.len() < 300_000, "a plugin in C is small");
        Ok(())
    });
}

/// Two minutes: a node compiles 18 MB of Python, here with a debug build of the compiler.
#[test]
fn a_python_plugin_from_nothing_to_samples() {
    run_within(Duration::from_secs(900), async |test: &Test| {
        let authors = target().join("parts/authors/bin");
        if !authors.join("componentize-py").is_file() {
            skip("needs componentize-py: run `cargo xtask parts authors`");
            return Ok(());
        }
        let desk = Desk { path: vec![authors], ..Desk::new(test) };
        desk.new_to_run("my-python", "python").await?;
        let example = repository().join("sdk/examples/nvidia-smi-xml");
        let tested = desk.plugin(&["test", &example.to_string_lossy()]).await?.ok()?;
        ensure!(tested.contains("2 readings"), "{tested}");
        Ok(())
    });
}

/// Of the SDKs themselves, which no plugin of an author's has a reason to try.
#[test]
fn the_sdks_keep_nothing_of_a_refused_collect() {
    run(async |_: &Test| {
        let tests = repository().join("sdk/tests");
        for (program, options, file) in [
            ("node", &["--test"][..], "javascript/refused.test.mjs"),
            // Else it leaves files where the command line takes the SDK from.
            ("python3", &["-B"], "python/test_refused.py"),
        ] {
            let Some(program) = which(program) else {
                skip(&format!("needs {program}"));
                continue;
            };
            let file = tests.join(file).display().to_string();
            let arguments: Vec<&str> = options.iter().copied().chain([file.as_str()]).collect();
            run_program(&program, &arguments).await?.ok()?;
        }
        Ok(())
    });
}

#[test]
fn what_is_refused_says_what_to_do() {
    run(async |test: &Test| {
        let desk = Desk::new(test);
        desk.plugin(&["new", "Wrong_Name", "--language", "c"]).await?.refused(&["small letters"])?;
        desk.plugin(&["build", "."]).await?.refused(&["no plugin.toml"])?;
        desk.plugin(&["new", "none", "--language", "python"]).await?.ok()?;
        desk.plugin(&["check", "none"]).await?.refused(&["picket plugin build"])?;
        if !target().join("parts/authors/bin/componentize-py").is_file() {
            desk.plugin(&["build", "none"]).await?.refused(&["componentize-py is missing", "pip install"])?;
        }
        let text = test.folder().join("text.wasm");
        std::fs::write(&text, "hello")?;
        let checked = desk.plugin(&["check", "text.wasm"]).await?;
        checked.refused(&["would refuse"])?;
        ensure!(checked.out.contains("PKT-00"), "{}", checked.out);
        Ok(())
    });
}

/// Answers with the rooms whoever knows the key.
struct Sensors {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Sensors {
    async fn start(rooms: &'static str) -> Result<Self> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    let mut part = [0; 1024];
                    while !request.ends_with(b"\r\n\r\n") {
                        match stream.read(&mut part).await {
                            Ok(0) | Err(_) => return,
                            Ok(read) => request.extend_from_slice(part.get(..read).unwrap_or_default()),
                        }
                    }
                    let request = String::from_utf8_lossy(&request).to_ascii_lowercase();
                    let known = request.contains("x-api-key: not-for-plugins\r\n");
                    let (status, body) = if known { ("200 OK", rooms) } else { ("401 Unauthorized", "{}") };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Ok(Self { port, task })
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/rooms", self.port)
    }
}

impl Drop for Sensors {
    fn drop(&mut self) {
        self.task.abort();
    }
}
