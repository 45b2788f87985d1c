//! The uplink against a test aggregator over real TLS.

mod aggregator;
mod flow;
mod peers;
mod services;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_spool::Spool;
use picket_proto::model::LOG_LIFE;
use picket_proto::spool::v1 as spool;
use picket_proto::v1;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::central::Held;
use super::{Central, CommandCall, Status, Timing, Uplink, UplinkOptions};
use crate::config;
use crate::identity::testing::{VALID, eventually};
use aggregator::Aggregator;

const LIFE: u64 = 0x1234_5678_9abc_def0;

/// An uplink under test and all its ends.
struct Node {
    spool: Spool,
    /// The queue of log lines.
    lines: Spool,
    status: Arc<Status>,
    shutdown: CancellationToken,
    plugins: watch::Sender<Vec<v1::PluginState>>,
    commands: mpsc::Receiver<CommandCall>,
    held: Held,
    task: JoinHandle<()>,
    state: tempfile::TempDir,
}

fn timing() -> Timing {
    Timing {
        connect: Duration::from_secs(5),
        welcome: Duration::from_secs(5),
        gather: Duration::from_millis(10),
        housekeeping: Duration::from_millis(30),
        stall: Duration::from_secs(60),
        drain: Duration::from_secs(5),
        healthy: Duration::from_secs(60),
        hopeless: Duration::from_secs(60),
        command: Duration::from_millis(200),
        ping: (Duration::from_secs(10), Duration::from_secs(10)),
    }
}

impl Node {
    /// Enrolled with this aggregator.
    fn start(aggregator: &Aggregator) -> Self {
        let state = tempfile::tempdir().unwrap();
        aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
        Self::start_in(state, &aggregator.address, timing())
    }

    fn start_in(state: tempfile::TempDir, address: &str, timing: Timing) -> Self {
        Self::start_with(state, address, timing, Spool::in_memory(64 << 20, LIFE), None)
    }

    /// With an uplink that does nothing yet: what waits when it begins is appended to the spools first.
    async fn late(aggregator: &Aggregator, fill: impl AsyncFnOnce(&Spool, &Spool)) -> Self {
        let state = tempfile::tempdir().unwrap();
        aggregator.authority.enrolled(state.path(), "gpu-01", VALID, &[]);
        let spools = [LIFE, LOG_LIFE | LIFE].map(|life| Spool::in_memory(64 << 20, life));
        fill(&spools[0], &spools[1]).await;
        Self::start_on(state, &aggregator.address, timing(), spools, None)
    }

    fn start_with(
        state: tempfile::TempDir,
        address: &str,
        timing: Timing,
        spool: Spool,
        own: Option<[PathBuf; 3]>,
    ) -> Self {
        Self::start_on(state, address, timing, [spool, Spool::in_memory(64 << 20, LOG_LIFE | LIFE)], own)
    }

    fn start_on(
        state: tempfile::TempDir,
        address: &str,
        timing: Timing,
        [spool, lines]: [Spool; 2],
        own: Option<[PathBuf; 3]>,
    ) -> Self {
        let status = Arc::<Status>::default();
        let shutdown = CancellationToken::new();
        let (plugins, plugins_receiver) = watch::channel(Vec::new());
        let (commands_sender, commands) = mpsc::channel(4);
        let (central, held) = Central::held();
        let [certificate, key, authorities] = own.map_or([None, None, None], |paths| paths.map(Some));
        let options = UplinkOptions {
            config: config::Uplink {
                aggregator: (!address.is_empty()).then(|| address.to_owned()),
                certificate,
                key,
                authorities,
                backoff_min: Duration::from_millis(5),
                backoff_max: Duration::from_millis(50),
            },
            state_dir: state.path().to_owned(),
            spool: spool.clone(),
            life: LIFE,
            lines: Some(lines.clone()),
            plugins: plugins_receiver,
            actions: watch::channel(v1::ActionReport::default()).1,
            commands: commands_sender,
            central,
            labels: vec![v1::Label { name: "rack".into(), value: "r1".into() }],
            shutdown: shutdown.clone(),
            status: Arc::clone(&status),
        };
        let task = tokio::spawn(Uplink::new(options, timing).run());
        Self { spool, lines, status, shutdown, plugins, commands, held, task, state }
    }

    async fn append(&self, record: &spool::Record, header: &spool::Record) -> u64 {
        append(&self.spool, record, header).await
    }

    async fn append_simple(&self, n: u64) -> u64 {
        append_simple(&self.spool, n).await
    }

    async fn pending(&self, expected: u64) {
        eventually(&format!("{expected} records pending"), || {
            (self.spool.stats().records_pending == expected).then_some(())
        })
        .await;
    }

    async fn error(&self, containing: &str) -> String {
        eventually(&format!("an error with {containing:?}; it is {:?}", self.status.last_error()), || {
            self.status.last_error().filter(|error| error.contains(containing))
        })
        .await
    }

    async fn connected(&self) {
        eventually("connected", || self.status.connected().then_some(())).await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task).await.expect("the uplink ends").unwrap();
    }
}

/// Appends a record and waits until it is durable. Each segment's header is what `header` says.
async fn append(spool: &Spool, record: &spool::Record, header: &spool::Record) -> u64 {
    let ticket = spool.append(&record.encode_to_vec(), || header.encode_to_vec()).unwrap();
    let sequence = ticket.sequence;
    ticket.durable().await.unwrap();
    sequence
}

/// Appends record number `n` of a simple history: the first defines family 0 and the series 0 to 9.
async fn append_simple(spool: &Spool, n: u64) -> u64 {
    let all: Vec<u32> = (0..10).collect();
    let snapshot = defining(&all);
    let record = sampled(n, &all, snapshot.definitions.clone().filter(|_| n == 1));
    let header = if n == 1 { spool::Record::default() } else { snapshot };
    append(spool, &record, &header).await
}

/// Appends a record of one log line.
async fn append_line(lines: &Spool, text: &str) -> u64 {
    let stream = v1::LogStream {
        timestamps_ns: vec![1_700_000_000_000_000_000],
        lines: vec![text.to_owned()],
        ..Default::default()
    };
    let record = spool::Record { plugin: "logs".into(), logs: vec![stream], ..Default::default() };
    append(lines, &record, &spool::Record::default()).await
}

/// A record that defines family 0 and these series.
fn defining(series: &[u32]) -> spool::Record {
    let mut definitions = v1::Definitions {
        strings: vec!["".into(), "up".into(), "p".into(), "n".into()],
        ..Default::default()
    };
    definitions.families.extend([0, 1, 1, 0, 0, 2]);
    for number in series {
        definitions.strings.push(number.to_string());
        let value = u32::try_from(definitions.strings.len()).unwrap() - 1;
        definitions.series.extend([*number, 0, 0, 1, 3, value]);
    }
    spool::Record { definitions: Some(definitions), ..Default::default() }
}

/// A record with one sample a series, of the value `n`.
fn sampled(n: u64, series: &[u32], definitions: Option<v1::Definitions>) -> spool::Record {
    let mut last = 0;
    let series_deltas = series
        .iter()
        .map(|number| {
            let delta = i32::try_from(*number).unwrap() - last;
            last = i32::try_from(*number).unwrap();
            delta
        })
        .collect();
    let block =
        spool::Block { series_deltas, values: vec![n as f64; series.len()], time_deltas_ms: Vec::new() };
    let timestamp_ms = 1_700_000_000_000 + i64::try_from(n).unwrap() * 15_000;
    spool::Record { plugin: "p".into(), timestamp_ms, definitions, blocks: vec![block], ..Default::default() }
}
