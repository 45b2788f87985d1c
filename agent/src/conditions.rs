//! The plugins' troubles as events: raised once when a plugin stops working, cleared when it works again, also when the
//! agent was restarted in between. For that the open ones are kept in a small file of the state folder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use picket_proto::v1;

use crate::schedule::{PluginStatus, State};

/// The kinds of events, all with the subject `plugin`.
const FAILED: &str = "plugin.failed";
const QUARANTINED: &str = "plugin.quarantined";
const REFUSED: &str = "plugin.refused";
const RECOVERED: &str = "plugin.recovered";

/// Remembers which plugins were last said to be in trouble.
pub struct Conditions {
    file: PathBuf,
    /// Plugin and kind.
    open: BTreeSet<(String, String)>,
    /// The file could not be written, and that was said.
    unwritten: bool,
}

impl Conditions {
    /// Takes up what an earlier run left open. A file that cannot be read counts as an empty one.
    pub fn load(state_dir: &Path) -> Self {
        let file = state_dir.join("conditions.json");
        let open = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, open: open.unwrap_or_default(), unwritten: false }
    }

    /// The events that lie between what was last said and what is so now.
    pub fn turn(&mut self, plugins: &[PluginStatus]) -> Vec<v1::Event> {
        let mut events = Vec::new();
        for plugin in plugins {
            let said = self.open.iter().find(|(id, _)| *id == plugin.id).cloned();
            match (trouble(plugin), said) {
                (Some((kind, _)), Some((_, before))) if kind == before => {}
                // Not known yet: an open condition stays open.
                (None, _) if plugin.state == State::Starting => {}
                (Some((kind, severity)), before) => {
                    if let Some(before) = before {
                        self.open.remove(&before);
                    }
                    self.open.insert((plugin.id.clone(), kind.to_owned()));
                    events.push(event(plugin, kind, severity, false));
                }
                (None, Some(before)) => {
                    self.open.remove(&before);
                    events.push(event(plugin, RECOVERED, v1::Severity::Info, true));
                }
                (None, None) => {}
            }
        }
        // A plugin that is no longer configured is in no trouble.
        let gone: Vec<_> =
            self.open.iter().filter(|(id, _)| !plugins.iter().any(|p| p.id == *id)).cloned().collect();
        for (id, kind) in gone {
            let plugin = PluginStatus { id: id.clone(), ..PluginStatus::default() };
            events.push(event(&plugin, RECOVERED, v1::Severity::Info, true));
            self.open.remove(&(id, kind));
        }
        if !events.is_empty() {
            self.keep();
        }
        events
    }

    /// Says once that the file can't be written, and once that it can again.
    fn keep(&mut self) {
        let new = self.file.with_extension("new");
        let kept = serde_json::to_vec(&self.open)
            .map_err(std::io::Error::from)
            .and_then(|bytes| std::fs::write(&new, bytes))
            .and_then(|()| std::fs::rename(&new, &self.file));
        match kept {
            Err(error) if !self.unwritten => {
                self.unwritten = true;
                tracing::warn!(
                    "{} cannot be written: {error}; a plugin's open trouble is not cleared after a restart",
                    self.file.display()
                );
            }
            Err(_) => {}
            Ok(()) if self.unwritten => {
                self.unwritten = false;
                tracing::info!("{} can be written again", self.file.display());
            }
            Ok(()) => {}
        }
    }
}

fn trouble(plugin: &PluginStatus) -> Option<(&'static str, v1::Severity)> {
    match plugin.state {
        // A former version runs on.
        State::Running if plugin.refused.is_some() => Some((REFUSED, v1::Severity::Warning)),
        State::Starting | State::Running | State::Removed => None,
        State::BackingOff => Some((FAILED, v1::Severity::Warning)),
        State::Quarantined => Some((QUARANTINED, v1::Severity::Critical)),
        State::Refused => Some((REFUSED, v1::Severity::Critical)),
    }
}

