//! Who may speak to the aggregator: enrolment, certificates, revocation, and what hostile clients get.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::uplink::{self, Credentials, OtherAuthority, Stream, Token};
use e2e::{AgentBuilder, Aggregator, AggregatorBuilder, Test, eventually, run};
use picket_proto::columns::Encoder;
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, MetricType, Part};
use picket_proto::v1::uplink_message::Message as Up;
use picket_proto::v1::{self, downlink_message::Message as Down};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The aggregator still does its work: a new agent enrols and its metrics arrive.
async fn still_works(test: &Test, aggregator: &Aggregator) -> Result<()> {
    let agent =
        aggregator.agent(test, "witness")?.mock("200ms", "seed = 9")?.enrol_and_start(aggregator).await?;
    aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "witness")]).await?;
    drop(agent);
    Ok(())
}

/// Definitions of one gauge with one series, both number 0.
fn one_series(name: &str) -> Result<v1::Definitions> {
    let mut builder = Builder::new();
    builder.family(0, "test", &Family::new(name, MetricType::Gauge, "", "A test.")?);
    builder.series(0, 0, Part::Value, std::iter::once(("kind", "test")));
    Ok(builder.finish())
}

fn batch(encoder: &mut Encoder, sequence: u64, time_ms: i64, series: &[u32], values: &[f64]) -> Result<Up> {
    let mut columns = Vec::new();
    encoder.encode(time_ms, series, values, None, &mut columns)?;
    Ok(Up::Batch(v1::Batch { sequence, columns: vec![columns.into()], ..v1::Batch::default() }))
}

/// Enrols a hand-made agent and gives its credentials.
async fn enrolled(aggregator: &Aggregator, node: &str) -> Result<Credentials> {
    let token = Token::parse(&aggregator.enrolment_token(node).await?)?;
    let (name, credentials) =
        uplink::enrol(&aggregator.uplink(), &aggregator.authority(), &token.secret, node).await?;
    ensure!(name == node, "enrolled as {name}");
    Ok(credentials)
}

/// Why the aggregator doesn't take a stream with these credentials.
async fn refusal(aggregator: &Aggregator, credentials: Option<&Credentials>) -> Result<String> {
    let channel = match uplink::connect(&aggregator.uplink(), &aggregator.authority(), credentials).await {
        Ok(channel) => channel,
        Err(error) => return Ok(format!("{error:#}")),
    };
    match Stream::hello(channel).await {
        Ok((_, welcome)) => bail!("was let in as {}", welcome.node),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn a_hand_made_agent_is_understood() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let credentials = enrolled(&aggregator, "made-by-hand").await?;
        let channel =
            uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&credentials)).await?;
        let (mut stream, welcome) = Stream::hello(channel).await?;
        ensure!(welcome.node == "made-by-hand", "{welcome:?}");
        ensure!(welcome.window > 0 && welcome.watermarks.is_empty(), "{welcome:?}");
        let now = uplink::now_ms();
        let mut encoder = Encoder::new();
        stream.send(Up::Life(v1::Life { life: 77 })).await?;
        stream.send(Up::Definitions(one_series("test_value")?)).await?;
        stream.send(batch(&mut encoder, 1, now, &[0], &[1.5])?).await?;
        stream.acknowledged(77, 1).await?;
        let value = aggregator.has("test_value", &[("instance", "made-by-hand"), ("kind", "test")]).await?;
        ensure!(value == 1.5, "{value}");
        // The same sequence again changes nothing, whatever it holds.
        stream.send(batch(&mut encoder, 1, now + 1000, &[0], &[9.0])?).await?;
        stream.send(batch(&mut encoder, 2, now + 2000, &[0], &[2.5])?).await?;
        stream.acknowledged(77, 2).await?;
        let rows = aggregator.api.export("match=test_value").await?;
        let values: Vec<_> = rows.iter().filter_map(e2e::Row::number).collect();
        ensure!(values == [1.5, 2.5], "{values:?}");
        Ok(())
    });
}

#[test]
fn without_a_good_certificate_nobody_streams() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let other = OtherAuthority::new("Not yours")?;
        let forged = other.issue("witness", &["picket://node/witness"], &[])?;
        for (what, credentials) in [("no certificate", None), ("another CA's certificate", Some(&forged))] {
            let why = refusal(&aggregator, credentials).await.with_context(|| what)?;
            ensure!(!why.is_empty(), "{what}");
        }
        // The aggregator's own server certificate is no node's.
        still_works(test, &aggregator).await?;
        let nodes = aggregator.api.text("/api/v1/nodes").await?;
        ensure!(nodes.matches("\"witness\"").count() == 1, "{nodes}");
        Ok(())
    });
}

