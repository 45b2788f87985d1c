//! One instance of a plugin where it runs, and the only way into it.
//!
//! [`Instance::enter`] is the one function that calls a guest. It arms the CPU deadline, counts the time, and bounds the
//! whole call by the clock, host calls included. An instance whose call did not end by itself (trap, deadline, or the
//! caller went away) must be dropped: its memory may be in any state, and wasmtime would refuse to enter it anyway.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use picket_agent_services::grants::Capability;
use tokio::sync::mpsc;
use wasmtime::component::{HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::ask::{Answers, Asking, Door};
use crate::bindings::exports::picket::action::action;
use crate::bindings::picket::host as wit;
use crate::bindings::picket::source::sink;
use crate::bindings::picket::types::types;
use crate::body::{Body, BoxFuture, Seat, World};
use crate::call::{Bounds, Call, Cost, Returned, Stopped};
use crate::code::{Code, Mapping};
use crate::desk::Desk;
use crate::fault::cause;
use crate::former;
use crate::guest::{Guest, MemoryLimit, Meter};
use crate::source;
use crate::ticker::Ticker;

/// Resources that a guest may hold of the host's: the contract has none yet.
const MAX_HANDLES: usize = 64;

/// A compiled plugin, type-checked and linked with what it is granted.
pub(crate) struct Linked {
    pre: InstancePre<Guest>,
    exported: Indices,
    ticker: Arc<Ticker>,
    // Last, for it is what the others lie in.
    mapping: Arc<Mapping>,
}

/// What its world exports.
enum Indices {
    Source(source::Indices),
    Action(action::GuestIndices),
}

/// The same of an instance.
enum Exported {
    Source(source::Source),
    Action(action::Guest),
}

impl Linked {
    /// Only what is granted exists for the plugin.
    pub(crate) fn new(
        engine: &Engine,
        ticker: Arc<Ticker>,
        code: Code,
        capabilities: &[Capability],
        world: World,
    ) -> wasmtime::Result<Self> {
        let mut linker: Linker<Guest> = Linker::new(engine);
        types::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        if !matches!(world, World::Action) {
            sink::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
            former::bindings::picket::source::sink::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        }
        wit::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        wit::clock::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        wit::random::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        for capability in capabilities {
            match capability {
                Capability::Store => wit::store::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Files => wit::files::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Http => wit::http::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::System => wit::system::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Nvml => wit::nvml::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Kmsg => wit::kmsg::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Containers => {
                    wit::containers::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?
                }
                Capability::UnixHttp => wit::unix_http::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Command => wit::command::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::Logs => wit::logs::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?,
                Capability::SystemdControl => {
                    wit::systemd_control::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?
                }
                Capability::FilesWrite => {
                    wit::files_write::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?
                }
                Capability::ContainersControl => {
                    wit::containers_control::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?
                }
            }
        }
        crate::wasi::link(&mut linker, &code.component)?;
        let pre = linker.instantiate_pre(&code.component)?;
        let exported = match world {
            World::Source { edition, controllable } => {
                Indices::Source(source::Indices::new(&pre, edition, controllable)?)
            }
            World::Action => Indices::Action(action::GuestIndices::new(&pre)?),
        };
        Ok(Self { pre, exported, ticker, mapping: code.mapping })
    }
}

pub(crate) struct Instance {
    store: Store<Guest>,
    meter: Arc<Meter>,
    bounds: Bounds,
    exported: Exported,
    ticker: Arc<Ticker>,
    /// The host calls of the call that runs.
    asked: mpsc::Receiver<Asking>,
    // Last, for the store's code lies in it.
    _mapping: Arc<Mapping>,
}

impl Instance {
    /// Instantiates, under the same deadlines as a call: a component may run code at its start.
    pub(crate) async fn new(
        linked: &Linked,
        bounds: &Bounds,
        answers: &mut impl Answers,
    ) -> Result<Self, Stopped> {
        let meter = Arc::new(Meter::default());
        let (door, mut asked) = Door::new();
        let guest = Guest { memory: MemoryLimit::new(bounds.memory), door, wasi: Default::default() };
        let mut store = Store::new(linked.pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(usize::try_from(bounds.hostcall_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(MAX_HANDLES);
        let clock = meter.clone();
        store.epoch_deadline_callback(move |_| {
            clock.check()?;
            // Other tasks of this thread have their turn at each tick: in the first one what waits for the socket, in the second
            // one the guest that a frame was for.
            let turns = async {
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            };
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(turns)))
        });
        let made = async {
            let instance = linked.pre.instantiate_async(&mut store).await?;
            Ok(match &linked.exported {
                Indices::Source(source) => Exported::Source(source.load(&mut store, &instance)?),
                Indices::Action(action) => Exported::Action(action.load(&mut store, &instance)?),
            })
        };
        // A new store's deadline is in the past: the callback is asked at once, and sets it.
        let exported = bounded(&meter, bounds, &linked.ticker, attended(made, &mut asked, answers)).await?;
        let (ticker, mapping) = (linked.ticker.clone(), linked.mapping.clone());
        Ok(Self { store, meter, bounds: bounds.clone(), exported, ticker, asked, _mapping: mapping })
    }

    /// The one way into the guest. What it asks meanwhile `answers` is asked.
    pub(crate) async fn enter(
        &mut self,
        call: Call,
        answers: &mut impl Answers,
    ) -> Result<Returned, Stopped> {
        self.store.set_epoch_deadline(1);
        let (store, exported) = (&mut self.store, &self.exported);
        let work = async move {
            match (exported, call) {
                (Exported::Action(action), Call::Action(call)) => {
                    Ok(Returned::Action(crate::action::glue::enter(action, store, call).await?))
                }
                (Exported::Action(action), Call::Configure(settings)) => {
                    let done = action.call_configure(store, &settings).await?;
                    Ok(Returned::Done(done.map_err(|e| (e.reason, e.message))))
                }
                (Exported::Action(_), _) => Err(wasmtime::Error::msg("the plugin is an action, no source")),
                (Exported::Source(source), call) => source.enter(store, call).await,
            }
        };
        bounded(&self.meter, &self.bounds, &self.ticker, attended(work, &mut self.asked, answers)).await
    }

    /// What the last call cost.
    pub(crate) fn cost(&self) -> Cost {
        Cost { guest_time: self.meter.used(), memory: self.store.data().memory.used() as u64 }
    }
}

/// An instance in the process that owns it.
impl Body for Instance {
    fn enter<'a>(&'a mut self, call: Call, desk: &'a mut Desk) -> BoxFuture<'a, Result<Returned, Stopped>> {
        Box::pin(Self::enter(self, call, desk))
    }

    fn cost(&self) -> Cost {
        Self::cost(self)
    }

    fn alive(&self) -> bool {
        true
    }
}

/// A component in the process that owns it.
pub(crate) struct LocalSeat {
    pub linked: Linked,
    pub bounds: Bounds,
}

impl Seat for LocalSeat {
    fn make<'a>(
        &'a mut self,
        desk: &'a mut Desk,
        _apart: bool,
    ) -> BoxFuture<'a, Result<Box<dyn Body>, Stopped>> {
        Box::pin(async move {
            let instance = Box::pin(Instance::new(&self.linked, &self.bounds, desk)).await?;
            Ok(Box::new(instance) as Box<dyn Body>)
        })
    }
}