fn event(plugin: &PluginStatus, kind: &str, severity: v1::Severity, clear: bool) -> v1::Event {
    let message = match (clear, plugin.reason.as_str()) {
        (false, reason) if plugin.refused.is_some() && plugin.state == State::Running => {
            format!("a new version of the plugin {} is refused: {reason}", plugin.id)
        }
        (true, _) => format!("the plugin {} is in no trouble any more", plugin.id),
        (false, "") => format!("the plugin {} is {}", plugin.id, plugin.state.word()),
        (false, reason) => format!("the plugin {} is {}: {reason}", plugin.id, plugin.state.word()),
    };
    let attributes = [("version", &plugin.version), ("digest", &plugin.digest), ("code", &plugin.code)];
    v1::Event {
        kind: kind.to_owned(),
        severity: severity.into(),
        subject_kind: "plugin".to_owned(),
        subject_id: plugin.id.clone(),
        message,
        attributes: attributes
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| v1::Label { name: name.to_owned(), value: value.clone() })
            .collect(),
        key: format!("plugin/{}", plugin.id),
        clear,
        ..v1::Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(id: &str, state: State) -> PluginStatus {
        PluginStatus { id: id.to_owned(), state, ..PluginStatus::default() }
    }

    fn kinds(events: &[v1::Event]) -> Vec<(String, bool)> {
        events.iter().map(|e| (e.kind.clone(), e.clear)).collect()
    }

    #[test]
    fn a_trouble_is_said_once_and_cleared_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut conditions = Conditions::load(dir.path());
        for (state, said) in [
            (State::Starting, None),
            (State::Running, None),
            (State::BackingOff, Some((FAILED, false))),
            (State::BackingOff, None),
            (State::Quarantined, Some((QUARANTINED, false))),
            (State::Quarantined, None),
            (State::Starting, None),
            (State::Running, Some((RECOVERED, true))),
            (State::Running, None),
            (State::Refused, Some((REFUSED, false))),
        ] {
            let events = conditions.turn(&[plugin("a", state), plugin("b", State::Running)]);
            let said: Vec<_> = said.into_iter().map(|(kind, clear)| (kind.to_owned(), clear)).collect();
            assert_eq!(kinds(&events), said, "{state:?}");
            assert!(events.iter().all(|e| e.key == "plugin/a" && e.subject_id == "a"));
        }
    }

    #[test]
    fn what_was_open_before_a_restart_is_cleared_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut before = Conditions::load(dir.path());
        before.turn(&[plugin("a", State::Quarantined), plugin("b", State::Refused)]);
        let mut after = Conditions::load(dir.path());
        assert!(after.turn(&[plugin("a", State::Starting), plugin("b", State::Starting)]).is_empty());
        // `b` is no longer configured.
        let events = after.turn(&[plugin("a", State::Running)]);
        assert_eq!(kinds(&events), [(RECOVERED.to_owned(), true), (RECOVERED.to_owned(), true)]);
        assert!(Conditions::load(dir.path()).open.is_empty());
    }

    #[derive(Clone, Default)]
    struct Said(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile.
    fn logged(act: impl FnOnce()) -> String {
        let said = Said::default();
        let writer = said.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, act);
        let bytes = said.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_disk_that_refuses_is_warned_of_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("gone");
        let mut conditions = Conditions::load(&state);
        let said = logged(|| {
            for state in [State::Quarantined, State::Running, State::Refused, State::Running] {
                assert_eq!(conditions.turn(&[plugin("a", state)]).len(), 1);
            }
        });
        assert_eq!(said.matches("conditions.json cannot be written").count(), 1, "{said}");
        std::fs::create_dir(&state).unwrap();
        let said = logged(|| {
            conditions.turn(&[plugin("a", State::Quarantined)]);
            conditions.turn(&[plugin("a", State::Running)]);
        });
        assert_eq!(said.matches("can be written again").count(), 1, "{said}");
        std::fs::remove_dir_all(&state).unwrap();
        let said = logged(|| {
            conditions.turn(&[plugin("a", State::Quarantined)]);
        });
        assert_eq!(said.matches("cannot be written").count(), 1, "again, after it was well: {said}");
    }

    #[test]
    fn a_damaged_file_is_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("conditions.json"), b"{\xff").unwrap();
        assert!(Conditions::load(dir.path()).open.is_empty());
    }
}
