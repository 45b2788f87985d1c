//! Slurm's output for people and scripts, where there is no JSON.
//!
//! Times are asked for as seconds (`SLURM_TIME_FORMAT=%s` in the command's environment); written otherwise they are left out,
//! because they would be local to somewhere.

use std::io::{BufRead, BufReader, Read};

use picket_sdk::Failure;

use crate::json::job_gpus;
use crate::model::{Controller, Gres, Job, Node, Partition, Reservation, Rpc, Scheduler};
use crate::model::{is_silent, job_state, status, tasks};

/// The longest line.
const MAX_LINE: u64 = 1 << 20;

/// Gives each line that is not empty, without its end.
fn lines(from: impl Read, mut each: impl FnMut(&str)) -> Result<(), Failure> {
    let mut reader = BufReader::with_capacity(64 << 10, from);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(Failure::new("parse", format!("reading the output: {e}"))),
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
            return Err(Failure::new("too-large", format!("a line is longer than {MAX_LINE} bytes")));
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            each(text);
        }
    }
}

/// `Key=value Key=value`, values with spaces in them.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn of(line: &'a str) -> Self {
        // Where each key begins and where its value does.
        let mut starts: Vec<(usize, usize)> = Vec::new();
        let mut at = 0;
        for word in line.split(' ') {
            if let Some((key, _)) = word.split_once('=')
                && key.starts_with(|c: char| c.is_ascii_uppercase())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '_'))
            {
                starts.push((at, at + key.len()));
            }
            at += word.len() + 1;
        }
        let ends = starts.iter().skip(1).map(|(begin, _)| *begin).chain([line.len()]);
        let fields = starts.iter().zip(ends).filter_map(|((begin, equals), end)| {
            Some((line.get(*begin..*equals)?, line.get(equals + 1..end)?.trim()))
        });
        Self(fields.collect())
    }

    /// The first: what a person wrote into a later field can't stand for it.
    fn get(&self, key: &str) -> Option<&'a str> {
        let value = self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)?;
        (!matches!(value, "(null)" | "N/A" | "None" | "Unknown" | "n/a")).then_some(value)
    }

    fn text(&self, key: &str) -> String {
        self.get(key).unwrap_or_default().to_owned()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.parse().ok()
    }

    fn whole(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }
}

/// `some text [root@1795272401]`
fn reason(line: &str) -> (String, String, Option<f64>) {
    let Some((_, text)) = line.split_once(" Reason=") else { return Default::default() };
    // Who set it and when stands last; what was written may have brackets of its own.
    let by = text.rmatch_indices(" [").find_map(|(at, _)| {
        let (inside, _) = text.get(at + 2..)?.split_once(']')?;
        let (user, since) = inside.rsplit_once('@')?;
        (!user.contains(' ')).then_some((at, user, since))
    });
    match by {
        Some((at, user, since)) => {
            (text.get(..at).unwrap_or_default().trim().to_owned(), user.to_owned(), since.parse().ok())
        }
        None => (text.trim().to_owned(), String::new(), None),
    }
}

/// `scontrol -d -o show nodes`
pub fn nodes(from: impl Read, mut each: impl FnMut(Node)) -> Result<(), Failure> {
    let mut odd = None;
    lines(from, |line| {
        // Free text must not be taken for fields.
        let fields = Fields::of(line.split_once(" Reason=").map_or(line, |(before, _)| before));
        let (Some(name), Some(state)) = (fields.get("NodeName"), fields.get("State")) else {
            // An unknown node's state is a word that means nothing elsewhere.
            if let Some(name) = fields.get("NodeName") {
                each(node(name, "UNKNOWN", &fields, line));
            } else {
                odd.get_or_insert_with(|| line.chars().take(100).collect::<String>());
            }
            return;
        };
        each(node(name, state, &fields, line));
    })?;
    complain(odd, "a line of nodes")
}

fn complain(odd: Option<String>, what: &str) -> Result<(), Failure> {
    match odd {
        Some(line) => Err(Failure::new("parse", format!("{what} is not as expected: {line:?}"))),
        None => Ok(()),
    }
}

fn node(name: &str, state: &str, fields: &Fields<'_>, line: &str) -> Node {
    let (reason, reason_user, reason_since) = reason(line);
    Node {
        name: name.to_owned(),
        status: status([state]),
        silent: is_silent([state]),
        cpus: fields.whole("CPUEfctv").filter(|n| *n > 0).or_else(|| fields.whole("CPUTot")).unwrap_or(0),
        cpus_alloc: fields.whole("CPUAlloc").unwrap_or(0),
        memory: fields.whole("RealMemory"),
        memory_alloc: fields.whole("AllocMem"),
        partitions: fields
            .text("Partitions")
            .split(',')
            .filter(|p| !p.is_empty())
            .map(str::to_owned)
            .collect(),
        gres: Gres::parse(fields.get("Gres").unwrap_or_default()),
        gres_used: Gres::parse(fields.get("GresUsed").unwrap_or_default()),
        reason,
        reason_user,
        reason_since: reason_since.filter(|t| *t > 0.0),
    }
}

