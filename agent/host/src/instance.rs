//! One instance of a plugin, and the only way into it.
//!
//! [`Instance::enter`] is the one function that calls a guest. It arms the CPU deadline, counts the time, and bounds the
//! whole call by the clock, host calls included. An instance whose call did not end by itself (trap, deadline, or the
//! caller went away) must be dropped: its memory may be in any state, and wasmtime would refuse to enter it anyway.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_services::Services;
use picket_agent_services::always::Log;
use picket_agent_services::grants::{Admission, Capability};
use picket_proto::model::PluginId;
use wasmtime::component::{HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::bindings::exports::picket::source::{control, source};
use crate::bindings::picket::host as wit;
use crate::bindings::picket::source::sink;
use crate::bindings::picket::types::types;
use crate::guest::{Guest, MemoryLimit, Meter};
use crate::limits::Limits;
use crate::lines::Lines;
use crate::readings::{Declared, Readings};
use crate::sink::SampleSink;

/// Resources that a guest may hold of the host's: the contract has none yet.
const MAX_HANDLES: usize = 64;

/// A compiled plugin, type-checked and linked with what it is granted.
pub(crate) struct Linked {
    pre: InstancePre<Guest>,
    source: source::GuestIndices,
    control: Option<control::GuestIndices>,
}

impl Linked {
    /// Only what is granted exists for the plugin.
    pub(crate) fn new(
        engine: &Engine,
        component: &wasmtime::component::Component,
        admission: &Admission,
        controllable: bool,
    ) -> wasmtime::Result<Self> {
        let mut linker: Linker<Guest> = Linker::new(engine);
        types::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        sink::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        wit::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        wit::clock::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        wit::random::add_to_linker::<_, HasSelf<_>>(&mut linker, |g| g)?;
        for capability in admission.capabilities() {
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
            }
        }
        let pre = linker.instantiate_pre(component)?;
        let source = source::GuestIndices::new(&pre)?;
        let control = if controllable { Some(control::GuestIndices::new(&pre)?) } else { None };
        Ok(Self { pre, source, control })
    }
}

/// What an instance is made with.
#[derive(Clone)]
pub(crate) struct Setting {
    pub plugin: PluginId,
    pub limits: Limits,
    pub services: Arc<Services>,
    pub admission: Arc<Admission>,
}

/// One call of the contract.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call<'a> {
    Describe,
    Configure(&'a str),
    Collect,
    ControlSchema,
    ControlGet,
    ControlSet(&'a str),
}

/// What a call returned.
#[derive(Debug)]
pub(crate) enum Returned {
    Described(Vec<Declared>),
    /// Of `configure` and `collect`: done, or the source's error as reason and message.
    Done(Result<(), (String, String)>),
    Text(String),
    /// Of `control.set`: the settings in force, or what is allowed.
    Set(Result<String, Vec<String>>),
}

/// Why a call did not end by itself. The instance must not be entered again.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// `call_time` is over.
    TimedOut(Duration),
    Trapped(wasmtime::Error),
}

pub(crate) struct Instance {
    store: Store<Guest>,
    meter: Arc<Meter>,
    limits: Limits,
    source: source::Guest,
    control: Option<control::Guest>,
    services: Arc<Services>,
    admission: Arc<Admission>,
}

