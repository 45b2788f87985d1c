//! What the samples come to: a table an hour, the faults, and how each kind of process grows.
//!
//! Growth is that of whole lives of processes: a restart begins a new stretch, of which the warm-up and then the first
//! half is left out. Stretches of one kind share one slope. What lies on disk has bounds of its own and no aim.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::schedule::Pace;
use super::watch::Sample;
use crate::report::{Figure, median};
use crate::trend::common_slope;
use crate::usage::Usage;

const ROW: &str = "soak";
const DAY_S: f64 = 86_400.0;
/// Most growth of a process's memory a day.
const AIM_MB: f64 = 1.0;
/// A shorter soak is not held against it.
const JUDGED: Duration = Duration::from_secs(7200);

/// What was done, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    pub at_s: f64,
    pub what: String,
    /// From its begin until the fleet was well again.
    pub took_s: f64,
    pub said: String,
    pub error: Option<String>,
}

/// One process from its first sample to its last.
#[derive(Debug)]
pub struct Stretch {
    pub owner: String,
    pub kind: String,
    pid: u32,
    /// Seconds, and what it took.
    pub points: Vec<(f64, Usage)>,
}

impl Stretch {
    /// The part with a trend, if it is long enough.
    fn settled(&self, pace: &Pace) -> Option<&[(f64, Usage)]> {
        let (first, last) = (self.points.first()?.0, self.points.last()?.0);
        let begin = first + pace.warm_up.as_secs_f64();
        let warm = self.points.iter().position(|point| point.0 >= begin)?;
        let rest = self.points.get(warm..)?;
        let long = last - begin >= pace.least.as_secs_f64();
        rest.get(rest.len() / 2..).filter(|_| long)
    }

    fn length_s(&self) -> f64 {
        self.points.last().map_or(0.0, |last| last.0) - self.points.first().map_or(0.0, |first| first.0)
    }
}

/// In the order in which they began.
pub fn stretches(samples: &[Sample]) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = Vec::new();
    for sample in samples {
        for process in &sample.processes {
            let same =
                |s: &&mut Stretch| s.pid == process.pid && s.kind == process.kind && s.owner == process.owner;
            let point = (sample.at_s, process.usage);
            match all.iter_mut().find(same) {
                Some(stretch) => stretch.points.push(point),
                None => all.push(Stretch {
                    owner: process.owner.clone(),
                    kind: process.kind.clone(),
                    pid: process.pid,
                    points: vec![point],
                }),
            }
        }
    }
    all
}

/// The kinds of processes, in the order in which they were seen.
fn kinds(stretches: &[Stretch]) -> Vec<&str> {
    let mut kinds: Vec<&str> = Vec::new();
    for stretch in stretches {
        if !kinds.contains(&stretch.kind.as_str()) {
            kinds.push(&stretch.kind);
        }
    }
    kinds
}

/// How each kind grows a day, what lies on disk, and how the asking went.
pub fn figures(samples: &[Sample], done: &[Done], pace: &Pace) -> Vec<Figure> {
    let mut all = Vec::new();
    let mut figure = |what: String, unit: &'static str, value: f64, aim: Option<f64>| {
        all.push(Figure::new(ROW, what, unit, false, &[value], None, aim));
    };
    // Minutes say nothing of a day.
    let aim = (pace.total >= JUDGED).then_some(AIM_MB);
    let stretches = stretches(samples);
    for kind in kinds(&stretches) {
        let of_kind = stretches.iter().filter(|stretch| stretch.kind == kind);
        let settled: Vec<(f64, &[(f64, Usage)])> =
            of_kind.filter_map(|one| Some((one.length_s(), one.settled(pace)?))).collect();
        let longest = settled.iter().map(|one| one.0).fold(0.0, f64::max) / 60.0;
        let about = format!("{kind}, lives: {}, longest {longest:.0} min", settled.len());
        let a_day = |pick: fn(&Usage) -> f64| {
            let lines: Vec<Vec<(f64, f64)>> =
                settled.iter().map(|(_, line)| line.iter().map(|(at, u)| (*at, pick(u))).collect()).collect();
            common_slope(&lines).map(|slope| slope * DAY_S)
        };
        if let (Some(rss), Some(own), Some(pss)) = (a_day(|u| u.rss), a_day(|u| u.own), a_day(|u| u.pss)) {
            figure(format!("{about}: RSS"), "MB a day", rss / 1e6, aim);
            figure(format!("{kind}: its own memory"), "MB a day", own / 1e6, aim);
            figure(format!("{kind}: PSS"), "MB a day", pss / 1e6, None);
        }
        if let (Some(handles), Some(threads)) = (a_day(|u| u.handles), a_day(|u| u.threads)) {
            figure(format!("{kind}: handles"), "a day", handles, None);
            figure(format!("{kind}: threads"), "a day", threads, None);
        }
    }
    let disk = |pick: fn(&Sample) -> f64| {
        let half = samples.get(samples.len() / 2..).unwrap_or_default();
        let line: Vec<(f64, f64)> = half.iter().map(|sample| (sample.at_s, pick(sample))).collect();
        common_slope(&[line]).map(|slope| slope * DAY_S / 1e6)
    };
    for (what, a_day) in [
        ("databases of the aggregator, up to events.max_age", disk(|s| s.databases)),
        ("log of the aggregator, up to store.log_max_size", disk(|s| s.log)),
        ("spools on disk, up to spool.max_size", disk(|s| s.spools.iter().map(|one| one.bytes).sum())),
    ] {
        if let Some(a_day) = a_day {
            figure(what.to_owned(), "MB a day", a_day, None);
        }
    }
    figure("records lost".into(), "records", lost(samples), Some(0.0));
    let failed = done.iter().filter(|one| one.error.is_some()).count();
    figure(format!("of {} recoveries failed", done.len()), "recoveries", failed as f64, Some(0.0));
    all
}

