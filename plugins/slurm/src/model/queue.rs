//! Jobs, added up.

use std::collections::BTreeMap;

use super::state::JOB_STATES;

/// One job as a reader has it; an array that was not split yet is as many.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// The place in [`JOB_STATES`]; none: a state that no name stands for.
    pub state: Option<usize>,
    /// Separated by commas where it may start in several.
    pub partition: String,
    pub user: String,
    pub account: String,
    pub reason: String,
    pub cpus: u64,
    pub gpus: u64,
    pub tasks: u64,
}

/// Who or where, beside the state.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    pub user: String,
    pub partition: String,
    /// Of pending jobs alone.
    pub reason: String,
}

/// What one user or account has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owner {
    pub pending: u64,
    pub running: u64,
    pub suspended: u64,
    pub cpus_running: u64,
    pub gpus_running: u64,
}

/// All jobs of one reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queue {
    pub by_state: [u64; JOB_STATES.len()],
    pub pending_dependency: u64,
    pub cores_pending: u64,
    pub cores_running: u64,
    pub pending_by_reason: BTreeMap<String, u64>,
    pub partition_pending: BTreeMap<String, u64>,
    pub partition_running: BTreeMap<String, u64>,
    pub users: BTreeMap<String, Owner>,
    pub accounts: BTreeMap<String, Owner>,
    /// Jobs and cores by state, for the labels of one of the exporters that are followed.
    pub detailed: BTreeMap<(usize, QueueKey), (u64, u64)>,
}

const PENDING: usize = 0;
const RUNNING: usize = 1;
const SUSPENDED: usize = 2;
/// Names of one kind that are kept while counting; a cluster with more has the rest in one.
const MOST_NAMES: usize = 20_000;
const REST: &str = "other";

impl Queue {
    pub fn add(&mut self, job: &Job) {
        let Some(state) = job.state else { return };
        let Some(count) = self.by_state.get_mut(state) else { return };
        let jobs = job.tasks.max(1);
        *count = count.saturating_add(jobs);
        let cores = job.cpus.saturating_mul(jobs);
        let reason = if state == PENDING { reason_word(&job.reason) } else { String::new() };
        match state {
            PENDING => {
                self.cores_pending = self.cores_pending.saturating_add(cores);
                if reason == "Dependency" {
                    self.pending_dependency += jobs;
                }
                *entry(&mut self.pending_by_reason, &reason) += jobs;
            }
            RUNNING => self.cores_running = self.cores_running.saturating_add(cores),
            _ => {}
        }
        for partition in job.partition.split(',').filter(|p| !p.is_empty()) {
            match state {
                PENDING => *entry(&mut self.partition_pending, partition) += jobs,
                RUNNING => *entry(&mut self.partition_running, partition) += jobs,
                _ => {}
            }
            let key =
                QueueKey { user: job.user.clone(), partition: partition.to_owned(), reason: reason.clone() };
            let rest =
                || QueueKey { user: REST.to_owned(), partition: REST.to_owned(), reason: String::new() };
            let full =
                self.detailed.len() >= MOST_NAMES && !self.detailed.contains_key(&(state, key.clone()));
            let (n, c) = self.detailed.entry((state, if full { rest() } else { key })).or_default();
            *n = n.saturating_add(jobs);
            *c = c.saturating_add(cores);
        }
        for (owners, name) in [(&mut self.users, &job.user), (&mut self.accounts, &job.account)] {
            let owner = entry(owners, if name.is_empty() { "none" } else { name });
            match state {
                PENDING => owner.pending += jobs,
                RUNNING => {
                    owner.running += jobs;
                    owner.cpus_running = owner.cpus_running.saturating_add(cores);
                    owner.gpus_running = owner.gpus_running.saturating_add(job.gpus.saturating_mul(jobs));
                }
                SUSPENDED => owner.suspended += jobs,
                _ => {}
            }
        }
    }