#[test]
fn the_agent_does_not_talk_to_another_ca() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let builder = aggregator.agent(test, "gpu-1")?.mock("200ms", "seed = 1")?;
        // A token whose pin is of another CA: somebody stands between.
        let mut token = Token::parse(&aggregator.enrolment_token("gpu-1").await?)?;
        let good = token.text();
        token.pin = "0".repeat(64);
        builder.enrol(&token.text()).await?.refused(&[])?;
        ensure!(!builder.state().join("identity/certificate.pem").exists(), "an identity was written");
        // The secret was not given away: the token is still good.
        builder.enrol(&good).await?.ok()?;
        // Another aggregator's CA later on.
        let authorities = builder.state().join("identity/authorities.pem");
        let agent = builder.start().await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        let mut agent = agent;
        agent.daemon.kill()?;
        std::fs::write(&authorities, OtherAuthority::new("Not yours")?.certificate)?;
        let before = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL").await?.len();
        agent.restart(test).await?;
        agent.plugin_state("mock", "running").await?;
        eventually("the agent says why", || {
            let log = agent.daemon.log();
            async move {
                let log = log.to_lowercase();
                ensure!(log.contains("certificate") || log.contains("issuer"), "{log}");
                Ok(())
            }
        })
        .await?;
        let after = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL").await?.len();
        ensure!(before == after, "samples went to a server that should not be trusted");
        Ok(())
    });
}

#[test]
fn what_runs_at_every_start_changes_nothing_the_second_time() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let agent = aggregator.agent(test, "gpu-1")?;
        let file = test.folder().join("token");
        std::fs::write(&file, format!("{}\n", aggregator.enrolment_token("gpu-1").await?))?;
        let file = file.to_str().context("the folder's name is no UTF-8")?;

        let enrol = async || -> Result<serde_json::Value> {
            let arguments = ["--if-needed", "--token-file", file, "--output", "json"];
            Ok(serde_json::from_str(&agent.enrol_with(&arguments).await?.ok()?)?)
        };
        let first = enrol().await?;
        ensure!(first["node"] == "gpu-1" && first["new"] == true, "{first}");
        let key = std::fs::read(agent.state().join("identity/key.pem"))?;
        // The token is used up by now, and nobody is asked.
        let second = enrol().await?;
        ensure!(second["node"] == "gpu-1" && second["new"] == false, "{second}");
        ensure!(std::fs::read(agent.state().join("identity/key.pem"))? == key, "it has another key");

        agent.enrol_with(&["--token-file", file]).await?.refused(&[])?;
        agent.enrol_with(&["--token-file", "/no/such/file"]).await?.refused(&["/no/such/file"])?;
        agent.enrol_with(&["--token", "x", "--token-file", file]).await?.refused(&["cannot be used with"])?;
        agent.enrol_with(&["--if-needed"]).await?.refused(&["--token"])?;
        agent.enrol_with(&["--token-file", file, "--owner", "me"]).await?.refused(&["65532:65532"])?;

        let state = test.folder().join("fresh");
        let init = |arguments: &[&str]| -> Result<std::process::Output> {
            let mut command = std::process::Command::new(e2e::binary("picket-aggregator")?);
            Ok(command.arg("init").args(arguments).env("PICKET_AGGREGATOR_STATE_DIR", &state).output()?)
        };
        let made = init(&["--if-needed"])?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let token = std::fs::read(state.join("admin.token"))?;
        ensure!(init(&["--if-needed"])?.status.success(), "a second time is an error");
        ensure!(std::fs::read(state.join("admin.token"))? == token, "it has another token");
        ensure!(!init(&[])?.status.success(), "it was made anew");
        Ok(())
    });
}

