use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use picket_proto::columns::{CODEC, Encoder};
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, MetricType, NodeId, Part};
use picket_proto::v1::downlink_message::Message as Down;
use picket_proto::v1::uplink_client::UplinkClient;
use picket_proto::v1::uplink_message::Message as Up;
use picket_proto::v1::{self, UplinkMessage};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{Admission, CommandError, EventSink, Options, Peer, Renewed, RolloutSink, UplinkService};
use crate::clock::Clock;
use crate::log::{ExportFilter, Log, LogOptions};
use crate::logs::LogStore;
use crate::store::{Format, Store, StoreOptions};

const LIFE: u64 = 11;

/// Admits whoever comes as the node that is set.
struct Door {
    node: Mutex<String>,
    revoked: CancellationToken,
    not_after: Mutex<SystemTime>,
}

impl Admission for Door {
    fn admit(&self, _: &[CertificateDer<'_>]) -> Result<Peer, Status> {
        let node =
            NodeId::new(&self.node.lock().unwrap()).map_err(|_| Status::unauthenticated("no certificate"))?;
        let not_after = *self.not_after.lock().unwrap();
        Ok(Peer { node, serial: "01".into(), not_after, revoked: self.revoked.clone() })
    }

    fn renew(&self, _: &Peer, csr: &[u8]) -> Result<Renewed, String> {
        if csr.is_empty() {
            return Err("no request".into());
        }
        let not_after = SystemTime::now() + Duration::from_secs(7200);
        Ok(Renewed { certificates: vec![csr.to_vec()], authorities: vec![vec![1]], not_after })
    }
}

#[derive(Default)]
struct Events {
    seen: Mutex<Vec<(u64, u64, usize)>>,
    broken: AtomicBool,
}

impl EventSink for Events {
    fn record(&self, _: &NodeId, life: u64, sequence: u64, events: &[v1::Event]) -> Result<(), String> {
        if self.broken.load(Ordering::SeqCst) {
            return Err("the database is away".into());
        }
        self.seen.lock().unwrap().push((life, sequence, events.len()));
        Ok(())
    }
}

/// An aggregator behind in-memory connections.
struct Rig {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    log: Arc<Log>,
    door: Arc<Door>,
    events: Arc<Events>,
    logs: Arc<LogStore>,
    service: UplinkService,
    connections: mpsc::Sender<std::io::Result<tokio::io::DuplexStream>>,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(StoreOptions::default());
        let (log, _) =
            Log::open(LogOptions { dir: dir.path().join("log"), ..LogOptions::default() }).unwrap();
        let door = Arc::new(Door {
            node: Mutex::new("n1".into()),
            revoked: CancellationToken::new(),
            not_after: Mutex::new(SystemTime::now() + Duration::from_secs(3600)),
        });
        let events = Arc::new(Events::default());
        let mut options = Options::default();
        change(&mut options);
        let lines = crate::logs::Options { dir: dir.path().join("logs"), ..crate::logs::Options::default() };
        let (logs, _) = LogStore::open(lines).unwrap();
        let sink = Arc::new(Arc::clone(&logs));
        let service =
            UplinkService::new(store.clone(), log.clone(), door.clone(), events.clone(), sink, options);
        let (connections, incoming) = mpsc::channel(8);
        let server = tonic::transport::Server::builder().add_service(service.server());
        tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        Self { dir, store, log, door, events, logs, service, connections }
    }