/// Records that agents lost; each counts from nothing when it starts.
pub fn lost(samples: &[Sample]) -> f64 {
    let mut last: std::collections::BTreeMap<&str, f64> = std::collections::BTreeMap::new();
    let mut all = 0.0;
    for spool in samples.iter().flat_map(|sample| &sample.spools) {
        let Some(now) = spool.lost else { continue };
        let before = last.insert(&spool.owner, now).filter(|before| *before <= now);
        all += now - before.unwrap_or_default();
    }
    all
}

/// A line for each hour and kind of process, then one an hour for what lies on disk.
pub fn hours(samples: &[Sample]) -> String {
    let mut out = String::from(
        "Least / median / most of an hour's samples.\n\n\
         | hour | process | RSS, MB | its own, MB | PSS, MB | handles | threads |\n|---|---|---|---|---|---|---|\n",
    );
    let stretches = stretches(samples);
    let by_hour = by_hour(samples);
    for (hour, of_hour) in &by_hour {
        for kind in kinds(&stretches) {
            let usages: Vec<&Usage> = of_hour
                .iter()
                .flat_map(|sample| &sample.processes)
                .filter(|process| process.kind == kind)
                .map(|process| &process.usage)
                .collect();
            let cell = |pick: fn(&Usage) -> f64, unit: f64, digits: usize| {
                spread(usages.iter().map(|usage| pick(usage) / unit), digits)
            };
            let _ = writeln!(
                out,
                "| {hour} | {kind} | {} | {} | {} | {} | {} |",
                cell(|u| u.rss, 1e6, 2),
                cell(|u| u.own, 1e6, 2),
                cell(|u| u.pss, 1e6, 2),
                cell(|u| u.handles, 1.0, 0),
                cell(|u| u.threads, 1.0, 0),
            );
        }
    }
    out += "\n| hour | spool of a node, KB | records in it | databases, MB | log, MB | other state, MB | live series |\n\
            |---|---|---|---|---|---|---|\n";
    for (hour, of_hour) in &by_hour {
        let spools = || of_hour.iter().flat_map(|sample| &sample.spools);
        let of = |pick: fn(&Sample) -> f64| spread(of_hour.iter().map(|sample| pick(sample) / 1e6), 2);
        let _ = writeln!(
            out,
            "| {hour} | {} | {} | {} | {} | {} | {} |",
            spread(spools().map(|spool| spool.bytes / 1e3), 1),
            spread(spools().filter_map(|spool| spool.pending), 0),
            of(|sample| sample.databases),
            of(|sample| sample.log),
            of(|sample| sample.other_state),
            spread(of_hour.iter().filter_map(|sample| sample.series), 0),
        );
    }
    out
}

fn by_hour(samples: &[Sample]) -> Vec<(usize, Vec<&Sample>)> {
    let mut all: Vec<(usize, Vec<&Sample>)> = Vec::new();
    for sample in samples {
        let hour = 1 + (sample.at_s / 3600.0) as usize;
        match all.last_mut().filter(|last| last.0 == hour) {
            Some((_, of_hour)) => of_hour.push(sample),
            None => all.push((hour, vec![sample])),
        }
    }
    all
}

fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let values: Vec<f64> = values.collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.is_empty() {
        return "–".to_owned();
    }
    format!("{least:.digits$} / {:.digits$} / {most:.digits$}", median(&values))
}

pub fn faults(done: &[Done]) -> String {
    let mut out = String::from("| minute | what | until well, s | |\n|---|---|---|---|\n");
    for one in done {
        let said = match &one.error {
            Some(error) => format!("**failed**: {}", error.lines().next().unwrap_or_default()),
            None => one.said.clone(),
        };
        let _ = writeln!(out, "| {:.1} | {} | {:.0} | {said} |", one.at_s / 60.0, one.what, one.took_s);
    }
    out
}

