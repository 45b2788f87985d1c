//! A test aggregator: real TLS, real gRPC, and every fault that a test asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use picket_proto::columns::{Columns, Decoder};
use picket_proto::model::LOG_LIFE;
use picket_proto::v1;
use picket_proto::v1::downlink_message::Message as Down;
use picket_proto::v1::uplink_message::Message as Up;
use picket_proto::v1::uplink_server::{Uplink, UplinkServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::identity::testing::{Authority, Issued, Life, VALID, eventually, serve};

/// What the aggregator does; changed while it runs.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub window: u32,
    pub ack: bool,
    /// Log lines too.
    pub ack_lines: bool,
    /// Off: what came is forgotten with its stream.
    pub hold: bool,
    /// Off: messages are not taken from the stream.
    pub read: bool,
    pub welcome: bool,
    pub codec: u32,
    /// The life of a renewed certificate; none: renewals are refused.
    pub renew: Option<Life>,
    pub refuse: Option<(tonic::Code, &'static str)>,
    /// Acknowledge this much more than was sent.
    pub lie: u64,
    /// A sequence that breaks the protocol.
    pub poison: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        let codec = picket_proto::columns::CODEC;
        Self {
            window: 64,
            ack: true,
            ack_lines: true,
            hold: true,
            read: true,
            welcome: true,
            codec,
            renew: None,
            refuse: None,
            lie: 0,
            poison: 0,
        }
    }
}

/// One sample as it came: life, sequence, series, value.
pub(super) type Sample = (u64, u64, u32, f64);

/// What one stream brought.
#[derive(Default)]
pub(super) struct StreamLog {
    pub hello: Option<v1::Hello>,
    pub definitions: Vec<(u64, v1::Definitions)>,
    /// Life, sequence.
    pub batches: Vec<(u64, u64)>,
    pub samples: Vec<Sample>,
    pub events: Vec<v1::Event>,
    pub retired: Vec<u32>,
    /// Log lines, by number.
    pub lines: usize,
    pub losses: Vec<v1::Loss>,
    pub plugins: Vec<v1::PluginReport>,
    pub grants: Vec<v1::GrantReport>,
    pub fetches: Vec<v1::PluginFetch>,
    pub offers: Vec<v1::OfferReport>,
    pub results: Vec<v1::CommandResult>,
    pub renewals: usize,
    /// The client certificate's DER.
    pub certificate: Vec<u8>,
    down: Option<mpsc::Sender<Result<v1::DownlinkMessage, Status>>>,
}

#[derive(Default)]
pub(super) struct State {
    pub streams: Vec<StreamLog>,
    /// Durable here, a life each; survives streams.
    pub held: HashMap<u64, u64>,
}

pub(super) struct Aggregator {
    pub authority: Arc<Authority>,
    pub address: String,
    pub state: Arc<Mutex<State>>,
    pub behaviour: watch::Sender<Behaviour>,
}

struct Service {
    authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
    behaviour: watch::Receiver<Behaviour>,
}

impl Aggregator {
    pub async fn start(behaviour: Behaviour) -> Self {
        let authority = Arc::new(Authority::new("picket"));
        let server = authority.server("localhost", VALID);
        Self::start_with(behaviour, Arc::clone(&authority), &server, &authority).await
    }

    /// With a certificate of its own, and clients of another authority.
    pub async fn start_with(
        behaviour: Behaviour,
        authority: Arc<Authority>,
        server: &Issued,
        clients: &Authority,
    ) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let (sender, receiver) = watch::channel(behaviour);
        let service =
            Service { authority: Arc::clone(&authority), state: Arc::clone(&state), behaviour: receiver };
        let service = UplinkServer::new(service).max_decoding_message_size(32 << 20);
        let address = serve(Routes::new(service), server, clients).await;
        Self { authority, address, state, behaviour: sender }
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    pub fn streams(&self) -> usize {
        self.state.lock().unwrap().streams.len()
    }

    /// Of the stream with this index.
    pub fn look<T>(&self, stream: usize, look: impl FnOnce(&StreamLog) -> T) -> Option<T> {
        self.state.lock().unwrap().streams.get(stream).map(look)
    }

    pub async fn until<T>(&self, what: &str, stream: usize, look: impl Fn(&StreamLog) -> Option<T>) -> T {
        eventually(what, || self.look(stream, &look).flatten()).await
    }

    pub async fn batches(&self, stream: usize, count: usize) {
        self.until(&format!("{count} batches"), stream, |log| (log.batches.len() >= count).then_some(()))
            .await;
    }

    /// Says something down the stream.
    pub async fn say(&self, stream: usize, down: Down) {
        let sender = self.look(stream, |log| log.down.clone()).flatten().expect("the stream is open");
        let _ = sender.send(Ok(v1::DownlinkMessage { message: Some(down) })).await;
    }

    /// Ends a stream with this status.
    pub async fn cut(&self, stream: usize) {
        let sender = {
            let mut state = self.state.lock().unwrap();
            state.streams[stream].down.take().expect("the stream is open")
        };
        let _ = sender.send(Err(Status::unavailable("cut"))).await;
    }
}