    async fn open(&self) -> Result<Agent, Status> {
        let connections = self.connections.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let connections = connections.clone();
            async move {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                connections.send(Ok(theirs)).await.map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(ours))
            }
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://aggregator");
        let channel =
            endpoint.connect_with_connector(connector).await.map_err(|e| Status::unknown(e.to_string()))?;
        let (up, receiver) = mpsc::channel(64);
        let down = UplinkClient::new(channel).stream(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Agent { up: Some(up), down, encoder: Encoder::new() })
    }

    /// A stream that has been welcomed; gives the watermarks too.
    async fn agent(&self) -> (Agent, Vec<(u64, u64)>) {
        let mut agent = self.open().await.unwrap();
        agent.say(Up::Hello(hello())).await;
        match agent.hear().await {
            Some(Down::Welcome(welcome)) => {
                assert_eq!((welcome.node.as_str(), welcome.codec), ("n1", CODEC));
                (agent, welcome.watermarks.iter().map(|m| (m.life, m.sequence)).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    fn text(&self) -> String {
        let bytes: Vec<u8> =
            self.store.exposition(Format::Text, vec![], Clock::system().now_ms()).flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    fn logged(&self) -> Vec<f64> {
        self.log.export(ExportFilter::default()).map(|row| row.value).collect()
    }
}

struct Agent {
    up: Option<mpsc::Sender<UplinkMessage>>,
    down: Streaming<v1::DownlinkMessage>,
    encoder: Encoder,
}

impl Agent {
    async fn say(&self, message: Up) {
        // A stream that the aggregator has ended takes nothing more: what it said last is what matters then.
        let _ = self.up.as_ref().unwrap().send(UplinkMessage { message: Some(message) }).await;
    }

    /// `None`: the stream has ended.
    async fn hear(&mut self) -> Option<Down> {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.down.message());
        heard.await.expect("nothing was said").ok().flatten().map(|m| m.message.unwrap())
    }

    async fn begin(&mut self, life: u64) {
        self.encoder = Encoder::new();
        self.say(Up::Life(v1::Life { life })).await;
        self.say(Up::Definitions(definitions("g", MetricType::Gauge))).await;
    }

    fn batch(&mut self, sequence: u64, series: &[u32], values: &[f64]) -> v1::Batch {
        let mut bytes = Vec::new();
        self.encoder.encode(Clock::system().now_ms(), series, values, None, &mut bytes).unwrap();
        v1::Batch { sequence, columns: vec![bytes.into()], ..v1::Batch::default() }
    }

    async fn send(&mut self, sequence: u64, series: &[u32], values: &[f64]) {
        let batch = self.batch(sequence, series, values);
        self.say(Up::Batch(batch)).await;
    }

    async fn acknowledged(&mut self, life: u64, sequence: u64) {
        loop {
            match self.hear().await {
                Some(Down::Ack(ack)) if ack.life == life && ack.sequence == sequence => return,
                Some(Down::Ack(ack)) => assert!(ack.sequence < sequence || ack.life != life, "{ack:?}"),
                other => panic!("{other:?}"),
            }
        }
    }

    async fn goodbye(&mut self) -> (String, String) {
        loop {
            match self.hear().await {
                Some(Down::Goodbye(goodbye)) => {
                    assert_eq!(self.hear().await, None, "the stream ends after Goodbye");
                    return (goodbye.reason, goodbye.message);
                }
                Some(_) => {}
                None => panic!("the stream ended without Goodbye"),
            }
        }
    }
}

fn hello() -> v1::Hello {
    v1::Hello {
        agent_version: "0.1".into(),
        codecs: vec![CODEC],
        now_ms: Clock::system().now_ms(),
        ..v1::Hello::default()
    }
}

/// Two series of one family, numbers 0 and 1.
fn definitions(name: &str, metric_type: MetricType) -> v1::Definitions {
    let mut builder = Builder::new();
    builder.family(0, "test", &Family::new(name, metric_type, "", "Help.").unwrap());
    builder.series(0, 0, Part::Value, [("s", "0")].into_iter());
    builder.series(1, 0, Part::Value, [("s", "1")].into_iter());
    builder.finish()
}

async fn wait_for(mut ready: impl FnMut() -> bool, what: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !ready() {
        assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_batch_is_acknowledged_when_durable_and_exposed() {
    let rig = Rig::new();
    let (mut agent, marks) = rig.agent().await;
    assert_eq!(marks, []);
    agent.begin(LIFE).await;
    for sequence in 1..=50 {
        agent.send(sequence, &[0, 1], &[sequence as f64, 0.5]).await;
    }
    agent.acknowledged(LIFE, 50).await;
    let mark = &rig.log.watermarks(&NodeId::new("n1").unwrap())[0];
    assert_eq!((mark.life, mark.sequence), (LIFE, 50));
    let text = rig.text();
    assert!(text.contains("g{instance=\"n1\",s=\"0\"} 50\n"), "{text}");
    assert!(text.contains("picket_node_up{instance=\"n1\",node=\"n1\"} 1\n"), "{text}");
    assert_eq!(rig.logged().len(), 100);
    let status = rig.service.node("n1").unwrap();
    assert_eq!((status.connected, status.series, status.samples_total), (true, 2, 100));
    // The agent ends its side with a batch on its way: it still gets its acknowledgement, then the end.
    agent.send(51, &[0], &[1.0]).await;
    agent.up = None;
    agent.acknowledged(LIFE, 51).await;
    assert_eq!(agent.hear().await, None);
    wait_for(|| !rig.service.node("n1").unwrap().connected, "the node to be disconnected").await;
    assert!(rig.text().contains("picket_node_up{instance=\"n1\",node=\"n1\"} 0\n"));
}

#[tokio::test]
async fn replayed_batches_count_once_and_are_acknowledged_again() {
    let rig = Rig::new();
    let (mut agent, _) = rig.agent().await;
    agent.begin(LIFE).await;
    for sequence in 1..=5 {
        agent.send(sequence, &[0], &[sequence as f64]).await;
    }
    agent.acknowledged(LIFE, 5).await;
    drop(agent);
    let (mut agent, marks) = rig.agent().await;
    assert_eq!(marks, [(LIFE, 5)]);
    agent.begin(LIFE).await;
    // Decoded although dropped: the codec's state must fit for the new one after them.
    for sequence in 3..=7 {
        agent.send(sequence, &[0], &[sequence as f64]).await;
    }
    agent.acknowledged(LIFE, 7).await;
    assert_eq!(rig.logged(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    // Another life begins at 1 again.
    agent.begin(LIFE + 1).await;
    agent.send(1, &[0], &[8.0]).await;
    agent.acknowledged(LIFE + 1, 1).await;
    assert_eq!(rig.logged().len(), 8);
    // The watermarks outlive the process.
    drop(agent);
    rig.service.shutdown();
    rig.log.close();
    let (log, _) =
        Log::open(LogOptions { dir: rig.dir.path().join("log"), ..LogOptions::default() }).unwrap();
    assert_eq!(log.watermarks(&NodeId::new("n1").unwrap()).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn streams_that_race_count_each_batch_once() {
    let rig = Arc::new(Rig::new());
    let mut racers = Vec::new();
    for _ in 0..4 {
        let rig = Arc::clone(&rig);
        racers.push(tokio::spawn(async move {
            // Each new stream replaces the others; a racer that was replaced connects again, as an agent does.
            for _ in 0..200 {
                let Ok(mut agent) = rig.open().await else { continue };
                agent.say(Up::Hello(hello())).await;
                if !matches!(agent.hear().await, Some(Down::Welcome(_))) {
                    continue;
                }
                agent.begin(LIFE).await;
                for sequence in 1..=100 {
                    agent.send(sequence, &[0, 1], &[sequence as f64, 0.0]).await;
                }
                while let Some(Down::Ack(ack)) = agent.hear().await {
                    if ack.sequence == 100 {
                        return;
                    }
                }
            }
            panic!("never acknowledged");
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let want: Vec<f64> = (1..=100).flat_map(|q| [f64::from(q), 0.0]).collect();
    assert_eq!(rig.logged(), want);
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_stream_and_says_why() {
    let check = async |messages: VecDeque<Up>, want: &str| {
        let rig = Rig::new();
        let mut agent = rig.open().await.unwrap();
        for message in messages {
            agent.say(message).await;
        }
        let (reason, message) = agent.goodbye().await;
        assert_eq!(reason, "protocol", "{message}");
        assert!(message.contains(want), "{message:?} does not say {want:?}");
        assert_eq!(rig.logged().len(), 0);
    };
    let life = || Up::Life(v1::Life { life: LIFE });
    let batch = |sequence, series: &[u32]| {
        let mut bytes = Vec::new();
        Encoder::new().encode(1, series, &vec![0.0; series.len()], None, &mut bytes).unwrap();
        Up::Batch(v1::Batch { sequence, columns: vec![bytes.into()], ..v1::Batch::default() })
    };
    let hi = || Up::Hello(hello());
    let good = || Up::Definitions(definitions("g", MetricType::Gauge));
    let orphan = {
        let mut builder = Builder::new();
        builder.series(0, 9, Part::Value, std::iter::empty());
        Up::Definitions(builder.finish())
    };
    let malformed =
        Up::Definitions(v1::Definitions { strings: vec![], families: vec![1, 2], series: vec![] });
    let garbage =
        Up::Batch(v1::Batch { sequence: 1, columns: vec![vec![0xff; 40].into()], ..v1::Batch::default() });
    check([life()].into(), "Hello").await;
    check([hi(), hi()].into(), "twice").await;
    check([Up::Hello(v1::Hello { codecs: vec![99], ..hello() })].into(), "codecs [99]").await;
    check([hi(), batch(1, &[0])].into(), "before Life").await;
    check([hi(), good()].into(), "before Life").await;
    check([hi(), life(), batch(1, &[0])].into(), "series 0").await;
    check([hi(), life(), good(), batch(1, &[0, 2])].into(), "series 2").await;
    check([hi(), life(), good(), life(), batch(1, &[0])].into(), "series 0").await;
    check([hi(), life(), good(), batch(0, &[0])].into(), "sequences begin at 1").await;
    check([hi(), life(), orphan].into(), "family 9").await;
    check([hi(), life(), malformed].into(), "").await;
    check([hi(), life(), good(), garbage].into(), "").await;
}

#[tokio::test]
async fn a_type_clash_costs_its_samples_alone() {
    let rig = Rig::new();
    let (mut first, _) = rig.agent().await;
    first.begin(LIFE).await;
    first.send(1, &[0], &[1.0]).await;
    first.acknowledged(LIFE, 1).await;
    *rig.door.node.lock().unwrap() = "n2".into();
    let mut second = rig.open().await.unwrap();
    second.say(Up::Hello(hello())).await;
    assert!(matches!(second.hear().await, Some(Down::Welcome(_))));
    second.say(Up::Life(v1::Life { life: 5 })).await;
    second.say(Up::Definitions(definitions("g", MetricType::Counter))).await;
    second.send(1, &[0, 1], &[2.0, 3.0]).await;
    second.acknowledged(5, 1).await;
    assert_eq!(rig.logged(), [1.0]);
    assert!(!rig.text().contains("g{instance=\"n2\""));
}

#[tokio::test]
async fn retired_series_are_absent_and_their_numbers_can_be_defined_again() {
    let rig = Rig::new();
    let (mut agent, _) = rig.agent().await;
    agent.begin(LIFE).await;
    let mut batch = agent.batch(1, &[0, 1], &[1.0, 2.0]);
    batch.retired = vec![1, 77];
    agent.encoder.forget(&batch.retired);
    agent.say(Up::Batch(batch)).await;
    agent.acknowledged(LIFE, 1).await;
    assert!(rig.text().contains("s=\"0\"} 1\n") && !rig.text().contains("s=\"1\""), "{}", rig.text());
    agent.say(Up::Definitions(definitions("h", MetricType::Gauge))).await;
    agent.send(2, &[1], &[3.0]).await;
    agent.acknowledged(LIFE, 2).await;
    assert!(rig.text().contains("h{instance=\"n1\",s=\"1\"} 3\n"), "{}", rig.text());
    // A batch of nothing is acknowledged too.
    agent.say(Up::Batch(v1::Batch { sequence: 3, ..v1::Batch::default() })).await;
    agent.acknowledged(LIFE, 3).await;
}

#[tokio::test]
async fn events_are_kept_before_the_batch_is_acknowledged() {
    let rig = Rig::new();
    rig.events.broken.store(true, Ordering::SeqCst);
    let (mut agent, _) = rig.agent().await;
    agent.begin(LIFE).await;
    let mut batch = agent.batch(1, &[0], &[1.0]);
    batch.events = vec![v1::Event { kind: "xid".into(), ..v1::Event::default() }; 2];
    agent.say(Up::Batch(batch)).await;
    agent.send(2, &[0], &[2.0]).await;
    let silent = tokio::time::timeout(Duration::from_millis(200), agent.down.message()).await;
    assert!(silent.is_err(), "nothing is acknowledged while events can't be kept: {silent:?}");
    assert_eq!(rig.logged().len(), 0);
    rig.events.broken.store(false, Ordering::SeqCst);
    agent.acknowledged(LIFE, 2).await;
    assert_eq!(*rig.events.seen.lock().unwrap(), [(LIFE, 1, 2)]);
    assert_eq!(rig.logged(), [1.0, 2.0]);
}

#[tokio::test]
async fn a_log_that_refuses_holds_acknowledgements_back() {
    let rig = Rig::new();
    let (mut agent, _) = rig.agent().await;
    agent.begin(LIFE).await;
    let (here, away) = (rig.dir.path().join("log"), rig.dir.path().join("away"));
    std::fs::rename(&here, &away).unwrap();
    agent.send(1, &[0], &[1.0]).await;
    wait_for(|| rig.log.status().stalled.is_some(), "the log to stall").await;
    // Another stream replays what isn't acknowledged: accepted, so not taken twice; not durable, so not acknowledged.
    let (mut again, marks) = rig.agent().await;
    assert_eq!(marks, []);
    again.begin(LIFE).await;
    again.send(1, &[0], &[1.0]).await;
    again.send(2, &[0], &[2.0]).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), again.down.message()).await.is_err());
    std::fs::rename(&away, &here).unwrap();
    again.acknowledged(LIFE, 2).await;
    assert_eq!(rig.logged(), [1.0, 2.0]);
}

#[tokio::test]
async fn streams_end_when_replaced_revoked_expired_or_silent() {
    let clock = Clock::manual(Clock::system().now_ms());
    let rig = Rig::with(|options| options.clock = clock.clone());
    let (mut first, _) = rig.agent().await;
    let (mut second, _) = rig.agent().await;
    assert_eq!(first.goodbye().await.0, "replaced");
    let mut stalled = rig.open().await.unwrap();
    clock.advance(Duration::from_secs(11));
    assert_eq!(stalled.goodbye().await.0, "protocol");
    // A renewed certificate moves the end of the stream.
    second.say(Up::Renew(v1::RenewRequest { csr: vec![] })).await;
    assert!(matches!(second.hear().await, Some(Down::Renew(r)) if r.refused == "no request"));
    second.say(Up::Renew(v1::RenewRequest { csr: vec![7] })).await;
    assert!(matches!(second.hear().await, Some(Down::Renew(r)) if r.certificates == [vec![7]]));
    clock.advance(Duration::from_secs(3700));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    second.begin(LIFE).await;
    second.send(1, &[0], &[1.0]).await;
    second.acknowledged(LIFE, 1).await;
    clock.advance(Duration::from_secs(3700));
    assert_eq!(second.goodbye().await.0, "expired");
    *rig.door.not_after.lock().unwrap() = SystemTime::now() + Duration::from_secs(1_000_000);
    let (mut third, _) = rig.agent().await;
    rig.door.revoked.cancel();
    assert_eq!(third.goodbye().await.0, "revoked");
    *rig.door.node.lock().unwrap() = String::new();
    assert_eq!(rig.open().await.err().map(|s| s.code()), Some(Code::Unauthenticated));
    rig.service.shutdown();
    assert_eq!(rig.open().await.err().map(|s| s.code()), Some(Code::Unavailable));
}

#[tokio::test]
async fn commands_are_answered_or_say_why_not() {
    let rig = Rig::with(|options| options.command_timeout = Duration::from_millis(300));
    let node = NodeId::new("n1").unwrap();
    let get = || v1::command::Command::ControlGet(v1::ControlGet::default());
    assert_eq!(rig.service.command(&node, get()).await, Err(CommandError::NotConnected(node.clone())));
    let (mut agent, _) = rig.agent().await;
    let service = rig.service.clone();
    let asked = tokio::spawn(async move { service.command(&NodeId::new("n1").unwrap(), get()).await });
    let Some(Down::Command(command)) = agent.hear().await else { panic!("no command") };
    let result = Some(v1::command_result::Result::Json("{}".into()));
    agent.say(Up::CommandResult(v1::CommandResult { id: command.id, result })).await;
    assert_eq!(asked.await.unwrap(), Ok(v1::command_result::Result::Json("{}".into())));
    assert!(matches!(rig.service.command(&node, get()).await, Err(CommandError::Timeout { .. })));
    let service = rig.service.clone();
    let asked = tokio::spawn(async move { service.command(&NodeId::new("n1").unwrap(), get()).await });
    // The first is the one that was given up on, if it was sent at all.
    while !matches!(agent.hear().await, Some(Down::Command(_))) {}
    drop(agent);
    let outcome = asked.await.unwrap();
    assert!(
        matches!(outcome, Err(CommandError::Disconnected(_) | CommandError::Timeout { .. })),
        "{outcome:?}"
    );
    // What agents say of themselves.
    let (agent, _) = rig.agent().await;
    agent.say(Up::Loss(v1::Loss { reason: "cap".into(), records: 3 })).await;
    let plugin = v1::PluginState { id: "node".into(), state: "running".into(), ..v1::PluginState::default() };
    agent.say(Up::Plugins(v1::PluginReport { plugins: vec![plugin] })).await;
    wait_for(|| rig.service.node("n1").unwrap().plugins.len() == 1, "the report").await;
    assert_eq!(rig.service.nodes()[0].losses["cap"], 3);
}

/// A batch of log lines alone, or with samples.
fn with_lines(batch: v1::Batch, lines: &[&str]) -> v1::Batch {
    let label = v1::Label { name: "container".into(), value: "x".into() };
    let stream = v1::LogStream {
        labels: vec![label],
        timestamps_ns: lines.iter().map(|_| Clock::system().now_ms() * 1_000_000).collect(),
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
    };
    v1::Batch { logs: vec![stream], ..batch }
}

fn lines(rig: &Rig) -> Vec<String> {
    let query = crate::logs::query::LogQuery {
        log: crate::logs::logql::parse_log(r#"{node="n1"}"#).unwrap(),
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        direction: crate::logs::query::Direction::Forward,
        limit: 1000,
    };
    let budget = crate::logs::query::Budget::new(Duration::from_secs(20), u64::MAX);
    let found = rig.logs.lines(&query, &budget).unwrap();
    found.streams.iter().flat_map(|stream| &stream.lines).map(|(_, line)| line.to_string()).collect()
}

#[tokio::test]
async fn log_lines_are_durable_before_their_acknowledgement_and_kept_once() {
    let rig = Rig::new();
    let (mut agent, _) = rig.agent().await;
    agent.begin(LIFE).await;
    // With samples, of the stream's life.
    let batch = agent.batch(1, &[0], &[1.0]);
    agent.say(Up::Batch(with_lines(batch, &["with a sample"]))).await;
    agent.acknowledged(LIFE, 1).await;
    // Of the life of the agent's log queue.
    let life = picket_proto::model::LOG_LIFE | 5;
    let alone = |sequence| v1::Batch { sequence, life, ..v1::Batch::default() };
    for _ in 0..2 {
        agent.say(Up::Batch(with_lines(alone(1), &["alone", "and another"]))).await;
    }
    agent.say(Up::Batch(with_lines(alone(2), &["last"]))).await;
    agent.acknowledged(life, 2).await;
    assert_eq!(lines(&rig), ["with a sample", "alone", "and another", "last"]);
    assert!(rig.text().contains("g{instance=\"n1\",s=\"0\"} 1\n"));
    let marks = rig.log.watermarks(&NodeId::new("n1").unwrap());
    assert!(marks.iter().any(|mark| mark.life == life && mark.sequence == 2), "{marks:?}");
}

#[tokio::test]
async fn lines_that_were_kept_before_a_crash_of_the_log_are_not_kept_again() {
    let rig = Rig::new();
    let life = picket_proto::model::LOG_LIFE | 5;
    // Durable in the store of lines, and the aggregator died before the log had the batch.
    let batch = with_lines(v1::Batch::default(), &["once"]);
    rig.logs.record(&NodeId::new("n1").unwrap(), life, 1, batch.logs).await.unwrap();
    let (mut agent, marks) = rig.agent().await;
    assert_eq!(marks, []);
    let batch = v1::Batch { sequence: 1, life, ..v1::Batch::default() };
    agent.say(Up::Batch(with_lines(batch, &["once"]))).await;
    agent.acknowledged(life, 1).await;
    assert_eq!(lines(&rig), ["once"]);
}

#[tokio::test]
async fn a_stream_ends_without_an_acknowledgement_when_lines_cannot_be_kept() {
    let rig = Rig::new();
    let (mut agent, _) = rig.agent().await;
    rig.logs.close();
    let life = picket_proto::model::LOG_LIFE | 5;
    for sequence in 1..=3 {
        let batch = v1::Batch { sequence, life, ..v1::Batch::default() };
        agent.say(Up::Batch(with_lines(batch, &["lost?"]))).await;
    }
    assert_eq!(agent.hear().await, None);
    assert_eq!(rig.log.watermarks(&NodeId::new("n1").unwrap()), []);
}

/// Offers one plugin of four bytes to everybody.
#[derive(Default)]
struct Shop {
    said: Mutex<Vec<v1::OfferState>>,
    /// Pieces take as long as this is set.
    slow: AtomicBool,
}

fn offered(attempt: u32) -> v1::PluginOffers {
    let offer = v1::PluginOffer { plugin: "count".into(), attempt, size: 4, ..v1::PluginOffer::default() };
    v1::PluginOffers { offers: vec![offer] }
}

impl RolloutSink for Shop {
    fn offers(&self, _: &NodeId) -> v1::PluginOffers {
        offered(1)
    }

    fn said(&self, node: &NodeId, report: v1::OfferReport) {
        assert_eq!(node.as_str(), "n1");
        self.said.lock().unwrap().extend(report.offers);
    }

    fn chunk(&self, _: &NodeId, fetch: &v1::PluginFetch) -> v1::PluginChunk {
        while self.slow.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let content = fetch.offset.to_le_bytes()[..1].to_vec();
        v1::PluginChunk {
            digest: fetch.digest.clone(),
            offset: fetch.offset,
            content,
            refused: String::new(),
        }
    }
}

#[tokio::test]
async fn plugins_are_offered_and_given_piece_by_piece() {
    let rig = Rig::new();
    let shop = Arc::new(Shop::default());
    rig.service.set_rollouts(shop.clone());
    let n1 = NodeId::new("n1").unwrap();
    let (mut agent, _) = rig.agent().await;
    assert_eq!(agent.hear().await, Some(Down::Offers(offered(1))));
    rig.service.offer(&n1, offered(2));
    assert_eq!(agent.hear().await, Some(Down::Offers(offered(2))));
    rig.service.offer(&n1, v1::PluginOffers::default());
    assert_eq!(agent.hear().await, Some(Down::Offers(v1::PluginOffers::default())));
    // While one piece is read, the last that is asked for meanwhile comes next.
    shop.slow.store(true, Ordering::SeqCst);
    for offset in 1..=3 {
        agent.say(Up::Fetch(v1::PluginFetch { digest: "d".into(), offset })).await;
    }
    agent
        .say(Up::Offers(v1::OfferReport {
            offers: vec![v1::OfferState { state: "fetching".into(), ..v1::OfferState::default() }],
        }))
        .await;
    wait_for(|| !shop.said.lock().unwrap().is_empty(), "the node's word").await;
    shop.slow.store(false, Ordering::SeqCst);
    for wanted in [1, 3] {
        match agent.hear().await {
            Some(Down::Chunk(chunk)) => {
                assert_eq!((chunk.offset, chunk.content), (wanted, vec![wanted as u8]))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn labels_and_grants_are_kept_as_far_as_they_are_well_formed() {
    let rig = Rig::new();
    let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
    let mut agent = rig.open().await.unwrap();
    let labels = vec![
        label("rack", "r1"),
        label("node", "n9"),
        label("a b", "x"),
        label("c", "\n"),
        label("d", &"x".repeat(300)),
    ];
    agent.say(Up::Hello(v1::Hello { labels, ..hello() })).await;
    assert!(matches!(agent.hear().await, Some(Down::Welcome(_))));
    let grants = |id: &str, needs: String| v1::PluginGrants {
        id: id.into(),
        needs_json: needs,
        grants_json: r#"[{"capability":"system"}]"#.into(),
        ..v1::PluginGrants::default()
    };
    let large = format!("[\"{}\"]", "x".repeat(2 << 20));
    let plugins = vec![
        grants("a", "[]".into()),
        grants("b", "{}".into()),
        grants("c", large),
        grants("d", "[1]".into()),
    ];
    agent.say(Up::Grants(v1::GrantReport { plugins })).await;
    let kept = || {
        let all = rig.service.grants(None);
        all.first()
            .map(|(_, _, plugins)| plugins.iter().map(|p| p.plugin.clone()).collect::<Vec<_>>())
            .unwrap_or_default()
    };
    wait_for(|| !kept().is_empty(), "grants").await;
    assert_eq!(kept(), ["a", "d"]);
    assert!(rig.service.grants(Some(&NodeId::new("n2").unwrap())).is_empty());
    let states = vec![v1::PluginState {
        id: "count".into(),
        digest: "abc".into(),
        state: "running".into(),
        ..v1::PluginState::default()
    }];
    agent.say(Up::Plugins(v1::PluginReport { plugins: states })).await;
    let glimpse =
        || rig.service.glimpses("count").into_iter().next().map(|(_, glimpse)| glimpse).unwrap_or_default();
    wait_for(|| glimpse().digest == "abc", "the plugin's state").await;
    assert_eq!((glimpse().connected, glimpse().state.as_str()), (true, "running"));
    assert_eq!(glimpse().labels.iter().collect::<Vec<_>>(), [(&"rack".to_owned(), &"r1".to_owned())]);
    // A node that was revoked is not among them.
    rig.store.forget(&NodeId::new("n1").unwrap());
    assert!(rig.service.glimpses("count").is_empty() && rig.service.grants(None).is_empty());
}
