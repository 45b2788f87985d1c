//! The one task that owns the helper: takes the plugins' questions, shares the answers, and deals with a driver that
//! is not there, fails or hangs. It never waits for a process to die.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use picket_agent_nvml::{DeviceText, Tell, XidText};
use picket_proto::model::PluginId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::helper::Helper;
use super::scope::Devices;
use super::{Error, Options};
use crate::always;
use crate::wakes::Wakes;

/// XIDs that are kept for plugins to read.
const EVENTS: usize = 1024;
/// Helpers that were killed and have not died: so many may hang in the driver, and not one more is started.
const ABANDONED: usize = 2;

/// A plugin's question.
pub(super) struct Ask {
    pub plugin: PluginId,
    pub devices: Devices,
    pub max_age: Duration,
    pub reply: oneshot::Sender<Result<Arc<Taken>, Error>>,
}

/// A snapshot with the events until then.
#[derive(Debug)]
pub(super) struct Taken {
    at: Instant,
    pub timestamp_ms: u64,
    system: String,
    devices: Vec<DeviceText>,
    events: Vec<Arc<Event>>,
    life: String,
    events_error: String,
}

#[derive(Debug)]
struct Event {
    sequence: u64,
    timestamp_ms: u64,
    xid: XidText,
}

/// Why there is no helper, and when one is tried again.
#[derive(Debug)]
struct Pause {
    why: Error,
    until: Instant,
}

pub(super) struct Desk {
    options: Options,
    wakes: Wakes,
    asks: mpsc::Receiver<Ask>,
    helper: Option<Helper>,
    /// A snapshot is under way, and must be there by then.
    due: Option<Instant>,
    waiting: Vec<Ask>,
    last: Option<Arc<Taken>>,
    pause: Option<Pause>,
    back_off: Duration,
    abandoned: Arc<AtomicUsize>,
    used: Instant,
    interested: BTreeMap<PluginId, Devices>,
    events: VecDeque<Arc<Event>>,
    sequence: u64,
    life: String,
    events_error: String,
}

impl Desk {
    pub fn new(options: Options, wakes: Wakes, asks: mpsc::Receiver<Ask>) -> Self {
        let life = always::random(8).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Self {
            back_off: options.back_off,
            options,
            wakes,
            asks,
            helper: None,
            due: None,
            waiting: Vec::new(),
            last: None,
            pause: None,
            abandoned: Arc::default(),
            used: Instant::now(),
            interested: BTreeMap::new(),
            events: VecDeque::new(),
            sequence: 0,
            life,
            events_error: String::new(),
        }
    }