#[cfg(test)]
pub mod tests {
    use super::super::watch::{Process, Spool};
    use super::*;

    /// A sample with one agent.
    pub fn sample(at_s: f64, pid: u32, rss: f64, lost: Option<f64>) -> Sample {
        let usage = Usage { rss, own: rss / 2.0, pss: rss, handles: 20.0, threads: 5.0, ..Usage::default() };
        Sample {
            at_s,
            processes: vec![Process { owner: "soak-1".into(), kind: "picket-agent".into(), pid, usage }],
            spools: vec![Spool { owner: "soak-1".into(), bytes: 4096.0, pending: None, lost }],
            databases: 1e6,
            log: 2e6,
            other_state: 0.0,
            series: Some(100.0),
        }
    }

    /// Two hours, a restart after 30 minutes; each process begins with a leap and then grows so much a day.
    fn two_hours(mb_a_day: f64) -> Vec<Sample> {
        let one = |minute: u32| {
            let at_s = f64::from(minute) * 60.0;
            let (pid, age) = if minute < 30 { (10, minute) } else { (11, minute - 30) };
            let leap = if age < 10 { 0.0 } else { 3e6 };
            sample(at_s, pid, 20e6 + leap + mb_a_day * 1e6 * at_s / DAY_S, Some(0.0))
        };
        (0..120).map(one).collect()
    }

    fn figure(figures: &[Figure], what: &str) -> Figure {
        figures.iter().find(|figure| figure.what.contains(what)).unwrap().clone()
    }

    #[test]
    fn growth_is_that_of_the_later_half_of_each_long_life() {
        let pace = Pace::of(Duration::from_secs(7200));
        let grows = figures(&two_hours(5.0), &[], &pace);
        let rss = figure(&grows, ": RSS");
        assert!((rss.ours - 5.0).abs() < 0.01, "{rss:?}");
        assert_eq!(rss.met, Some(false));
        assert!(rss.what.starts_with("picket-agent, lives: 2, longest 89 min"), "{}", rss.what);
        let flat = figures(&two_hours(0.0), &[], &pace);
        assert_eq!(figure(&flat, ": RSS").met, Some(true));
        assert_eq!(figure(&flat, ": handles").ours, 0.0);
        let short = Pace { total: Duration::from_secs(360), ..pace };
        assert_eq!(figure(&figures(&two_hours(5.0), &[], &short), ": RSS").met, None);
    }

    #[test]
    fn a_restart_begins_a_stretch_and_a_short_one_says_nothing() {
        let pace = Pace::of(Duration::from_secs(7200));
        let samples = two_hours(0.0);
        let all = stretches(&samples);
        assert_eq!(all.iter().map(|one| one.points.len()).collect::<Vec<_>>(), [30, 90]);
        assert!(all.iter().all(|one| one.settled(&pace).is_some()));
        let short = stretches(&samples[..20]);
        assert!(short[0].settled(&pace).is_none());
        assert!(figures(&samples[..20], &[], &pace).iter().all(|figure| !figure.what.contains("RSS")));
        assert_eq!(figures(&[], &[], &pace).len(), 2);
    }

    #[test]
    fn losses_add_up_over_restarts() {
        let seen = [Some(0.0), Some(2.0), None, Some(3.0), Some(1.0), Some(1.0)];
        let samples: Vec<Sample> = seen.iter().map(|lost| sample(0.0, 1, 1.0, *lost)).collect();
        assert_eq!(lost(&samples), 4.0);
    }

    #[test]
    fn each_hour_has_its_lines() {
        let text = hours(&two_hours(0.0));
        assert!(text.contains("| 1 | picket-agent | 20.00 / 23.00 / 23.00 |"), "{text}");
        assert!(text.contains("| 2 | picket-agent | 23.00 / 23.00 / 23.00 | 11.50 /"), "{text}");
        assert!(text.contains("| 1 | 4.1 / 4.1 / 4.1 | – | 1.00 / 1.00 / 1.00 |"), "{text}");
    }

    #[test]
    fn a_fault_that_failed_says_why_in_one_line() {
        let fault = |error: Option<&str>| Done {
            at_s: 90.0,
            what: "soak-2: SIGKILL".into(),
            took_s: 12.3,
            said: String::new(),
            error: error.map(str::to_owned),
        };
        let done = [fault(None), fault(Some("soak-2 is down\nits log"))];
        assert!(faults(&done).contains("| 1.5 | soak-2: SIGKILL | 12 | **failed**: soak-2 is down |\n"));
        let figures = figures(&[], &done, &Pace::of(Duration::from_secs(60)));
        assert_eq!(figure(&figures, "of 2 recoveries failed").met, Some(false));
    }
}
