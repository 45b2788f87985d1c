//! `node_cpu_*`: the `cpuN` lines of /proc/stat, and what sysfs says of each CPU.

use picket_sdk::{Collect, CounterFamily, Describe};

use crate::root::Root;
use crate::settings;
use crate::text::{Malformed, lines, unsigned, utf8, words};
use crate::topology::Topology;

/// In the order of /proc/stat (proc_stat(5)); the last two are the guests'.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const COLUMNS: usize = 10;
const IDLE: usize = 3;
/// USER_HZ, which is 100 on every architecture that Linux has.
const TICKS_PER_SECOND: f64 = 100.0;
/// An idle counter that goes back by more than 3 seconds is another CPU in its place.
const JUMP_BACK: u64 = 300;

/// Families and what the last collect saw.
pub struct Cpu {
    seconds: CounterFamily<2>,
    guest_seconds: CounterFamily<2>,
    guest: bool,
    seen: Vec<Seen>,
    topology: Topology,
}

/// The highest ticks of a CPU: idle and iowait can go back a little, a counter must not.
struct Seen {
    number: u64,
    ticks: [u64; COLUMNS],
    now: bool,
}

impl Cpu {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            seconds: d
                .counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode.")
                .labels(&["cpu", "mode"]),
            guest_seconds: d
                .counter(
                    "node_cpu_guest_seconds_total",
                    "Seconds the CPUs spent in guests (VMs) for each mode.",
                )
                .labels(&["cpu", "mode"]),
            guest: true,
            seen: Vec::new(),
            topology: Topology::new(d),
        }
    }

    pub fn configure(&mut self, settings: &settings::Cpu) {
        self.guest = settings.guest;
    }

    /// Of the text of /proc/stat.
    pub fn collect(&mut self, text: &[u8], root: &Root, c: &mut Collect<'_>) {
        let mut malformed = Malformed::new("/proc/stat");
        let mut place = 0;
        for line in lines(text) {
            let Some(rest) = line.strip_prefix(b"cpu") else { break };
            if rest.first() == Some(&b' ') {
                continue;
            }
            let mut fields = words(rest);
            let name = fields.next().and_then(utf8);
            match (name, name.and_then(|n| unsigned(n.as_bytes())), ticks(fields)) {
                (Some(name), Some(number), Some(ticks)) => {
                    let ticks = self.highest(place, number, ticks);
                    self.set(name, &ticks);
                    place += 1;
                }
                _ => malformed.add(line),
            }
        }
        if place == 0 {
            c.fail("parse", "/proc/stat has no line of a CPU");
        }
        malformed.report(c);
        self.seen.retain_mut(|seen| std::mem::take(&mut seen.now));
        self.topology.collect(self.seen.iter().map(|seen| seen.number), root, c);
    }

    /// The ticks that may be shown: never fewer than before.
    fn highest(&mut self, place: usize, number: u64, now: [u64; COLUMNS]) -> [u64; COLUMNS] {
        let at = match self.seen.get(place) {
            Some(seen) if seen.number == number => Some(place),
            _ => self.seen.iter().position(|seen| seen.number == number),
        };
        let Some(seen) = at.and_then(|at| self.seen.get_mut(at)) else {
            self.seen.push(Seen { number, ticks: now, now: true });
            return now;
        };
        let [_, _, _, idle_before, ..] = seen.ticks;
        let [_, _, _, idle_now, ..] = now;
        if idle_before.saturating_sub(idle_now) >= JUMP_BACK {
            seen.ticks = now;
        }
        for (old, new) in seen.ticks.iter_mut().zip(now) {
            *old = (*old).max(new);
        }
        seen.now = true;
        seen.ticks
    }

    fn set(&self, cpu: &str, ticks: &[u64; COLUMNS]) {
        let seconds = ticks.map(|t| t as f64 / TICKS_PER_SECOND);
        for (mode, seconds) in MODES.into_iter().zip(seconds) {
            self.seconds.with(&[cpu, mode]).set_total(seconds);
        }
        if self.guest {
            let [.., user, nice] = seconds;
            self.guest_seconds.with(&[cpu, "user"]).set_total(user);
            self.guest_seconds.with(&[cpu, "nice"]).set_total(nice);
        }
    }
}

/// Kernels before 2.6.33 have fewer columns: those are 0. Fewer than the first four are no CPU line.
fn ticks<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<[u64; COLUMNS]> {
    let mut ticks = [0; COLUMNS];
    let mut count = 0;
    for (to, field) in ticks.iter_mut().zip(fields) {
        *to = unsigned(field)?;
        count += 1;
    }
    (count > IDLE).then_some(ticks)
}