impl Instance {
    /// Instantiates, under the same deadlines as a call: a component may run code at its start.
    pub(crate) async fn new(linked: &Linked, setting: &Setting, generation: u64) -> Result<Self, Stopped> {
        let limits = setting.limits.clone();
        let meter = Arc::new(Meter::default());
        let guest = Guest {
            services: setting.services.clone(),
            admission: setting.admission.clone(),
            log: Log::new(setting.plugin.clone(), limits.log_rate),
            memory: MemoryLimit::new(limits.memory),
            readings: Readings::new(generation, limits.clone()),
            lines: Lines::default(),
        };
        let mut store = Store::new(linked.pre.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(usize::try_from(limits.hostcall_bytes).unwrap_or(usize::MAX));
        store.set_max_component_handles(MAX_HANDLES);
        let clock = meter.clone();
        store.epoch_deadline_callback(move |_| {
            clock.check()?;
            // Other tasks of this thread have their turn at each tick.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        let made = async {
            let instance = linked.pre.instantiate_async(&mut store).await?;
            let source = linked.source.load(&mut store, &instance)?;
            let control = linked.control.as_ref().map(|c| c.load(&mut store, &instance)).transpose()?;
            Ok((source, control))
        };
        // A new store's deadline is in the past: the callback is asked at once, and sets it.
        let (source, control) = bounded(&meter, &limits, made).await?;
        let (services, admission) = (setting.services.clone(), setting.admission.clone());
        Ok(Self { store, meter, limits, source, control, services, admission })
    }

    /// The one way into the guest.
    pub(crate) async fn enter(&mut self, call: Call<'_>) -> Result<Returned, Stopped> {
        let _ended = CallEnded { services: self.services.clone(), admission: self.admission.clone() };
        self.store.set_epoch_deadline(1);
        let (store, source, control) = (&mut self.store, &self.source, self.control.as_ref());
        let no_control = || wasmtime::Error::msg("the plugin exports no control");
        let work = async move {
            Ok(match call {
                Call::Describe => {
                    let description = source.call_describe(store).await?;
                    Returned::Described(description.families.into_iter().map(Into::into).collect())
                }
                Call::Configure(settings) => Returned::Done(
                    source.call_configure(store, settings).await?.map_err(|e| (e.reason, e.message)),
                ),
                Call::Collect => {
                    Returned::Done(source.call_collect(store).await?.map_err(|e| (e.reason, e.message)))
                }
                Call::ControlSchema => {
                    Returned::Text(control.ok_or_else(no_control)?.call_schema(store).await?)
                }
                Call::ControlGet => Returned::Text(control.ok_or_else(no_control)?.call_get(store).await?),
                Call::ControlSet(settings) => {
                    let answer = control.ok_or_else(no_control)?.call_set(store, settings).await?;
                    Returned::Set(answer.map_err(|e| match e {
                        control::ControlError::Refused(lines) => lines,
                        control::ControlError::Other(line) => vec![line],
                    }))
                }
            })
        };
        bounded(&self.meter, &self.limits, work).await
    }

    pub(crate) fn readings(&mut self) -> &mut Readings {
        &mut self.store.data_mut().readings
    }

    /// A collect begins; `log_room`: how many bytes of log lines can be kept.
    pub(crate) fn begin_collect(&mut self, log_room: u64) {
        let guest = self.store.data_mut();
        guest.readings.begin_collect();
        guest.lines.begin(log_room);
    }

    /// See [`Guest::hand_over_lines`].
    pub(crate) async fn hand_over_lines(&mut self, sink: &mut dyn SampleSink) -> Result<(), String> {
        self.store.data_mut().hand_over_lines(sink).await
    }

    /// CPU time of the last call.
    pub(crate) fn guest_time(&self) -> Duration {
        self.meter.used()
    }

    /// Linear memory, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.store.data().memory.used()
    }
}

/// What a call leaves behind with the services ends with it: also when it timed out, trapped or was given up.
struct CallEnded {
    services: Arc<Services>,
    admission: Arc<Admission>,
}

impl Drop for CallEnded {
    fn drop(&mut self) {
        self.services.call_ended(&self.admission);
    }
}

/// Runs guest code within the limits of time.
async fn bounded<T>(
    meter: &Meter,
    limits: &Limits,
    work: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, Stopped> {
    meter.arm(limits.guest_time);
    let mut work = pin!(work);
    let measured = poll_fn(|context| {
        meter.begin();
        let polled = work.as_mut().poll(context);
        meter.end();
        polled
    });
    match tokio::time::timeout(limits.call_time, measured).await {
        Ok(Ok(returned)) => Ok(returned),
        Ok(Err(trap)) => Err(Stopped::Trapped(trap)),
        Err(_) => Err(Stopped::TimedOut(limits.call_time)),
    }
}