#[test]
fn a_token_enrols_once_one_node_and_not_for_ever() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let token = aggregator.enrolment_token("gpu-1").await?;
        let first = aggregator.agent(test, "gpu-1")?;
        first.enrol(&token).await?.ok()?;
        use std::os::unix::fs::PermissionsExt;
        let key = first.state().join("identity/key.pem");
        let mode = std::fs::metadata(&key)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "the key has mode {mode:o}");
        aggregator.agent(test, "again")?.enrol(&token).await?.refused(&[])?;

        // One for a batch: the machine says its name.
        let batch = aggregator.cli_json(&["token", "create", "--nodes", "rack7-*", "--count", "2"]).await?;
        let batch = batch["token"].as_str().context("no token for a batch")?.to_owned();
        aggregator.agent(test, "rack7-1")?.enrol_as(&batch, "rack7-1").await?.ok()?;
        aggregator.agent(test, "other")?.enrol_as(&batch, "other").await?.refused(&["rack7-*"])?;
        aggregator.agent(test, "thief")?.enrol_as(&batch, "rack7-1").await?.refused(&["known already"])?;
        aggregator.agent(test, "rack7-2")?.enrol_as(&batch, "rack7-2").await?.ok()?;
        aggregator.agent(test, "rack7-3")?.enrol_as(&batch, "rack7-3").await?.refused(&["was used"])?;

        let short = aggregator.enrolment_token_for("gpu-2", "1s").await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        aggregator.agent(test, "late")?.enrol(&short).await?.refused(&["expired"])?;

        for garbage in [
            "",
            "x",
            "picket-enrol-v1.",
            "picket-enrol-v1.!!!!",
            "picket-enrol-v1.e30",
            "picket-enrol-v2.e30",
        ] {
            aggregator
                .agent(test, "garbage")?
                .enrol(garbage)
                .await?
                .refused(&[])
                .with_context(|| garbage.to_owned())?;
        }
        // The token decides the name, not who asks.
        let token = Token::parse(&aggregator.enrolment_token("gpu-3").await?)?;
        let wrong =
            uplink::enrol(&aggregator.uplink(), &aggregator.authority(), "no such secret", "gpu-3").await;
        ensure!(wrong.is_err(), "a wrong secret enrolled");
        match uplink::enrol(&aggregator.uplink(), &aggregator.authority(), &token.secret, "gpu-1").await {
            Ok((name, _)) => ensure!(name == "gpu-3", "enrolled as {name}"),
            Err(status) => ensure!(status.code() != tonic::Code::Internal, "{status}"),
        }
        Ok(())
    });
}

#[test]
fn revoking_cuts_the_stream_at_once_and_for_good() {
    run(async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let mut agent =
            aggregator.agent(test, "gpu-1")?.mock("100ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        let credentials = Credentials::read(&agent.identity())?;
        aggregator.cli(&["node", "revoke", "gpu-1"]).await?.ok()?;
        let revoked_at = uplink::now_ms();
        aggregator.connected("gpu-1", false).await?;
        let cut_after = uplink::now_ms() - revoked_at;
        ensure!(cut_after < 3000, "the stream was cut after {cut_after} ms");
        let why = refusal(&aggregator, Some(&credentials)).await?;
        ensure!(why.contains("revoked"), "{why}");
        // Nor after a restart of either.
        aggregator.restart(test).await?;
        agent.restart(test).await?;
        agent.plugin_state("mock", "running").await?;
        let why = refusal(&aggregator, Some(&credentials)).await?;
        ensure!(why.contains("revoked"), "{why}");
        let late = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL&node=gpu-1").await?;
        let late = late.iter().filter(|row| row.ts_ms > revoked_at + 3000).count();
        ensure!(late == 0, "{late} samples after the revocation");
        still_works(test, &aggregator).await
    });
}

#[test]
fn certificates_are_renewed_without_dropping_the_stream() {
    run(async |test: &Test| {
        let aggregator =
            AggregatorBuilder::new(test)?.set("identity", "certificate_life = \"12s\"").start().await?;
        let agent =
            aggregator.agent(test, "gpu-1")?.mock("200ms", "seed = 1")?.enrol_and_start(&aggregator).await?;
        aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", "gpu-1")]).await?;
        let first = Credentials::read(&agent.identity())?;
        let since = aggregator.api.json("/api/v1/nodes/gpu-1").await?["connected_since_ms"].clone();
        let expiry = eventually("its metric", || async {
            agent.api.metrics().await?.value("picket_certificate_expiry_timestamp_seconds", &[])
        })
        .await?;
        eventually("a new certificate", || async {
            ensure!(
                Credentials::read(&agent.identity())?.certificate != first.certificate,
                "still the old one"
            );
            let now = agent.api.metrics().await?.value("picket_certificate_expiry_timestamp_seconds", &[])?;
            ensure!(now > expiry, "its metric says {now}, before {expiry}");
            Ok(())
        })
        .await?;
        // Well past the end of the first certificate, the same stream still delivers.
        let ends_ms = (expiry * 1000.0) as i64 + 2000;
        eventually("samples after the first certificate's end", || async {
            let rows = aggregator.api.export("match=DCGM_FI_DEV_GPU_UTIL&node=gpu-1").await?;
            let last = rows.iter().map(|row| row.ts_ms).max().unwrap_or_default();
            ensure!(last > ends_ms, "the last is {} ms before", ends_ms - last);
            Ok(())
        })
        .await?;
        let now = aggregator.api.json("/api/v1/nodes/gpu-1").await?["connected_since_ms"].clone();
        ensure!(now == since, "the stream was dropped: connected since {since}, now {now}");
        // The first one has expired: nobody gets in with it.
        refusal(&aggregator, Some(&first)).await?;
        Ok(())
    });
}