/// `squeue -h -a -t all -O State:|,Partition:|,NumCPUs:|,NumNodes:|,UserName:|,Account:|,tres-per-node:|,tres-alloc:|,JobArrayID:|,Reason:|`
pub fn jobs(from: impl Read, mut each: impl FnMut(Job)) -> Result<(), Failure> {
    let mut odd = None;
    lines(from, |line| {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [state, partition, cpus, nodes, user, account, per_node, tres, id, reason, ..] = parts.as_slice()
        else {
            odd.get_or_insert_with(|| line.chars().take(100).collect::<String>());
            return;
        };
        let known =
            |text: &str| if matches!(text, "(null)" | "N/A") { String::new() } else { text.to_owned() };
        each(Job {
            state: job_state([*state]),
            partition: known(partition),
            user: known(user),
            account: known(account),
            reason: (*reason).to_owned(),
            cpus: cpus.parse().unwrap_or(0),
            gpus: job_gpus(tres, "", per_node, nodes.parse().unwrap_or(1)),
            // `3_[2-10%1]` are nine, `3_1` and `7` are one.
            tasks: id.split_once('_').map_or(1, |(_, list)| tasks(list)),
        });
    })?;
    complain(odd, "a line of jobs")
}

/// `sinfo -h -a -o %R|%a`
pub fn partitions(from: impl Read) -> Result<Vec<Partition>, Failure> {
    let (mut all, mut odd) = (Vec::new(), None);
    lines(from, |line| match line.split_once('|') {
        Some((name, state)) => {
            let found = Partition { name: name.trim().to_owned(), state: state.trim().to_ascii_uppercase() };
            if !all.contains(&found) {
                all.push(found);
            }
        }
        None => {
            odd.get_or_insert_with(|| line.chars().take(100).collect::<String>());
        }
    })?;
    complain(odd, "a line of partitions").map(|()| all)
}

/// `scontrol -o show reservations`
pub fn reservations(from: impl Read) -> Result<Vec<Reservation>, Failure> {
    let (mut all, mut odd) = (Vec::new(), None);
    lines(from, |line| {
        let fields = Fields::of(line);
        let Some(name) = fields.get("ReservationName") else {
            if !line.starts_with("No reservations") {
                odd.get_or_insert_with(|| line.chars().take(100).collect::<String>());
            }
            return;
        };
        all.push(Reservation {
            name: name.to_owned(),
            state: fields.text("State"),
            users: fields.text("Users"),
            nodes: fields.text("Nodes"),
            partition: fields.text("PartitionName"),
            flags: fields.text("Flags"),
            start: fields.number("StartTime"),
            end: fields.number("EndTime"),
            node_count: fields.number("NodeCnt"),
            core_count: fields.number("CoreCnt"),
        });
    })?;
    complain(odd, "a line of reservations").map(|()| all)
}

/// `scontrol ping`: `Slurmctld(primary) at vm is UP`
pub fn pings(text: &str) -> Result<Vec<Controller>, Failure> {
    let all: Vec<Controller> = text.lines().filter_map(ping).collect();
    if all.is_empty() {
        let start: String = text.chars().take(100).collect();
        return Err(Failure::new("parse", format!("`scontrol ping` names no controller: {start:?}")));
    }
    Ok(all)
}

fn ping(line: &str) -> Option<Controller> {
    let (mode, rest) = line.trim().strip_prefix("Slurmctld(")?.split_once(')')?;
    let (host, state) = rest.trim().strip_prefix("at ")?.rsplit_once(" is ")?;
    Some(Controller { host: host.trim().to_owned(), mode: mode.to_owned(), up: state.trim() == "UP" })
}

/// `sinfo -h -N -n NODES -o %N|%T`: which of them are there and heard of.
pub fn heard(text: &str) -> Vec<String> {
    let is_there = |(name, state): (&str, &str)| {
        let state = state.trim();
        let gone = state.ends_with('*') || matches!(status([state]).word(), "down" | "unknown" | "error");
        (!gone).then(|| name.trim().to_owned())
    };
    text.lines().filter_map(|l| l.split_once('|')).filter_map(is_there).collect()
}

/// `sdiag`
pub fn diag(text: &str) -> Result<Scheduler, Failure> {
    let mut found = Scheduler::default();
    let (mut section, mut any) = (Section::Top, false);
    for line in text.lines() {
        let line = line.trim();
        section = match line {
            l if l.starts_with("Main schedule statistics") => Section::Main,
            l if l.starts_with("Backfilling stats") => Section::Backfill,
            l if l.starts_with("Remote Procedure Call statistics by message type") => Section::Operations,
            l if l.starts_with("Remote Procedure Call statistics by user") => Section::Users,
            l if l.starts_with("Pending RPC")
                || l.starts_with("Main scheduler exit")
                || l.starts_with("Backfill exit") =>
            {
                Section::Other
            }
            _ => section,
        };
        match section {
            Section::Operations => found.by_operation.extend(rpc(line)),
            Section::Users => found.by_user.extend(rpc(line)),
            _ => any |= field(&mut found, section, line).is_some(),
        }
    }
    if any { Ok(found) } else { Err(Failure::new("parse", "`sdiag` printed no statistics")) }
}

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Top,
    Main,
    Backfill,
    Operations,
    Users,
    Other,
}