    pub async fn run(mut self) {
        loop {
            let idle = self.helper.is_some().then(|| self.used + self.options.idle);
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.ask(ask).await,
                    None => return,
                },
                told = told(self.helper.as_mut()) => self.told(told),
                () = at(self.due) => {
                    let seconds = self.options.snapshot_time.as_secs_f64();
                    self.hung(format!("a snapshot was not there after {seconds} s"));
                }
                () = at(idle), if self.due.is_none() => {
                    self.helper = None;
                }
            }
        }
    }

    async fn ask(&mut self, ask: Ask) {
        self.used = Instant::now();
        self.interested.insert(ask.plugin.clone(), ask.devices.clone());
        if let Some(last) = self.last.as_ref().filter(|last| last.at.elapsed() <= ask.max_age) {
            // The asker may have gone.
            let _ = ask.reply.send(Ok(last.clone()));
            return;
        }
        self.waiting.push(ask);
        if self.due.is_some() {
            return;
        }
        if self.helper.is_none() {
            match self.start() {
                Ok(helper) => self.helper = Some(helper),
                Err(why) => return self.answer(&Err(why)),
            }
        }
        if let Some(helper) = &mut self.helper {
            match helper.ask().await {
                Ok(()) => self.due = Some(Instant::now() + self.options.snapshot_time),
                Err(why) => self.failed(why),
            }
        }
    }

    pub(super) fn start(&mut self) -> Result<Helper, Error> {
        if let Some(pause) = &self.pause
            && (Instant::now() < pause.until || self.abandoned.load(Ordering::Relaxed) >= ABANDONED)
        {
            return Err(pause.why.clone());
        }
        Helper::start(&self.options).map_err(|why| {
            let why = Error::Other(why);
            self.pause_for(self.options.absent_again, why.clone());
            why
        })
    }

    pub(super) fn told(&mut self, told: Result<Tell, String>) {
        match told {
            Ok(Tell::Snapshot { system, devices }) => {
                if self.pause.take().is_some() {
                    tracing::info!("the NVIDIA driver answers");
                }
                self.back_off = self.options.back_off;
                self.due = None;
                let taken = Arc::new(Taken {
                    at: Instant::now(),
                    timestamp_ms: always::now_ns() / 1_000_000,
                    system,
                    devices,
                    events: self.events.iter().cloned().collect(),
                    life: self.life.clone(),
                    events_error: self.events_error.clone(),
                });
                self.last = Some(taken.clone());
                self.answer(&Ok(taken));
            }
            Ok(Tell::NoDriver(why)) => {
                let again = self.options.absent_again;
                self.stop(Error::NoDriver(why), again);
            }
            Ok(Tell::Failed(why)) | Err(why) => self.failed(why),
            Ok(Tell::Hung { call, device, for_ms }) => {
                let of = if device.is_empty() { String::new() } else { format!(" of {device}") };
                self.hung(format!("{call}{of} did not return for {for_ms} ms"));
            }
            Ok(Tell::Xid(xid)) => self.happened(xid),
            Ok(Tell::NoEvents(why)) => {
                if !why.is_empty() {
                    tracing::warn!("XIDs cannot be had from the NVIDIA driver: {why}");
                }
                self.events_error = why;
            }
        }
    }

    fn happened(&mut self, xid: XidText) {
        tracing::warn!(gpu = xid.uuid, xid = xid.xid, "the NVIDIA driver reports an XID");
        self.sequence += 1;
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        let timestamp_ms = always::now_ns() / 1_000_000;
        for (plugin, devices) in &self.interested {
            if devices.admit(&xid.uuid) {
                self.wakes.wake(plugin);
            }
        }
        self.events.push_back(Arc::new(Event { sequence: self.sequence, timestamp_ms, xid }));
        // What is shared from now on has to hold it.
        self.last = None;
    }

    fn failed(&mut self, why: String) {
        let pause = self.back_off();
        self.stop(Error::Other(why), pause);
    }

    fn hung(&mut self, what: String) {
        let pause = self.back_off();
        let since = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let more = if self.abandoned.load(Ordering::Relaxed) + 1 >= ABANDONED {
            "; no other helper is started before one of those that hang has ended"
        } else {
            ""
        };
        self.stop(Error::Hung(format!("{what}, seen at {since}{more}")), pause);
    }

    /// The wait of now; the next one is twice as long.
    fn back_off(&mut self) -> Duration {
        let now = self.back_off;
        self.back_off = (now * 2).min(self.options.back_off_max);
        now
    }

    fn stop(&mut self, why: Error, pause: Duration) {
        if let Some(helper) = self.helper.take() {
            let (abandoned, mut child) = (self.abandoned.clone(), helper.abandon());
            abandoned.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // Takes for ever where it hangs in the driver: that is what is counted.
                let _ = child.wait().await;
                abandoned.fetch_sub(1, Ordering::Relaxed);
            });
        }
        self.due = None;
        // Nobody is given what was read before: a value of a driver that hangs is none.
        self.last = None;
        self.pause_for(pause, why.clone());
        self.answer(&Err(why));
    }

    fn pause_for(&mut self, pause: Duration, why: Error) {
        let again = self.pause.as_ref().is_some_and(|before| same_kind(&before.why, &why));
        match &why {
            Error::NoDriver(_) if again => {}
            Error::NoDriver(_) => tracing::info!("{why}; looked for again every {pause:?}"),
            _ if again => tracing::debug!("{why}; tried again in {pause:?}"),
            _ => tracing::warn!("{why}; tried again in {pause:?}"),
        }
        self.pause = Some(Pause { why, until: Instant::now() + pause });
    }

    fn answer(&mut self, answer: &Result<Arc<Taken>, Error>) {
        for ask in self.waiting.drain(..) {
            // The asker may have gone.
            let _ = ask.reply.send(answer.clone());
        }
    }
}

#[cfg(test)]
impl Desk {
    pub fn last(&self) -> Option<Arc<Taken>> {
        self.last.clone()
    }

    /// As if so many more helpers hung.
    pub fn abandon(&self, more: isize) {
        let _ =
            self.abandoned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add_signed(more));
    }
}

fn same_kind(a: &Error, b: &Error) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

async fn told(helper: Option<&mut Helper>) -> Result<Tell, String> {
    match helper {
        Some(helper) => helper.told().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

impl Taken {
    /// What these devices' grant shows of it.
    pub fn document(&self, granted: &Devices) -> String {
        let size: usize = self.devices.iter().map(|device| device.json.len() + 1).sum();
        let mut text = String::with_capacity(size + self.system.len() + 256);
        text.push('{');
        text.push_str(&self.system);
        text.push_str(",\"devices\":[");
        let shown = self.devices.iter().filter(|device| granted.admit(&device.gpu));
        for (i, device) in shown.enumerate() {
            text.push_str(if i == 0 { "" } else { "," });
            text.push_str(&device.json);
        }
        text.push_str("],\"events\":[");
        let shown = self.events.iter().filter(|event| granted.admit(&event.xid.uuid));
        for (i, event) in shown.enumerate() {
            let XidText { uuid, xid, gpu_instance_id, compute_instance_id } = &event.xid;
            let uuid = serde_json::Value::from(uuid.as_str());
            let (comma, sequence, timestamp_ms) =
                (if i == 0 { "" } else { "," }, event.sequence, event.timestamp_ms);
            let _ = write!(
                text,
                "{comma}{{\"sequence\":{sequence},\"timestamp_ms\":{timestamp_ms},\"uuid\":{uuid},\"xid\":{xid}"
            );
            for (name, id) in
                [("gpu_instance_id", gpu_instance_id), ("compute_instance_id", compute_instance_id)]
            {
                if let Some(id) = id {
                    let _ = write!(text, ",\"{name}\":{id}");
                }
            }
            text.push('}');
        }
        let _ = write!(text, "],\"events_life\":\"{}\"", self.life);
        if !self.events_error.is_empty() {
            let _ = write!(text, ",\"events_error\":{}", serde_json::Value::from(self.events_error.as_str()));
        }
        text.push('}');
        text
    }
}