/// Answers the host calls of a call until it has ended.
async fn attended<T>(
    work: impl Future<Output = wasmtime::Result<T>>,
    asked: &mut mpsc::Receiver<Asking>,
    answers: &mut impl Answers,
) -> wasmtime::Result<T> {
    let mut work = pin!(work);
    loop {
        let (ask, reply) = tokio::select! {
            biased;
            ended = &mut work => return ended,
            Some(asking) = asked.recv() => asking,
        };
        // The guest waits for it; nothing of it runs meanwhile.
        if let Some(told) = answers.answer(ask).await {
            let _ = reply.send(told);
        }
    }
}

/// Runs guest code within the limits of time.
async fn bounded<T>(
    meter: &Meter,
    bounds: &Bounds,
    ticker: &Ticker,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Stopped> {
    meter.arm(bounds.guest_time);
    let mut work = pin!(work);
    let measured = poll_fn(|context| {
        let _inside = ticker.inside();
        meter.begin();
        let polled = work.as_mut().poll(context);
        meter.end();
        polled
    });
    match tokio::time::timeout(bounds.call_time, measured).await {
        Ok(Ok(returned)) => Ok(returned),
        Ok(Err(trap)) => Err(cause(&trap)),
        Err(_) => Err(Stopped::TimedOut(bounds.call_time)),
    }
}
