use picket_agent_host::Step;
use proptest::prelude::*;

use super::super::execution::{Accepted, Outcome, State};
use super::*;

fn accepted(id: &str) -> Entry {
    Entry::Accepted(Box::new(Accepted {
        execution: id.to_owned(),
        plugin: "p".to_owned(),
        plugin_digest: "d".to_owned(),
        action: "restart".to_owned(),
        parameters: "{}".to_owned(),
        digest: "x".to_owned(),
        steps: vec![Step {
            summary: "restart\n\"it\"".to_owned(),
            subject_kind: "container".to_owned(),
            subject_id: "a".to_owned(),
            arguments: "{\"a\":1}".to_owned(),
        }],
        reversible: false,
        requested_by: "olga".to_owned(),
        approved_by: String::new(),
        accepted_ms: 1,
        deadline_ms: 2,
    }))
}

fn entries(id: &str) -> Vec<Entry> {
    let execution = || id.to_owned();
    vec![
        accepted(id),
        Entry::Intent { execution: execution(), step: 0, revert: false, at_ms: 1 },
        Entry::Outcome {
            execution: execution(),
            step: 0,
            at_ms: 2,
            outcome: Outcome::Done { before: Some("running".to_owned()), message: "done".to_owned() },
        },
        Entry::Ended { execution: execution(), at_ms: 3, state: State::Succeeded, message: String::new() },
    ]
}

async fn write(journal: &Journal, entries: &[Entry]) {
    for entry in entries {
        journal.write(entry.clone()).await.unwrap();
    }
}

fn known(journal: &Journal) -> Executions {
    journal.read(Clone::clone)
}

#[tokio::test]
async fn a_restart_knows_what_was_known() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 0).unwrap();
    write(&journal, &entries("e1")).await;
    write(&journal, &entries("e2")[..2]).await;
    let again = Journal::open(folder.path(), 0).unwrap();
    assert_eq!(known(&again), known(&journal));
    assert_eq!(again.read(|k| k.open().map(|e| e.accepted.execution.clone()).collect::<Vec<_>>()), ["e2"]);
}

#[tokio::test]
async fn damage_is_set_aside_and_what_stood_before_holds() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 0).unwrap();
    write(&journal, &entries("e1")).await;
    write(&journal, &entries("e2")).await;
    let path = folder.path().join("journal");
    let mut content = std::fs::read(&path).unwrap();
    let middle = content.len() / 2 + 20;
    content[middle] ^= 0x40;
    std::fs::write(&path, &content).unwrap();
    let again = Journal::open(folder.path(), 77).unwrap();
    assert!(again.read(|k| k.get("e1").is_some_and(|e| e.state == State::Succeeded)));
    assert_eq!(std::fs::read(folder.path().join("journal.damaged-77")).unwrap(), content);
    // It goes on being good.
    write(&again, &entries("e3")).await;
    let last = Journal::open(folder.path(), 78).unwrap();
    assert_eq!(known(&last), known(&again));
    assert!(!folder.path().join("journal.damaged-78").exists());
}

#[tokio::test]
async fn a_disk_that_fails_lets_nothing_in() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 0).unwrap();
    {
        let mut inner = lock(&journal.inner);
        // Writing fails from now on, as on a full or broken disk.
        inner.file = File::open(&inner.path).unwrap();
    }
    assert!(matches!(journal.write(accepted("e1")).await, Err(JournalError::File { .. })));
    assert!(matches!(journal.write(accepted("e2")).await, Err(JournalError::Broken { .. })));
    assert!(journal.read(|k| k.get("e1").is_none()));
}

#[tokio::test]
async fn what_grew_long_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path(), 0).unwrap();
    for n in 0..KEPT + 10 {
        let mut inner = lock(&journal.inner);
        for entry in entries(&format!("e{n}")) {
            inner.known.take(&entry);
            inner.entries.push(entry);
        }
    }
    lock(&journal.inner).compact().unwrap();
    write(&journal, &entries("last")).await;
    let again = Journal::open(folder.path(), 0).unwrap();
    assert!(again.read(|k| k.get("e9").is_none() && k.get("e10").is_some() && k.get("last").is_some()));
    assert_eq!(known(&again), known(&journal));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The power goes at any byte: what was told to be on the disk is, and nothing else.
    #[test]
    fn a_journal_that_was_cut_anywhere_is_a_beginning_of_it(cut in 0.0f64..1.0) {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<Entry> = ["e1", "e2"].iter().flat_map(|id| entries(id)).collect();
        let text: String = all.iter().map(line).collect();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = (text.len() as f64 * cut) as usize;
        std::fs::write(folder.path().join("journal"), &text.as_bytes()[..at]).unwrap();
        let journal = Journal::open(folder.path(), 1).unwrap();
        let whole = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        let mut wanted = Executions::default();
        all.iter().take(whole).for_each(|entry| wanted.take(entry));
        prop_assert_eq!(known(&journal), wanted);
        prop_assert!(!folder.path().join("journal.damaged-1").exists());
    }

    #[test]
    fn foreign_bytes_are_no_journal(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let (entries, good, _) = parse(&bytes);
        prop_assert!(good as usize <= bytes.len());
        prop_assert!(entries.len() <= bytes.len());
    }
}