#[tonic::async_trait]
impl Uplink for Service {
    type StreamStream = ReceiverStream<Result<v1::DownlinkMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<v1::UplinkMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let certificates =
            request.peer_certs().ok_or_else(|| Status::unauthenticated("no client certificate"))?;
        if let Some((code, message)) = self.behaviour.borrow().refuse {
            return Err(Status::new(code, message));
        }
        let (down, receiver) = mpsc::channel(64);
        let index = {
            let mut state = self.state.lock().unwrap();
            state.streams.push(StreamLog {
                down: Some(down.clone()),
                certificate: certificates[0].to_vec(),
                ..StreamLog::default()
            });
            state.streams.len() - 1
        };
        let reader = Reading {
            authority: Arc::clone(&self.authority),
            state: Arc::clone(&self.state),
            behaviour: self.behaviour.clone(),
            index,
            down,
            life: 0,
            decoder: Decoder::new(),
        };
        tokio::spawn(reader.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

struct Reading {
    authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
    behaviour: watch::Receiver<Behaviour>,
    index: usize,
    down: mpsc::Sender<Result<v1::DownlinkMessage, Status>>,
    life: u64,
    decoder: Decoder,
}

impl Reading {
    async fn run(mut self, mut incoming: Streaming<v1::UplinkMessage>) {
        loop {
            if self.behaviour.wait_for(|b| b.read).await.is_err() {
                return;
            }
            let mut behaviour = self.behaviour.clone();
            behaviour.mark_unchanged();
            let message = tokio::select! {
                // Acknowledging was switched on: what is held already is acknowledged now.
                changed = behaviour.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let b = behaviour.borrow().clone();
                    self.acknowledge(&b).await;
                    continue;
                }
                message = incoming.message() => message,
            };
            let Ok(Some(v1::UplinkMessage { message: Some(message) })) = message else { return };
            self.message(message).await;
        }
    }

    async fn message(&mut self, message: Up) {
        let behaviour = self.behaviour.borrow().clone();
        match message {
            Up::Hello(hello) => {
                self.log(|log| log.hello = Some(hello));
                let watermarks = {
                    let state = self.state.lock().unwrap();
                    state
                        .held
                        .iter()
                        .map(|(life, sequence)| v1::Watermark { life: *life, sequence: *sequence })
                        .collect()
                };
                if behaviour.welcome {
                    self.say(Down::Welcome(v1::Welcome {
                        node: "gpu-01".into(),
                        codec: behaviour.codec,
                        aggregator_version: "test".into(),
                        window: behaviour.window,
                        watermarks,
                    }))
                    .await;
                }
            }
            Up::Life(life) => {
                self.life = life.life;
                self.decoder = Decoder::new();
            }
            Up::Definitions(definitions) => {
                let life = self.life;
                self.log(|log| log.definitions.push((life, definitions)));
            }
            Up::Batch(batch) if batch.sequence == behaviour.poison => {
                let reason = "protocol".to_owned();
                self.say(Down::Goodbye(v1::Goodbye { reason, message: "poison".into() })).await;
            }
            Up::Batch(batch) => {
                self.batch(batch);
                self.acknowledge(&behaviour).await;
            }
            Up::Renew(renew) => {
                self.log(|log| log.renewals += 1);
                let answer = match behaviour.renew {
                    Some(life) => v1::RenewResponse {
                        certificates: self.authority.sign(&renew.csr, "gpu-01", life),
                        authorities: vec![self.authority.der()],
                        refused: String::new(),
                    },
                    None => v1::RenewResponse { refused: "not today".into(), ..Default::default() },
                };
                self.say(Down::Renew(answer)).await;
            }
            Up::CommandResult(result) => self.log(|log| log.results.push(result)),
            Up::Loss(loss) => self.log(|log| log.losses.push(loss)),
            Up::Plugins(plugins) => self.log(|log| log.plugins.push(plugins)),
            // The tests of actions look at these where they are made.
            Up::Actions(_) => {}
            Up::Grants(report) => self.log(|log| log.grants.push(report)),
            Up::Fetch(fetch) => self.log(|log| log.fetches.push(fetch)),
            Up::Offers(report) => self.log(|log| log.offers.push(report)),
        }
    }

    fn batch(&mut self, batch: v1::Batch) {
        // Only log lines name their life.
        let life = if batch.life == 0 { self.life } else { batch.life };
        let mut samples = Vec::new();
        for bytes in &batch.columns {
            let mut columns = Columns::default();
            self.decoder.decode(bytes, &mut columns).expect("columns");
            let pairs = columns.series.iter().zip(&columns.values);
            samples.extend(pairs.map(|(series, value)| (life, batch.sequence, *series, *value)));
        }
        let hold = self.behaviour.borrow().hold;
        let mut state = self.state.lock().unwrap();
        if hold {
            let held = state.held.entry(life).or_default();
            *held = (*held).max(batch.sequence);
        }
        let log = &mut state.streams[self.index];
        log.batches.push((life, batch.sequence));
        log.samples.extend(samples);
        log.events.extend(batch.events);
        log.retired.extend(batch.retired);
        log.lines += batch.logs.iter().map(|stream| stream.lines.len()).sum::<usize>();
    }

    async fn acknowledge(&self, behaviour: &Behaviour) {
        if !behaviour.ack {
            return;
        }
        let lives: BTreeMap<u64, u64> = {
            let state = self.state.lock().unwrap();
            let seen = state.streams[self.index].batches.iter().map(|(life, _)| *life);
            let lives = seen.chain([self.life]).filter(|life| *life != 0);
            let lives = lives.filter(|life| behaviour.ack_lines || life & LOG_LIFE == 0);
            lives.map(|life| (life, state.held.get(&life).copied().unwrap_or_default())).collect()
        };
        for (life, sequence) in lives {
            self.say(Down::Ack(v1::Ack { life, sequence: sequence + behaviour.lie })).await;
        }
    }

    async fn say(&self, down: Down) {
        let _ = self.down.send(Ok(v1::DownlinkMessage { message: Some(down) })).await;
    }

    fn log(&self, change: impl FnOnce(&mut StreamLog)) {
        change(&mut self.state.lock().unwrap().streams[self.index]);
    }
}
