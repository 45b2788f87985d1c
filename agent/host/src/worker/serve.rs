//! The worker's side: raises the wall, says so, and runs plugins for the agent that holds the other end of its socket.
//!
//! Nothing here decides anything: what a guest asks goes to the agent, and the agent's orders are followed. If this process
//! were taken over, it could say no more to the agent than a guest can; see [`super::link`] for what is taken of it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use wasmtime::Engine;

use super::out::Out;
use super::wire::{HEAD, Head, Load, MAX_ORDER, NotLoaded, Order, Ready, Report, VERSION};
use crate::ask::{Answers, Ask, Told};
use crate::call::{Bounds, Call, Stopped};
use crate::code::{Code, Mapping};
use crate::fault::chain;
use crate::instance::{Instance, Linked};
use crate::memory::{Program, SETTLED_AFTER, one_heap};
use crate::ticker::Ticker;
use crate::wall::{self, Plan, Room};

const USAGE: &str = "usage: picket-worker [--probe] --memory=BYTES --address-space=BYTES [--uid=N --gid=N]: \
                     started by picket-agent, which speaks to it over standard input";
/// How long the agent may leave what is sent to it lying.
const PATIENCE: Duration = Duration::from_secs(60);
const READ: usize = 64 << 10;

/// The program `picket-worker`.
pub fn main() -> ExitCode {
    // A fault in here is nothing to go on after: the agent starts another.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    ignore_signals();
    one_heap();
    let (plan, probe) = match plan(std::env::args().skip(1)) {
        Ok(Some(plan)) => plan,
        Ok(None) => {
            println!("{VERSION}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("picket-worker: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&plan, probe) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("picket-worker: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What a terminal or a service manager sends to all of the agent's processes is the agent's to answer: it ends its collects
/// first. A worker ends when its socket closes, and at the latest with the agent.
#[allow(unsafe_code)]
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: ignoring a signal runs none of our code at it.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn plan(arguments: impl Iterator<Item = String>) -> Result<Option<(Plan, bool)>, String> {
    let mut plan = Plan { room: Room::Worker, user: None, memory: 0, address_space: 0 };
    let (mut uid, mut gid, mut probe) = (None, None, false);
    for argument in arguments {
        let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
        let number = || value.parse::<u64>().map_err(|e| format!("{name}: {value:?} is no number: {e}"));
        let id = || value.parse::<u32>().map_err(|e| format!("{name}: {value:?} is no number: {e}"));
        match name {
            "--version" => return Ok(None),
            "--probe" => probe = true,
            "--memory" => plan.memory = number()?,
            "--address-space" => plan.address_space = number()?,
            "--uid" => uid = Some(id()?),
            "--gid" => gid = Some(id()?),
            _ => return Err(format!("{name} is not known")),
        }
    }
    plan.user = uid.zip(gid);
    if plan.memory == 0 || plan.address_space == 0 {
        return Err("it is started by the agent, with its bounds".to_owned());
    }
    Ok(Some((plan, probe)))
}

fn run(plan: &Plan, probe: bool) -> io::Result<()> {
    // While there is a /proc to ask.
    let program = Program::of_this_process();
    let mut wall = wall::raise(plan);
    let engine = crate::engine::runtime().map_err(|e| io::Error::other(chain(&e)))?;
    // The last thread that there will be.
    let ticker = Ticker::start(&engine)?;
    if probe {
        wall::seal(plan, &mut wall);
        let text = serde_json::to_string(&wall)?;
        println!("{text}");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let stream = {
        let _inside = runtime.enter();
        UnixStream::from_std(socket)?
    };
    wall::seal(plan, &mut wall);
    runtime.block_on(serve(engine, ticker, program, stream, Ready { version: VERSION.to_owned(), wall }));
    Ok(())
}

/// Until the agent has gone.
async fn serve(engine: Engine, ticker: Arc<Ticker>, program: Program, stream: UnixStream, ready: Ready) {
    let (read, write) = stream.into_split();
    let out = Arc::new(Out::new(write));
    if !say(&out, 0, &Report::Ready(ready)) {
        return;
    }
    let mut inbox = Inbox::new(read);
    let mut floor = Floor {
        engine,
        ticker,
        program,
        out: out.clone(),
        seats: HashMap::new(),
        mappings: Vec::new(),
        settling: None,
        instances: HashMap::new(),
    };
    // As tasks: to wake the future that the runtime was entered with takes two system calls.
    let followed = tokio::spawn(async move { floor.follow(&mut inbox).await });
    let flushed = tokio::spawn(async move { out.flush(PATIENCE).await });
    tokio::select! {
        _ = flushed => {}
        _ = followed => {}
    }
}

/// False: the agent has gone, or it is larger than a frame.
fn say(out: &Out, number: u64, report: &Report) -> bool {
    report.encode(number).is_some_and(|frame| out.send(frame, None).is_ok())
}

/// What is in the room.
struct Floor {
    engine: Engine,
    ticker: Arc<Ticker>,
    program: Program,
    out: Arc<Out>,
    seats: HashMap<u64, Arc<Seated>>,
    mappings: Vec<Weak<Mapping>>,
    /// Lets go of what only the start of plugins needed.
    settling: Option<JoinHandle<()>>,
    instances: HashMap<u64, Running>,
}

struct Seated {
    linked: Linked,
    bounds: Bounds,
}

struct Running {
    calls: mpsc::Sender<Call>,
    /// Where the answer to its host call goes.
    asking: Arc<Mutex<Option<oneshot::Sender<Told>>>>,
    task: JoinHandle<()>,
}

impl Floor {
    async fn follow(&mut self, inbox: &mut Inbox) -> Option<()> {
        loop {
            let (number, order) = inbox.next().await?;
            match order {
                Order::Load(load) => {
                    let loaded = self.load(number, &load, inbox.files.pop_front());
                    say(&self.out, number, &Report::Loaded(loaded));
                }
                Order::Unload => {
                    self.seats.remove(&number);
                }
                Order::Make { seat } => self.make(number, self.seats.get(&seat)?.clone()),
                Order::Enter(call) => {
                    // Fails where it has ended already, which the agent was told.
                    if let Some(running) = self.instances.get(&number) {
                        let _ = running.calls.try_send(call);
                    }
                }
                Order::Tell(told) => {
                    let waiting = self.instances.get(&number).and_then(|running| {
                        running.asking.lock().unwrap_or_else(PoisonError::into_inner).take()
                    });
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(told);
                    }
                }
                Order::End => self.end(number),
            }
        }
    }

    fn load(&mut self, seat: u64, load: &Load, file: Option<OwnedFd>) -> Result<(), NotLoaded> {
        let file = file.ok_or_else(|| NotLoaded::Stale("no file came with the component".to_owned()))?;
        let code = Code::new(&self.engine, &File::from(file), load.length)
            .map_err(|e| NotLoaded::Stale(chain(&e)))?;
        self.mappings.retain(|mapping| mapping.strong_count() > 0);
        self.mappings.push(Arc::downgrade(&code.mapping));
        self.settle();
        let capabilities = load.capabilities().ok_or_else(|| {
            NotLoaded::Unlinkable("the agent names an interface that is not known here".to_owned())
        })?;
        let linked = Linked::new(&self.engine, self.ticker.clone(), code, &capabilities, load.world)
            .map_err(|e| NotLoaded::Unlinkable(chain(&e)))?;
        self.seats.insert(seat, Arc::new(Seated { linked, bounds: load.bounds.clone() }));
        Ok(())
    }

    /// A while after the last load.
    fn settle(&mut self) {
        let (program, mappings) = (self.program.clone(), self.mappings.clone());
        let settling = tokio::spawn(async move {
            tokio::time::sleep(SETTLED_AFTER).await;
            mappings.iter().filter_map(Weak::upgrade).for_each(|mapping| mapping.let_go());
            program.let_go();
        });
        if let Some(before) = self.settling.replace(settling) {
            before.abort();
        }
    }

    fn make(&mut self, number: u64, seated: Arc<Seated>) {
        let (calls, called) = mpsc::channel(1);
        let asking = Arc::default();
        let relay = Relay { number, out: self.out.clone(), asking: Arc::clone(&asking) };
        let task = tokio::spawn(live(number, seated, relay, called));
        self.instances.insert(number, Running { calls, asking, task });
    }

    fn end(&mut self, number: u64) {
        let running = self.instances.remove(&number);
        let out = self.out.clone();
        tokio::spawn(async move {
            if let Some(running) = running {
                running.task.abort();
                let _ = running.task.await;
            }
            say(&out, number, &Report::Ended);
        });
    }
}

/// One instance, until a call does not end by itself or the agent has no use for it.
async fn live(number: u64, seated: Arc<Seated>, mut relay: Relay, mut calls: mpsc::Receiver<Call>) {
    let out = relay.out.clone();
    let mut instance = match Instance::new(&seated.linked, &seated.bounds, &mut relay).await {
        Ok(instance) => instance,
        Err(stopped) => {
            say(&out, number, &Report::Made(Err(stopped)));
            return;
        }
    };
    say(&out, number, &Report::Made(Ok(())));
    while let Some(call) = calls.recv().await {
        let returned = instance.enter(call, &mut relay).await;
        let (last, cost) = (returned.is_err(), instance.cost());
        if last {
            // Its memory goes before the agent may ask for another.
            drop(instance);
            say(&out, number, &Report::Done(returned, cost));
            return;
        }
        let report = Report::Done(returned, cost);
        if report.encode(number).is_none_or(|frame| {
            frame.len() > HEAD + super::wire::most(super::wire::DONE, seated.bounds.hostcall_bytes)
        }) {
            drop(instance);
            say(&out, number, &Report::Done(Err(Stopped::Hostcall), cost));
            return;
        }
        say(&out, number, &report);
    }
}

/// A guest's host calls, passed on.
struct Relay {
    number: u64,
    out: Arc<Out>,
    asking: Arc<Mutex<Option<oneshot::Sender<Told>>>>,
}

impl Answers for Relay {
    async fn answer(&mut self, ask: Ask) -> Option<Told> {
        let (reply, told) = oneshot::channel();
        *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
        if !say(&self.out, self.number, &Report::Ask(ask)) {
            return None;
        }
        told.await.ok()
    }
}

/// Reads frames, and the files that come with them.
struct Inbox {
    stream: OwnedReadHalf,
    bytes: Vec<u8>,
    /// Of `bytes`, what was taken already.
    taken: usize,
    files: VecDeque<OwnedFd>,
}

impl Inbox {
    fn new(stream: OwnedReadHalf) -> Self {
        Self { stream, bytes: Vec::new(), taken: 0, files: VecDeque::new() }
    }

    /// None: the agent has gone, or is no agent of ours.
    async fn next(&mut self) -> Option<(u64, Order)> {
        loop {
            let left = self.bytes.get(self.taken..).unwrap_or_default();
            if let Some(head) = left.first_chunk::<HEAD>() {
                let head = Head::read(*head);
                if head.length > MAX_ORDER {
                    return None;
                }
                if let Some(body) = left.get(HEAD..HEAD + head.length) {
                    let order = Order::decode(head.kind, body).ok()?;
                    self.taken += HEAD + head.length;
                    return Some((head.number, order));
                }
            }
            self.bytes.drain(..self.taken);
            self.taken = 0;
            if self.bytes.is_empty() && self.bytes.capacity() > 4 * READ {
                self.bytes = Vec::new();
            }
            self.stream.readable().await.ok()?;
            match self.receive() {
                Ok(0) => return None,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(_) => return None,
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        let before = self.bytes.len();
        self.bytes.resize(before + READ, 0);
        let stream: &UnixStream = self.stream.as_ref();
        let Some(space) = self.bytes.get_mut(before..) else { return Ok(0) };
        let files = &mut self.files;
        let mut count = 0;
        let received = stream.try_io(Interest::READABLE, || {
            let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut control);
            let received =
                recvmsg(stream, &mut [IoSliceMut::new(space)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
            count = received.bytes;
            let mut came_files = false;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(came) = message {
                    files.extend(came);
                    came_files = true;
                }
            }
            // Less than there was room for: nothing is left to read, which the socket need not be asked. Behind a file there may be.
            if (1..READ).contains(&count) && !came_files {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        self.bytes.truncate(before + count);
        match received {
            Err(e) if count == 0 => Err(e),
            _ => Ok(count),
        }
    }
}