fn field(to: &mut Scheduler, section: Section, line: &str) -> Option<()> {
    let (key, value) = line.rsplit_once(':')?;
    let value: f64 = value.trim().parse().ok()?;
    let place = match (section, key.trim()) {
        (Section::Top, "Server thread count") => &mut to.threads,
        (Section::Top, "Agent queue size") => &mut to.queue_size,
        (Section::Top, "DBD Agent queue size") => &mut to.dbd_queue_size,
        (Section::Top, "Jobs submitted") => &mut to.jobs_submitted,
        (Section::Top, "Jobs started") => &mut to.jobs_started,
        (Section::Top, "Jobs completed") => &mut to.jobs_completed,
        (Section::Top, "Jobs canceled") => &mut to.jobs_canceled,
        (Section::Top, "Jobs failed") => &mut to.jobs_failed,
        (Section::Main, "Last cycle") => &mut to.last_cycle,
        (Section::Main, "Mean cycle") => &mut to.mean_cycle,
        (Section::Main, "Cycles per minute") => &mut to.cycle_per_minute,
        (Section::Backfill, "Last cycle") => &mut to.backfill_last_cycle,
        (Section::Backfill, "Mean cycle") => &mut to.backfill_mean_cycle,
        (Section::Backfill, "Depth Mean") => &mut to.backfill_depth_mean,
        (Section::Backfill, "Total backfilled jobs (since last slurm start)") => {
            &mut to.backfilled_since_start
        }
        (Section::Backfill, "Total backfilled jobs (since last stats cycle start)") => {
            &mut to.backfilled_since_cycle
        }
        (Section::Backfill, "Total backfilled heterogeneous job components") => {
            &mut to.backfilled_heterogeneous
        }
        _ => return None,
    };
    *place = Some(value);
    Some(())
}

/// `REQUEST_NODE_INFO ( 2007) count:4 ave_time:298 total_time:1193`
fn rpc(line: &str) -> Option<Rpc> {
    let (name, _) = line.split_once('(')?;
    let value = |key: &str| -> Option<f64> {
        let (_, rest) = line.split_once(key)?;
        rest.split_whitespace().next()?.parse().ok()
    };
    Some(Rpc {
        name: name.trim().to_owned(),
        count: value(" count:")?,
        average_time: value(" ave_time:")?,
        total_time: value(" total_time:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons() {
        for (line, wanted) in [
            (
                "A=b Reason=bad [cable] | x [root@1795272401]",
                ("bad [cable] | x", "root", Some(1_795_272_401.0)),
            ),
            ("A=b Reason=Not responding [slurm@2026-11-21T07:42:28]", ("Not responding", "slurm", None)),
            ("A=b Reason=x [a@1] Comment=y", ("x", "a", Some(1.0))),
            ("A=b Reason=no more", ("no more", "", None)),
            ("A=b", ("", "", None)),
        ] {
            let (text, user, since) = reason(line);
            assert_eq!((text.as_str(), user.as_str(), since), wanted, "{line}");
        }
    }

    #[test]
    fn a_reason_is_not_taken_for_fields() {
        let line =
            "NodeName=a CPUTot=4 State=IDLE+DRAIN Partitions=p  Reason=x State=IDLE CPUTot=99 [root@5]";
        let mut all = Vec::new();
        nodes(line.as_bytes(), |n| all.push(n)).unwrap();
        assert_eq!(
            (all[0].status.word(), all[0].cpus, all[0].reason.as_str()),
            ("drained", 4, "x State=IDLE CPUTot=99")
        );
    }

    #[test]
    fn controllers() {
        let all = pings("Slurmctld(primary) at a is DOWN\nSlurmctld(backup) at b.example is UP\n\n").unwrap();
        let told: Vec<_> = all.iter().map(|c| (c.mode.as_str(), c.host.as_str(), c.up)).collect();
        assert_eq!(told, [("primary", "a", false), ("backup", "b.example", true)]);
        assert!(pings("slurm_load_ctl_conf error").is_err());
        assert_eq!(heard("a|idle\nb|down*\nc|drained\nd|idle*\n"), ["a", "c"]);
    }

    proptest::proptest! {
        #[test]
        fn foreign_text_never_panics(text in "[\\PC\\n]{0,300}") {
            let _ = nodes(text.as_bytes(), |_| {});
            let _ = jobs(text.as_bytes(), |_| {});
            let _ = (partitions(text.as_bytes()), reservations(text.as_bytes()), pings(&text), diag(&text), heard(&text));
            let _ = crate::json::nodes(text.as_bytes(), |_| {});
            let _ = crate::json::jobs(text.as_bytes(), |_| {});
        }
    }
}
