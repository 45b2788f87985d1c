//! A cluster of canned answers.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, dead_code)] // a test helper: what fails here fails the test

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use picket_plugin_slurm::Slurm;
use picket_sdk::command::{CommandError, Output};
use picket_sdk::system::Uname;
use picket_sdk::testing::Host;

pub fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub fn ok(stdout: impl Into<Vec<u8>>) -> Result<Output, CommandError> {
    Ok(Output { status: 0, stdout: stdout.into(), stderr: String::new() })
}

pub fn failed(status: i32, stderr: &str) -> Result<Output, CommandError> {
    Ok(Output { status, stdout: Vec::new(), stderr: stderr.to_owned() })
}

/// What each command answers, and how often it was asked.
#[derive(Clone, Default)]
pub struct Cluster(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    answers: BTreeMap<String, Result<Output, CommandError>>,
    asked: BTreeMap<String, usize>,
}

impl Cluster {
    /// The text of `version`, and JSON where it has some.
    pub fn of(version: &str, json: &[(&str, &str)]) -> Self {
        let cluster = Self::default();
        for (command, file) in [
            ("slurm-ping", "ping.txt"),
            ("slurm-nodes", "nodes.txt"),
            ("slurm-jobs", "jobs.txt"),
            ("slurm-partitions", "partitions.txt"),
            ("slurm-reservations", "reservations.txt"),
            ("slurm-diag", "sdiag.txt"),
        ] {
            cluster.set(command, ok(fixture(&format!("{version}/{file}"))));
        }
        for command in ["slurm-nodes-json", "slurm-nodes-json-old", "slurm-jobs-json"] {
            cluster.set(command, failed(1, "unrecognized option '--json'"));
        }
        for (command, file) in json {
            cluster.set(command, ok(fixture(file)));
        }
        cluster
    }

    pub fn set(&self, command: &str, answer: Result<Output, CommandError>) {
        self.0.borrow_mut().answers.insert(command.to_owned(), answer);
    }

    pub fn asked(&self, command: &str) -> usize {
        self.0.borrow().asked.get(command).copied().unwrap_or(0)
    }

    pub fn host(&self, settings: &serde_json::Value) -> Host<Slurm> {
        let mut host = Host::new();
        host.uname(Uname { nodename: "vm".to_owned(), ..Uname::default() });
        let inner = self.0.clone();
        host.command(move |name, _| {
            let mut inner = inner.borrow_mut();
            *inner.asked.entry(name.to_owned()).or_default() += 1;
            inner.answers.get(name).cloned().unwrap_or_else(|| Err(CommandError::Denied(name.to_owned())))
        });
        host.configure(settings).unwrap();
        host
    }
}
