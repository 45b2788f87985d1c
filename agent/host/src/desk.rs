//! What answers the host calls of one instance: its grants, its tables, its log. The other end of [`crate::ask`].
//!
//! Every question is checked here, with the grants and limits of this very plugin. Who asks may be a process that was
//! taken over: nothing that it says is held for true because the guest's side would have checked it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use picket_agent_services::always::{self, Log};
use picket_agent_services::grants::{Admission, Capability};
use picket_agent_services::{Request, Response, Services, logs};
use picket_proto::model::PluginId;

use crate::ask::{Answers, Ask, Told};
use crate::limits::Limits;
use crate::lines::Lines;
use crate::readings::{Happened, Readings, Refused, check_event};
use crate::sink::SampleSink;

/// What an instance is made with.
#[derive(Clone)]
pub(crate) struct Setting {
    pub plugin: PluginId,
    pub limits: Limits,
    pub services: Arc<Services>,
    pub admission: Arc<Admission>,
}

pub(crate) struct Desk {
    services: Arc<Services>,
    admission: Arc<Admission>,
    log: Log,
    pub readings: Readings,
    pub lines: Lines,
    /// Time in which host calls of this collect were answered.
    pub answered: Duration,
}

impl Desk {
    pub(crate) fn new(setting: &Setting, generation: u64) -> Self {
        Self {
            services: setting.services.clone(),
            admission: setting.admission.clone(),
            log: Log::new(setting.plugin.clone(), setting.limits.log_rate),
            readings: Readings::new(generation, setting.limits.clone()),
            lines: Lines::default(),
            answered: Duration::ZERO,
        }
    }

    /// A collect begins; `log_room`: how many bytes of log lines can be kept.
    pub(crate) fn begin_collect(&mut self, log_room: u64) {
        self.answered = Duration::ZERO;
        self.readings.begin_collect();
        self.lines.begin(log_room);
    }

    /// After a collect that ended well: its lines and cursors go to the sink, as one or not at all.
    ///
    /// # Errors
    /// Why they did not, for a person; then they are read again.
    pub(crate) async fn hand_over_lines(&mut self, sink: &mut dyn SampleSink) -> Result<(), String> {
        let Some(grant) = self.admission.grant(Capability::Logs) else { return Ok(()) };
        std::mem::take(&mut self.lines).hand_over(&self.services, grant, sink).await
    }

    /// To be held while a call runs: what it left with the services ends with it, however it ends.
    pub(crate) fn call(&self) -> CallEnded {
        CallEnded { services: self.services.clone(), admission: self.admission.clone() }
    }

    async fn effect(&self, request: Request) -> Option<Response> {
        let grant = self.admission.grant(request.capability())?;
        Some(self.services.call(grant, request).await)
    }

    fn emit(&mut self, events: Vec<Happened>) -> Result<(), Refused> {
        let (now, most) = (now_ms(), self.readings.label_bytes());
        let checked: Result<Vec<_>, Refused> =
            events.into_iter().map(|e| check_event(e, now, most)).collect();
        match checked {
            Ok(events) => self.readings.emit(events),
            Err(e) => Err(self.readings.refuse(e)),
        }
    }

    fn emit_logs(&mut self, batches: Vec<crate::lines::Emitted>) -> Result<(), Refused> {
        if self.admission.grant(Capability::Logs).is_none() {
            return Err(Refused::Other("there is no grant to read logs".to_owned()));
        }
        self.lines.emit(batches).map_err(|e| self.readings.refuse(e))
    }

    async fn read_logs(&mut self, wanted: logs::Wanted, most: u32) -> Told {
        let Some(request) = self.lines.ask(wanted, most) else { return Told::Logs(None) };
        match self.effect(Request::Logs(request)).await {
            Some(Response::Logs(Ok(logs::Answer::Page(page)))) => Told::Logs(Some(Ok(page))),
            Some(Response::Logs(Err(e))) => Told::Logs(Some(Err(e))),
            _ => Told::NoGrant,
        }
    }
}

impl Answers for Desk {
    async fn answer(&mut self, ask: Ask) -> Option<Told> {
        let began = Instant::now();
        let told = self.told(ask).await;
        self.answered += began.elapsed();
        Some(told)
    }
}

impl Desk {
    async fn told(&mut self, ask: Ask) -> Told {
        match ask {
            // The lines' own way alone leads there: a request made up would say where reading goes on.
            Ask::Effect(Request::Logs(_)) => Told::NoGrant,
            Ask::Effect(request) => self.effect(request).await.map_or(Told::NoGrant, Told::Effect),
            Ask::Declare(families) => Told::Numbers(self.readings.declare(families)),
            Ask::Register(series) => Told::Numbers(self.readings.register(series)),
            Ask::Unfit(why) => Told::Numbers(Err(self.readings.refuse(Refused::Invalid(why)))),
            Ask::Push(points) => Told::Done(self.readings.push(points.0.into_iter())),
            Ask::PushTimed(points) => Told::Done(self.readings.push_timed(points.0.into_iter(), now_ms())),
            Ask::Retire(series) => Told::Done(self.readings.retire(&series.0)),
            Ask::Emit(events) => Told::Done(self.emit(events)),
            Ask::Fail { reason, message } => {
                self.readings.fail(&reason, &message);
                Told::Done(Ok(()))
            }
            Ask::Log(level, message) => {
                self.log.write(level, &message);
                Told::Done(Ok(()))
            }
            Ask::ReadLogs { wanted, most } => self.read_logs(wanted, most).await,
            Ask::HoldLogs { chunk, bytes } => {
                Told::Done(self.lines.hold(chunk, bytes).map_err(|e| self.readings.refuse(e)))
            }
            Ask::EmitLogs(batches) => Told::Done(self.emit_logs(batches)),
        }
    }
}

/// What a call leaves behind with the services ends with it: also when it timed out, trapped or was given up.
pub(crate) struct CallEnded {
    services: Arc<Services>,
    admission: Arc<Admission>,
}

impl Drop for CallEnded {
    fn drop(&mut self) {
        self.services.call_ended(&self.admission);
    }
}

fn now_ms() -> i64 {
    i64::try_from(always::now_ns() / 1_000_000).unwrap_or(i64::MAX)
}