    /// The `most` that have or want most, by name; all others in one called `other`.
    pub fn top(owners: &BTreeMap<String, Owner>, most: usize) -> Vec<(String, Owner)> {
        let live = |o: &Owner| *o != Owner::default();
        let mut list: Vec<(&String, &Owner)> = owners.iter().filter(|(_, o)| live(o)).collect();
        if list.len() <= most {
            return list.into_iter().map(|(n, o)| (n.clone(), *o)).collect();
        }
        list.sort_by_key(|(name, o)| {
            (std::cmp::Reverse((o.gpus_running, o.cpus_running, o.running, o.pending)), (*name).clone())
        });
        let mut rest = Owner::default();
        let mut top: BTreeMap<String, Owner> = BTreeMap::new();
        for (i, (name, owner)) in list.into_iter().enumerate() {
            if i < most && name != REST {
                top.insert(name.clone(), *owner);
            } else {
                rest.pending += owner.pending;
                rest.running += owner.running;
                rest.suspended += owner.suspended;
                rest.cpus_running += owner.cpus_running;
                rest.gpus_running += owner.gpus_running;
            }
        }
        top.insert(REST.to_owned(), rest);
        top.into_iter().collect()
    }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, name: &str) -> &'a mut V {
    let name = if map.len() >= MOST_NAMES && !map.contains_key(name) { REST } else { name };
    map.entry(name.to_owned()).or_default()
}

/// Slurm's reasons are single words; what is not is none of them.
fn reason_word(reason: &str) -> String {
    let reason = reason.trim().trim_start_matches('(').trim_end_matches(')');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if reason.is_empty() || reason.len() > 64 {
        return "None".to_owned();
    }
    if reason.chars().all(plain) { reason.to_owned() } else { "Other".to_owned() }
}

/// How many tasks of an array wait, of what Slurm writes: `1-10,20%5` are eleven; `1-9:2` are five.
pub fn tasks(text: &str) -> u64 {
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let text = text.split_once('%').map_or(text, |(list, _)| list);
    let mut all = 0u64;
    for part in text.split(',') {
        let (range, step) = part.split_once(':').unwrap_or((part, "1"));
        let step: u64 = step.parse().ok().filter(|s| *s > 0).unwrap_or(1);
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) else { continue };
        if last >= first {
            all = all.saturating_add(((last - first) / step).saturating_add(1));
        }
    }
    all.clamp(1, 10_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays() {
        for (text, wanted) in [
            ("", 1),
            ("N/A", 1),
            ("7", 1),
            ("1-10", 10),
            ("1-10%2", 10),
            ("[1-10,20%5]", 11),
            ("1-9:2", 5),
            ("1,3,5-6", 4),
            ("1-3,...", 3),
            ("5-1", 1),
            ("0-18446744073709551615", 10_000_000),
        ] {
            assert_eq!(tasks(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_rest_is_one() {
        let mut queue = Queue::default();
        for i in 0..50u64 {
            for _ in 0..=i {
                let job = Job {
                    state: Some(RUNNING),
                    user: format!("u{i:02}"),
                    account: "a".to_owned(),
                    cpus: 2,
                    gpus: 1,
                    tasks: 1,
                    partition: "p,q".to_owned(),
                    ..Job::default()
                };
                queue.add(&job);
            }
        }
        let top = Queue::top(&queue.users, 3);
        let names: Vec<&str> = top.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["other", "u47", "u48", "u49"]);
        let jobs: u64 = top.iter().map(|(_, o)| o.running).sum();
        assert_eq!((jobs, queue.by_state[RUNNING]), (1275, 1275));
        assert_eq!(queue.partition_running["q"], 1275);
        assert_eq!(queue.accounts["a"].gpus_running, 1275);
        assert_eq!(Queue::top(&queue.accounts, 3).len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_job_is_lost(jobs in proptest::collection::vec((0usize..11, 0u8..40, 0u64..5), 0..200), most in 0usize..50) {
            let mut queue = Queue::default();
            for (state, user, cpus) in &jobs {
                queue.add(&Job {
                    state: Some(*state), user: format!("u{user}"), cpus: *cpus, tasks: 1,
                    partition: "p".to_owned(), ..Job::default()
                });
            }
            proptest::prop_assert_eq!(queue.by_state.iter().sum::<u64>(), jobs.len() as u64);
            let top = Queue::top(&queue.users, most);
            proptest::prop_assert!(top.len() <= most + 1);
            proptest::prop_assert_eq!(top.iter().map(|(_, o)| o.running).sum::<u64>(), queue.by_state[RUNNING]);
            proptest::prop_assert_eq!(queue.detailed.values().map(|(n, _)| n).sum::<u64>(), jobs.len() as u64);
        }

        #[test]
        fn tasks_never_panic(text in "\\PC{0,40}") {
            proptest::prop_assert!(tasks(&text) >= 1);
        }
    }
}