#[test]
fn the_name_on_a_sample_is_the_certificates() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let credentials = enrolled(&aggregator, "real-name").await?;
        let channel =
            uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&credentials)).await?;
        let (mut stream, welcome) = Stream::hello(channel).await?;
        ensure!(welcome.node == "real-name", "{welcome:?}");
        // Labels that claim to be another node's.
        let mut builder = Builder::new();
        builder.family(0, "test", &Family::new("test_claim", MetricType::Gauge, "", "")?);
        builder.series(0, 0, Part::Value, [("instance", "victim"), ("node", "victim")].into_iter());
        stream.send(Up::Life(v1::Life { life: 5 })).await?;
        stream.send(Up::Definitions(builder.finish())).await?;
        stream.send(batch(&mut Encoder::new(), 1, uplink::now_ms(), &[0], &[1.0])?).await?;
        // Taken under the real name, or refused: never under the claimed one.
        let _ = stream.acknowledged(5, 1).await;
        let metrics = aggregator.api.metrics().await?;
        ensure!(!metrics.instances().contains("victim"), "a claimed name was believed");
        let nodes = aggregator.api.text("/api/v1/nodes").await?;
        ensure!(!nodes.contains("victim"), "{nodes}");

        // A second stream with the same certificate is the same node; the first one gives way.
        let channel =
            uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&credentials)).await?;
        let (_second, welcome) = Stream::hello(channel).await?;
        ensure!(welcome.node == "real-name", "{welcome:?}");
        Ok(())
    });
}

#[test]
fn garbage_on_the_ports_harms_nobody() {
    run(async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let http = aggregator.api.url().rsplit(':').next().context("no port")?.parse::<u16>()?;
        let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let plain = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // A TLS record that promises much and brings nothing.
        let promise = vec![0x16, 0x03, 0x01, 0x3f, 0xff, 0x01, 0x00, 0x3f, 0xfb];
        for port in [aggregator.uplink_port(), http] {
            for bytes in [&noise, &plain, &preface, &promise] {
                let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
                // The other side may close while we still write: that is its right.
                let _ = socket.write_all(bytes).await;
                let _ = socket.shutdown().await;
                let mut answer = Vec::new();
                let read =
                    tokio::time::timeout(Duration::from_secs(30), socket.read_to_end(&mut answer)).await;
                ensure!(read.is_ok(), "port {port} keeps a connection of garbage open");
            }
        }
        aggregator.daemon.check_running()?;
        still_works(test, &aggregator).await
    });
}

#[test]
fn clients_that_stall_cost_little_and_are_cut() {
    run(async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let before = aggregator.daemon.memory("VmRSS")?;
        let credentials = enrolled(&aggregator, "staller").await?;
        // Connections that say nothing at all, not even TLS.
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(("127.0.0.1", aggregator.uplink_port())).await?);
        }
        // A stream on which no hello comes.
        let channel =
            uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&credentials)).await?;
        let opened = tokio::spawn(async move {
            match Stream::open(channel).await {
                Ok(mut stream) => stream.end().await,
                Err(status) => Ok(status.to_string()),
            }
        });
        still_works(test, &aggregator).await?;
        let why = tokio::time::timeout(Duration::from_secs(60), opened)
            .await
            .context("the stalled stream stays")???;
        ensure!(!why.is_empty(), "no reason");
        let mut first = silent.pop().context("no connection")?;
        let mut byte = [0; 1];
        let closed = tokio::time::timeout(Duration::from_secs(60), first.read(&mut byte)).await;
        ensure!(closed.is_ok(), "a silent connection is kept open");
        let after = aggregator.daemon.memory("VmRSS")?;
        ensure!(after < before + (64 << 20), "memory went from {before} to {after}");
        aggregator.daemon.check_running()
    });
}

