//! The targets that settings and discovery files name.
//!
//! A file that can't be read or understood is counted, and what it said last goes on to hold: a file in the midst of
//! being written must not stop what it names.

use std::collections::{BTreeMap, HashMap};

use picket_sdk::exposition::Relabel;
use picket_sdk::{Collect, Failure, files, upstream};

use crate::settings::{Group, Job, Settings, is_label};

/// An exporter that is to be asked.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub url: String,
    pub job: String,
    /// Added to its series: `job`, `target` and others.
    pub labels: Vec<(String, String)>,
    pub secret: Option<String>,
    pub timeout_ms: u64,
    pub sample_limit: u64,
    pub timestamps: bool,
    pub rules: Vec<Relabel>,
}

/// The same settings make the same rules.
impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        (&self.url, &self.job, &self.labels) == (&other.url, &other.job, &other.labels)
    }
}

/// What the files said last.
#[derive(Debug, Default)]
pub struct Discovery {
    files: HashMap<String, Vec<Group>>,
}

impl Discovery {
    /// All targets, each once, no more than the settings allow.
    pub fn targets(&mut self, settings: &Settings, collect: &mut Collect<'_>) -> Vec<Wanted> {
        let mut all: Vec<Wanted> = Vec::new();
        let mut over = 0_usize;
        let mut read: Vec<String> = Vec::new();
        for job in &settings.jobs {
            let mut groups: Vec<(String, Group)> =
                job.static_configs.iter().map(|g| (String::new(), g.clone())).collect();
            for pattern in job.file_sd_configs.iter().flat_map(|d| &d.files) {
                for path in paths(pattern, collect) {
                    self.read(&path, collect);
                    let of_file = self.files.get(&path).into_iter().flatten();
                    groups.extend(of_file.map(|g| (path.clone(), g.clone())));
                    read.push(path);
                }
            }
            for (path, group) in &groups {
                for address in &group.targets {
                    match wanted(settings, job, path, &group.labels, address) {
                        Ok(Some(wanted)) if all.contains(&wanted) => {}
                        Ok(Some(_)) if all.len() >= settings.targets_limit => over += 1,
                        Ok(Some(wanted)) => all.push(wanted),
                        Ok(None) => {}
                        Err(failure) => collect.failed(failure),
                    }
                }
            }
        }
        self.files.retain(|path, _| read.contains(path));
        if over > 0 {
            let message = format!("{over} targets are left out: targets_limit is {}", settings.targets_limit);
            collect.fail("too-many", &message);
        }
        all
    }

    fn read(&mut self, path: &str, collect: &mut Collect<'_>) {
        let groups = files::read(path).map_err(Failure::from).and_then(|text| {
            serde_json::from_slice::<Vec<Group>>(&text).map_err(|e| {
                Failure::new("discovery", format!("{path} is no list of targets and labels: {e}"))
            })
        });
        match groups {
            Ok(groups) => {
                self.files.insert(path.to_owned(), groups);
            }
            Err(failure) => {
                if failure.reason == "not-found" {
                    self.files.remove(path);
                }
                collect.failed(failure);
            }
        }
    }
}

/// The files that a pattern names, in order.
fn paths(pattern: &str, collect: &mut Collect<'_>) -> Vec<String> {
    let Some((folder, (before, after))) =
        pattern.rsplit_once('/').and_then(|(folder, name)| Some((folder, name.split_once('*')?)))
    else {
        return vec![pattern.to_owned()];
    };
    match files::list_directory(if folder.is_empty() { "/" } else { folder }) {
        Ok(entries) => {
            let fits = |name: &str| {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            };
            let mut found: Vec<String> =
                entries.iter().filter(|e| fits(&e.name)).map(|e| format!("{folder}/{}", e.name)).collect();
            found.sort();
            found
        }
        Err(error) => {
            collect.failed(error);
            Vec::new()
        }
    }
}

/// One target, after the job's rules. None: they drop it.
fn wanted(
    settings: &Settings,
    job: &Job,
    path: &str,
    labels: &BTreeMap<String, String>,
    address: &str,
) -> Result<Option<Wanted>, Failure> {
    let bad =
        |what: &str| Failure::new("discovery", format!("job {}: target {address:?}: {what}", job.job_name));
    // A whole URL, as an exporter's own page has it, is taken apart.
    let (scheme, address, page) = match address.split_once("://") {
        Some((scheme, rest)) => {
            let (host, page) =
                rest.split_at_checked(rest.find('/').unwrap_or(rest.len())).unwrap_or((rest, ""));
            (scheme, host, if page.is_empty() { job.metrics_path.as_str() } else { page })
        }
        None => (job.scheme.as_str(), address, job.metrics_path.as_str()),
    };
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut list = vec![
        own("__address__", address),
        own("__scheme__", scheme),
        own("__metrics_path__", page),
        own("job", &job.job_name),
    ];
    if !path.is_empty() {
        list.push(own("__meta_filepath", path));
    }
    for (name, value) in labels {
        if !is_label(name) {
            return Err(bad(&format!("{name:?} is no label name")));
        }
        list.retain(|(n, _)| n != name);
        list.push(own(name, value));
    }
    if !Relabel::apply_all(&job.relabel_configs, &mut list) {
        return Ok(None);
    }
    let get = |name: &str| list.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let url = format!("{}://{}{}", get("__scheme__"), get("__address__"), get("__metrics_path__"));
    if upstream::origin(&url).is_none() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(bad(&format!("{url:?} is no address")));
    }
    let (job_name, target) = (get("job").to_owned(), get("__address__").to_owned());
    let mut labels: Vec<(String, String)> =
        list.into_iter().filter(|(n, v)| !n.starts_with("__") && !v.is_empty()).collect();
    // The node's own.
    for (name, _) in labels.iter_mut().filter(|(n, _)| n == "instance") {
        "target".clone_into(name);
    }
    if !labels.iter().any(|(n, _)| n == "target") {
        labels.push(("target".to_owned(), target));
    }
    labels.sort();
    labels.dedup_by(|b, a| a.0 == b.0);
    Ok(Some(Wanted {
        url,
        job: job_name,
        labels,
        secret: job.secret.clone(),
        timeout_ms: job.timeout_ms.unwrap_or(settings.timeout_ms),
        sample_limit: job.sample_limit.unwrap_or(settings.sample_limit),
        timestamps: job.honor_timestamps,
        rules: job.metric_relabel_configs.clone(),
    }))
}
