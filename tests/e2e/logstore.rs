//! Log lines in the aggregator: pushed as shippers push them, brought by an agent made by hand, asked for as Grafana asks,
//! followed with the CLI; through kills and a full disk each line once.
//!
//! Another Loki cannot be had here: what a shipper sends is written by an encoder of this test's own after the public
//! `logproto.proto`, and our own push endpoint stands in for the Loki that is forwarded to.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::uplink::{self, Credentials, Stream, Token};
use e2e::{Aggregator, AggregatorBuilder, Daemon, Test, binary, eventually, run, run_within};
use picket_proto::model::LOG_LIFE;
use picket_proto::v1::uplink_message::Message as Up;
use picket_proto::v1::{self, downlink_message::Message as Down};
use prost::Message as _;
use serde_json::{Value, json};

use crate::durability::Disk;

/// `logproto.PushRequest`, as it is published.
#[derive(Clone, PartialEq, prost::Message)]
struct PushRequest {
    #[prost(message, repeated, tag = "1")]
    streams: Vec<StreamAdapter>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StreamAdapter {
    #[prost(string, tag = "1")]
    labels: String,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<EntryAdapter>,
    #[prost(uint64, tag = "3")]
    hash: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntryAdapter {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    line: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Timestamp {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// A client that sends what it is told to.
struct Loki {
    http: reqwest::Client,
    url: String,
    token: String,
}

struct Answer {
    status: u16,
    kind: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        ensure!(self.status == 200, "{} {}", self.status, self.body);
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

impl Loki {
    fn new(aggregator: &Aggregator, token: &str) -> Result<Self> {
        let pem = std::fs::read(aggregator.authority())?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(40))
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?)
            .build()?;
        Ok(Self { http, url: aggregator.api.url().to_owned(), token: token.to_owned() })
    }

    async fn push(&self, kind: &str, encoding: Option<&str>, body: Vec<u8>) -> Result<Answer> {
        let mut request = self
            .http
            .post(format!("{}/loki/api/v1/push", self.url))
            .bearer_auth(&self.token)
            .header("content-type", kind)
            .header("x-scope-orgid", "anybody");
        if let Some(encoding) = encoding {
            request = request.header("content-encoding", encoding);
        }
        answer(request.body(body)).await
    }

    async fn push_json(&self, labels: &Value, values: &Value) -> Result<Answer> {
        let body = json!({ "streams": [{ "stream": labels, "values": values }] });
        self.push("application/json", None, body.to_string().into_bytes()).await
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer> {
        let url = format!("{}/loki/api/v1/{path}", self.url);
        answer(self.http.get(url).bearer_auth(&self.token).query(query)).await
    }

    /// The lines of a query, oldest first.
    async fn lines(&self, query: &str) -> Result<Vec<String>> {
        let found = self
            .get("query_range", &[("query", query), ("limit", "5000"), ("direction", "forward")])
            .await?
            .json()?;
        let streams = found["data"]["result"].as_array().context("no result")?;
        let mut lines: Vec<(i64, String)> = Vec::new();
        for value in streams.iter().flat_map(|stream| stream["values"].as_array().into_iter().flatten()) {
            let time = value[0].as_str().and_then(|time| time.parse().ok()).context("no time")?;
            lines.push((time, value[1].as_str().context("no line")?.to_owned()));
        }
        lines.sort();
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    let kind =
        answer.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Answer { status, kind, body: answer.text().await? })
}

fn now_ns() -> i64 {
    uplink::now_ms() * 1_000_000
}

#[test]
fn what_shippers_push_is_found_as_grafana_asks() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let loki = Loki::new(&aggregator, &aggregator.api_token("operator").await?)?;
        let now = now_ns();

        // As promtail sends it: protobuf, snappy, labels as text.
        let entry = |at: i64, line: &str| EntryAdapter {
            timestamp: Some(Timestamp { seconds: at / 1_000_000_000, nanos: (at % 1_000_000_000) as i32 }),
            line: line.to_owned(),
        };
        let request = PushRequest {
            streams: vec![StreamAdapter {
                labels: r#"{container="vllm-llama3", job="docker"}"#.to_owned(),
                entries: vec![
                    entry(now - 3_000, "INFO ready"),
                    entry(now - 2_000, "ERROR CUDA out of memory"),
                    entry(now - 1_000, "ERROR giving up"),
                ],
                hash: 42,
            }],
        };
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?;
        let pushed = loki.push("application/x-protobuf", None, body.clone()).await?;
        ensure!(pushed.status == 204 && pushed.body.is_empty(), "{} {}", pushed.status, pushed.body);
        // It was sent again because the answer got lost.
        ensure!(loki.push("application/x-protobuf", Some("snappy"), body).await?.status == 204);

        // As Alloy's and other clients' JSON, gzipped.
        let text = json!({"streams": [{
            "stream": {"container": "web"},
            "values": [[(now - 500).to_string(), "{\"level\":\"error\",\"status\":503}", {"trace": "t"}],
                       [(now - 400).to_string(), "{\"level\":\"info\",\"status\":200}"]],
        }]});
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.to_string().as_bytes())?;
        let pushed = loki.push("application/json; charset=utf-8", Some("gzip"), gzip.finish()?).await?;
        ensure!(pushed.status == 204, "{} {}", pushed.status, pushed.body);

        let viewer = Loki::new(&aggregator, &aggregator.api_token("viewer").await?)?;
        let found = viewer
            .get("query_range", &[("query", r#"{container="vllm-llama3"} |= "ERROR""#), ("limit", "10")])
            .await?
            .json()?;
        ensure!(found["status"] == "success" && found["data"]["resultType"] == "streams", "{found}");
        let result = found["data"]["result"].as_array().context("no result")?;
        let want = json!([{
            "stream": {"container": "vllm-llama3", "job": "docker", "pushed_by": "operator"},
            "values": [[(now - 1_000).to_string(), "ERROR giving up"],
                       [(now - 2_000).to_string(), "ERROR CUDA out of memory"]],
        }]);
        ensure!(Value::from(result.clone()) == want, "{found}");
        ensure!(found["data"]["stats"]["summary"]["totalLinesProcessed"] == 3, "{found}");
        let parsed = r#"{container="web"} | json | status >= 500 and level="error""#;
        ensure!(viewer.lines(parsed).await?.len() == 1);

        let counted = viewer
            .get("query", &[("query", r#"sum by (container) (count_over_time({container=~".+"} [5m]))"#)])
            .await?
            .json()?;
        ensure!(counted["data"]["resultType"] == "vector", "{counted}");
        let vector = counted["data"]["result"].as_array().context("no vector")?;
        let values: Vec<(&Value, &Value)> =
            vector.iter().map(|one| (&one["metric"]["container"], &one["value"][1])).collect();
        ensure!(values == [(&json!("vllm-llama3"), &json!("3")), (&json!("web"), &json!("2"))], "{counted}");
        let health = viewer.get("query", &[("query", "vector(1)+vector(1)")]).await?.json()?;
        ensure!(health["data"]["result"][0]["value"][1] == "2", "{health}");
        let rates = viewer
            .get(
                "query_range",
                &[("query", r#"rate({container="web"}[1m])"#), ("since", "1m"), ("step", "10")],
            )
            .await?
            .json()?;
        ensure!(rates["data"]["resultType"] == "matrix", "{rates}");

        let names = viewer.get("labels", &[]).await?.json()?;
        ensure!(names == json!({"status": "success", "data": ["container", "job", "pushed_by"]}), "{names}");
        let values = viewer.get("label/container/values", &[]).await?.json()?;
        ensure!(values["data"] == json!(["vllm-llama3", "web"]), "{values}");
        let series = viewer.get("series", &[("match[]", r#"{container="web"}"#)]).await?.json()?;
        ensure!(series["data"] == json!([{"container": "web", "pushed_by": "operator"}]), "{series}");
        let stats = viewer.get("index/stats", &[("query", r#"{container="web"}"#)]).await?.json()?;
        ensure!(stats["entries"] == 2 && stats["streams"] == 1, "{stats}");

        // Grafana asks by POST with a form.
        let form = viewer
            .http
            .post(format!("{}/loki/api/v1/query_range", viewer.url))
            .bearer_auth(&viewer.token)
            .header("content-type", "application/x-www-form-urlencoded")
            .body("query=%7Bcontainer%3D%22web%22%7D+%7C%3D+%22503%22&limit=5");
        let found = answer(form).await?.json()?;
        ensure!(found["data"]["result"][0]["values"].as_array().map(Vec::len) == Some(1), "{found}");
        Ok(())
    });
}

#[test]
fn what_loki_refuses_is_refused_in_its_words() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let operator = Loki::new(&aggregator, &aggregator.api_token("operator").await?)?;
        let viewer = Loki::new(&aggregator, &aggregator.api_token("viewer").await?)?;
        let stranger = Loki::new(&aggregator, "no-token")?;
        let line = json!([[now_ns().to_string(), "x"]]);
        ensure!(viewer.push_json(&json!({"a": "b"}), &line).await?.status == 403);
        ensure!(stranger.push_json(&json!({"a": "b"}), &line).await?.status == 401);
        ensure!(stranger.get("labels", &[]).await?.status == 401);

        for (query, text) in [
            (r#"{a="b""#, "parse error at line 1, col 7: syntax error: unexpected $end, expecting } or ,\n"),
            ("{}", "parse error : queries require at least one regexp or equality matcher"),
            (
                r#"rate({a="b"} | json [5m]"#,
                "parse error at line 1, col 25: syntax error: unexpected $end, expecting )",
            ),
        ] {
            let refused = viewer.get("query_range", &[("query", query)]).await?;
            ensure!(
                refused.status == 400 && refused.kind.starts_with("text/plain"),
                "{} {}",
                refused.status,
                refused.kind
            );
            ensure!(refused.body.starts_with(text), "{query}: {}", refused.body);
        }
        for (path, query, status, text) in [
            (
                "query_range",
                vec![("query", r#"{a="b"}"#), ("limit", "5001")],
                400,
                "max entries limit per query exceeded",
            ),
            (
                "query_range",
                vec![("query", r#"{a="b"}"#), ("start", "2"), ("end", "1")],
                400,
                "end timestamp must not be before",
            ),
            (
                "query_range",
                vec![("query", r#"rate({a="b"}[1m])"#), ("step", "1ms")],
                400,
                "exceeded maximum resolution",
            ),
            (
                "query",
                vec![("query", r#"{a="b"}"#)],
                400,
                "log queries are not supported as an instant query type",
            ),
            (
                "tail",
                vec![("query", r#"{a="b"}"#), ("delay_for", "9")],
                400,
                "delay_for can't be greater than 5",
            ),
            ("nothing", vec![], 404, "there is nothing at"),
        ] {
            let refused = viewer.get(path, &query).await?;
            ensure!(
                refused.status == status && refused.body.contains(text),
                "{path}: {} {}",
                refused.status,
                refused.body
            );
        }
        for (kind, encoding, body, status) in [
            ("application/json", None, "{", 400),
            ("application/json", Some("br"), "{}", 415),
            ("text/plain", None, "a line", 415),
            ("application/x-protobuf", None, "no snappy", 400),
        ] {
            let refused = operator.push(kind, encoding, body.as_bytes().to_vec()).await?;
            ensure!(refused.status == status, "{kind} {body}: {} {}", refused.status, refused.body);
        }
        let old = json!([["1000000000000000000", "x"]]);
        let refused = operator.push_json(&json!({"a": "b"}), &old).await?;
        ensure!(
            refused.status == 400
                && refused
                    .body
                    .starts_with(r#"entry for stream '{a="b"}' has timestamp too old: 2001-09-09T"#),
            "{} {}",
            refused.status,
            refused.body
        );
        ensure!(operator.lines(r#"{a="b"}"#).await?.is_empty());
        Ok(())
    });
}

/// An agent made by hand that brings lines numbered 1, 2, 3 …, a batch each.
struct Shipper {
    credentials: Credentials,
    life: u64,
}

impl Shipper {
    async fn enrol(aggregator: &Aggregator, node: &str) -> Result<Self> {
        let token = Token::parse(&aggregator.enrolment_token(node).await?)?;
        let (_, credentials) =
            uplink::enrol(&aggregator.uplink(), &aggregator.authority(), &token.secret, node).await?;
        Ok(Self { credentials, life: LOG_LIFE | 77 })
    }

    /// A stream, and the last batch that the aggregator holds.
    async fn connect(&self, aggregator: &Aggregator) -> Result<(Stream, u64)> {
        let channel =
            uplink::connect(&aggregator.uplink(), &aggregator.authority(), Some(&self.credentials)).await?;
        let (stream, welcome) = Stream::hello(channel).await?;
        let mark = welcome.watermarks.iter().find(|mark| mark.life == self.life);
        Ok((stream, mark.map_or(0, |mark| mark.sequence)))
    }

    fn batch(&self, sequence: u64) -> Up {
        let label = |name: &str, value: &str| v1::Label { name: name.to_owned(), value: value.to_owned() };
        Up::Batch(v1::Batch {
            sequence,
            life: self.life,
            logs: vec![v1::LogStream {
                labels: vec![label("container", "x"), label("node", "somebody-else")],
                timestamps_ns: vec![now_ns(), now_ns()],
                lines: vec![format!("line {sequence} a"), format!("line {sequence} b")],
            }],
            ..v1::Batch::default()
        })
    }
}

#[test]
fn killed_while_lines_arrive_each_acknowledged_line_is_there_once() {
    run_within(Duration::from_secs(300), async |test: &Test| {
        let mut aggregator = test.aggregator().await?;
        let shipper = Shipper::enrol(&aggregator, "gpu-1").await?;
        let mut acknowledged = 0;
        let mut sent = 0;
        for round in 0..12u64 {
            let (mut stream, mark) = shipper.connect(&aggregator).await?;
            ensure!(
                mark >= acknowledged,
                "the aggregator forgot what it had acknowledged: {mark} < {acknowledged}"
            );
            // Everything after its mark again, and more; killed after some acknowledgements, with others on their way.
            sent = sent.max(mark + 40);
            let until = mark + 5 + round * 3;
            let mut next = mark;
            while acknowledged < until {
                while next < sent && next < acknowledged.max(mark) + 32 {
                    next += 1;
                    stream.send(shipper.batch(next)).await?;
                }
                if let Down::Ack(ack) = stream.next().await? {
                    ensure!(ack.life == shipper.life, "{ack:?}");
                    acknowledged = acknowledged.max(ack.sequence);
                }
            }
            aggregator.restart(test).await?;
        }
        let (mut stream, mark) = shipper.connect(&aggregator).await?;
        for sequence in mark + 1..=sent {
            stream.send(shipper.batch(sequence)).await?;
        }
        // One that it has already.
        stream.send(shipper.batch(1)).await?;
        if mark < sent {
            stream.acknowledged(shipper.life, sent).await?;
        }
        let loki = Loki::new(&aggregator, aggregator.token())?;
        let lines = loki.lines(r#"{node="gpu-1", instance="gpu-1", container="x"}"#).await?;
        let found: BTreeSet<&String> = lines.iter().collect();
        ensure!(found.len() == lines.len(), "{} lines stand twice", lines.len() - found.len());
        let want: BTreeSet<String> =
            (1..=sent).flat_map(|n| [format!("line {n} a"), format!("line {n} b")]).collect();
        let missing: Vec<&String> = want.iter().filter(|line| !found.contains(line)).collect();
        ensure!(
            missing.is_empty() && found.len() == want.len(),
            "{} of {} are missing: {missing:?}",
            missing.len(),
            want.len()
        );
        ensure!(loki.lines(r#"{node="somebody-else"}"#).await?.is_empty(), "an agent spoke for another node");
        Ok(())
    });
}

#[test]
fn while_the_disk_is_full_no_line_is_acknowledged() {
    run(async |test: &Test| {
        let folder = test.folder().join("aggregator/state");
        let Some(disk) = Disk::mount(&folder, "16m")? else { return Ok(()) };
        let mut aggregator = test.aggregator().await?;
        let shipper = Shipper::enrol(&aggregator, "gpu-1").await?;
        let (mut stream, _) = shipper.connect(&aggregator).await?;
        stream.send(shipper.batch(1)).await?;
        stream.acknowledged(shipper.life, 1).await?;
        let loki = Loki::new(&aggregator, aggregator.token())?;
        disk.fill()?;
        // More than fits into what is left of a page.
        const LAST: u64 = 60;
        for sequence in 2..=LAST {
            stream.send(shipper.batch(sequence)).await?;
        }
        eventually("the store says that it is stalled", || async {
            let stalled = aggregator.api.json("/api/v1/status").await?["logs"]["stalled"].clone();
            ensure!(stalled.as_str().is_some_and(|text| text.contains("cannot")), "{stalled}");
            Ok(())
        })
        .await?;
        let refused = loki.push_json(&json!({"a": "b"}), &json!([[now_ns().to_string(), "x"]])).await?;
        ensure!(refused.status == 503, "{} {}", refused.status, refused.body);
        let told = loki.lines(r#"{container="x"}"#).await?.len() as u64;
        ensure!((2..2 * LAST).contains(&told), "{told} lines are told");
        disk.free()?;
        stream.acknowledged(shipper.life, LAST).await?;
        let lines = loki.lines(r#"{container="x"}"#).await?;
        let found: BTreeSet<&String> = lines.iter().collect();
        ensure!(lines.len() as u64 == 2 * LAST && found.len() == lines.len(), "{} lines", lines.len());
        aggregator.daemon.kill()?;
        drop(disk);
        Ok(())
    });
}

#[test]
fn the_cli_finds_lines_and_follows_them() {
    run(async |test: &Test| {
        let aggregator = test.aggregator().await?;
        let loki = Loki::new(&aggregator, &aggregator.api_token("operator").await?)?;
        let push = async |line: &str| {
            let pushed =
                loki.push_json(&json!({"container": "x"}), &json!([[now_ns().to_string(), line]])).await?;
            ensure!(pushed.status == 204, "{}", pushed.body);
            anyhow::Ok(())
        };
        push("first ERROR").await?;
        push("noise").await?;
        let query = r#"{container="x"} |= "ERROR""#;
        let text = aggregator.cli(&["logs", query, "--since", "5m"]).await?.ok()?;
        ensure!(text.lines().count() == 1 && text.trim_end().ends_with("  first ERROR"), "{text}");
        let found = aggregator.cli_json(&["logs", r#"{container="x"}"#, "--limit", "1"]).await?;
        ensure!(
            found["lines"][0]["line"] == "noise" && found["lines"][0]["labels"]["container"] == "x",
            "{found}"
        );
        aggregator.cli(&["logs", "{"]).await?.refused(&["parse error at line 1, col 2"])?;
        let counted =
            aggregator.cli(&["logs", r#"sum(count_over_time({container="x"}[5m]))"#]).await?.ok()?;
        ensure!(counted.contains("VALUE") && counted.trim_end().ends_with('2'), "{counted}");

        let mut command = Command::new(binary("picket")?);
        command
            .args(["logs", query, "--follow"])
            .env("PICKET_URL", aggregator.api.url())
            .env("PICKET_TOKEN", aggregator.token())
            .env("PICKET_CA", aggregator.authority());
        let mut following = Daemon::start(test, "follow", &mut command)?;
        eventually("the history", || async {
            ensure!(following.log().contains("first ERROR"), "{}", following.log());
            Ok(())
        })
        .await?;
        for number in 0..20 {
            push(&format!("ERROR {number:02}")).await?;
            push("noise").await?;
        }
        eventually("what came after it", || async {
            ensure!(following.log().contains("ERROR 19"), "{}", following.log());
            Ok(())
        })
        .await?;
        let log = following.log();
        let told: Vec<&str> = log.lines().filter_map(|line| line.rsplit("  ").next()).collect();
        let want: Vec<String> = std::iter::once("first ERROR".to_owned())
            .chain((0..20).map(|n| format!("ERROR {n:02}")))
            .collect();
        ensure!(told == want, "{log}");
        // The aggregator stops in order though somebody follows.
        let mut aggregator = aggregator;
        let status = aggregator.daemon.stop(Duration::from_secs(20)).await?;
        ensure!(status.success(), "{status}");
        let ended = following.wait(Duration::from_secs(20)).await?;
        ensure!(
            !ended.success() && following.log().contains("the aggregator is stopping"),
            "{}",
            following.log()
        );
        Ok(())
    });
}

#[test]
fn everything_is_forwarded_to_another_loki_for_which_our_own_push_endpoint_stands_in() {
    run_within(Duration::from_secs(240), async |test: &Test| {
        let mut second = AggregatorBuilder::new(test)?.named("second").start().await?;
        let token = test.folder().join("forward.token");
        std::fs::write(&token, second.api_token("operator").await?)?;
        let mut first = AggregatorBuilder::new(test)?
            .set("logs.forward", format!("url = \"{}\"", second.api.url()))
            .set("logs.forward", format!("bearer_file = {}", e2e::quoted(&token)))
            .set("logs.forward", format!("authorities = {}", e2e::quoted(second.authority())))
            .start()
            .await?;
        let loki = Loki::new(&first, &first.api_token("operator").await?)?;
        let there = Loki::new(&second, second.token())?;
        let mut count = 0;
        let mut push = async |lines: usize| {
            for _ in 0..lines {
                count += 1;
                let value = json!([[now_ns().to_string(), format!("line {count:04}")]]);
                let pushed = loki.push_json(&json!({"job": "j"}), &value).await?;
                ensure!(pushed.status == 204, "{}", pushed.body);
            }
            anyhow::Ok(count)
        };
        let all_there = async |count: usize| {
            eventually("all lines at the other one", || async {
                let lines: BTreeSet<String> = there.lines(r#"{job="j"}"#).await?.into_iter().collect();
                let want: BTreeSet<String> = (1..=count).map(|n| format!("line {n:04}")).collect();
                ensure!(lines == want, "{} of {} lines", lines.len(), want.len());
                Ok(())
            })
            .await
        };
        all_there(push(10).await?).await?;
        // The other one is away for a while, and this one is killed meanwhile.
        second.daemon.kill()?;
        push(10).await?;
        first.restart(test).await?;
        let count = push(10).await?;
        second.restart(test).await?;
        all_there(count).await?;
        if there.lines(r#"{pushed_by!="operator", job="j"}"#).await? != [""; 0] {
            bail!("the other one does not know who forwarded");
        }
        Ok(())
    });
}