#[test]
fn messages_that_break_the_protocol_end_the_stream_alone() {
    run(async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let credentials = enrolled(&aggregator, "rude").await?;
        let now = uplink::now_ms();
        let life = |life| Up::Life(v1::Life { life });
        let mut wild = one_series("test_wild")?;
        wild.series = vec![0, 0, 0, 9999, 1, 2];
        let mut bad_name = one_series("test_bad")?;
        bad_name.strings.iter_mut().filter(|s| *s == "test_bad").for_each(|s| *s = "bad name{".to_owned());
        let garbage = |bytes: Vec<u8>| {
            Up::Batch(v1::Batch { sequence: 1, columns: vec![bytes.into()], ..v1::Batch::default() })
        };
        let cases: BTreeMap<&str, Vec<Up>> = BTreeMap::from([
            (
                "a batch of undefined series",
                vec![life(1), batch(&mut Encoder::new(), 1, now, &[3, 4], &[1.0, 2.0])?],
            ),
            ("a batch before any life", vec![batch(&mut Encoder::new(), 1, now, &[0], &[1.0])?]),
            ("definitions that point outside", vec![life(2), Up::Definitions(wild)]),
            ("a name that is none", vec![life(3), Up::Definitions(bad_name)]),
            (
                "columns of garbage",
                vec![life(4), Up::Definitions(one_series("test_a")?), garbage(vec![0xff; 300])],
            ),
            (
                "columns of nothing",
                vec![life(5), Up::Definitions(one_series("test_a")?), garbage(Vec::new())],
            ),
            ("a second hello", vec![uplink::hello()]),
            ("a result of no command", vec![Up::CommandResult(v1::CommandResult { id: 4711, result: None })]),
            ("a request that is none", vec![Up::Renew(v1::RenewRequest { csr: vec![1, 2, 3] })]),
        ]);
        for (what, messages) in cases {
            let channel =
                uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&credentials)).await?;
            let (mut stream, _) = Stream::hello(channel).await.with_context(|| what)?;
            for message in messages {
                // The stream may be cut before all is said.
                if stream.send(message).await.is_err() {
                    break;
                }
            }
            // What is no more than useless may be ignored; what can't be understood must end the stream.
            let harmless =
                matches!(what, "a result of no command" | "a request that is none" | "a second hello");
            if harmless {
                let _ = tokio::time::timeout(Duration::from_secs(2), stream.next()).await;
            } else {
                let end = async {
                    loop {
                        match stream.next().await {
                            Ok(Down::Ack(ack)) => bail!("acknowledged {ack:?}"),
                            Ok(_) => {}
                            Err(error) => return Ok(error),
                        }
                    }
                };
                end.await.with_context(|| what)?;
            }
            aggregator.daemon.check_running().with_context(|| what)?;
        }
        let metrics = aggregator.api.metrics().await?;
        ensure!(metrics.names().all(|name| !name.starts_with("test_")), "garbage was exported");
        still_works(test, &aggregator).await
    });
}

#[test]
fn bring_your_own_ca() {
    run(async |test: &Test| {
        let ours = OtherAuthority::new("Example Corp")?;
        let folder = test.folder().join("pki");
        std::fs::create_dir_all(&folder)?;
        let write = |name: &str, text: &str| -> Result<String> {
            let file = folder.join(name);
            std::fs::write(&file, text)?;
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            Ok(e2e::quoted(file))
        };
        let authorities = write("ca.pem", &ours.certificate)?;
        let server = ours.issue("aggregator", &[], &["localhost", "127.0.0.1"])?;
        let lines = format!(
            "certificate = {}\nkey = {}\nclient_authorities = {authorities}",
            write("server.pem", &server.certificate)?,
            write("server-key.pem", &server.key)?
        );
        let aggregator = AggregatorBuilder::new(test)?
            .set("identity", lines)
            .start_trusting(&folder.join("ca.pem"))
            .await?;
        let mut agents = Vec::new();
        // The name: the URI, else the one DNS name, else the common name.
        for (node, common_name, uris, names) in [
            ("by-uri", "x", vec!["picket://node/by-uri"], vec!["y.example.org"]),
            ("by-dns.example.org", "x", vec![], vec!["by-dns.example.org"]),
            ("by-cn", "by-cn", vec![], vec![]),
        ] {
            let leaf = ours.issue(common_name, &uris, &names)?;
            let section = format!(
                "certificate = {}\nkey = {}\nauthorities = {authorities}\n",
                write(&format!("{node}.pem"), &leaf.certificate)?,
                write(&format!("{node}-key.pem"), &leaf.key)?
            );
            let agent = AgentBuilder::new(test, node)?
                .aggregator(&aggregator.uplink())
                .own_identity(&section)
                .mock("200ms", "seed = 1")?;
            agents.push(agent.start().await?);
            aggregator.has("DCGM_FI_DEV_GPU_UTIL", &[("instance", node)]).await?;
        }
        // A revoked name stays out, whoever signed.
        aggregator.cli(&["node", "revoke", "by-cn"]).await?.ok()?;
        aggregator.connected("by-cn", false).await
    });
}
