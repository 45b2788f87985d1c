//! The action plugins of the node: loaded, and by what rules of the operator's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use picket_agent_host::ActionDefinition;
use picket_proto::model::PluginId;
use picket_proto::v1;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use super::actor::{About, Actor};
use crate::schedule::{RefusedVersion, SourceSpec, State, StatusBoard};

/// An action plugin, as the operator wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct ActionPlanned {
    pub spec: SourceSpec,
    pub rules: Rules,
}

/// What the operator says of one plugin's actions.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Rules {
    /// Which of them; empty: all that it has.
    pub allow: Vec<String>,
    /// Which of them need an admin's word, beside those that are dangerous by what they say of themselves.
    pub approve: Vec<String>,
    /// None: the node's.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "seconds")]
    pub cooldown: Option<Duration>,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn seconds<S: serde::Serializer>(time: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => s.collect_str(&crate::config::format_duration(*time)),
        None => s.serialize_none(),
    }
}

impl Rules {
    pub fn allows(&self, action: &str) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|a| a == action)
    }

    pub fn wants_approval(&self, definition: &ActionDefinition) -> bool {
        definition.is_dangerous() || self.approve.contains(&definition.name)
    }
}

/// A loaded action plugin.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub about: About,
    pub rules: Rules,
    pub actor: Arc<Mutex<Box<dyn Actor>>>,
}

impl Entry {
    pub fn definition(&self, action: &str) -> Option<&ActionDefinition> {
        self.about.definitions.iter().find(|d| d.name == action && self.rules.allows(action))
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Book {
    specs: BTreeMap<PluginId, ActionPlanned>,
    entries: BTreeMap<PluginId, Entry>,
}

impl Book {
    pub fn get(&self, plugin: &str) -> Option<&Entry> {
        self.entries.iter().find(|(id, _)| id.as_str() == plugin).map(|(_, entry)| entry)
    }

    /// As the operator wants it.
    pub fn planned(&self, id: &PluginId) -> Option<&ActionPlanned> {
        self.specs.get(id)
    }

    pub fn names(&self) -> Vec<&str> {
        self.entries.keys().map(PluginId::as_str).collect()
    }

    /// What these plans change: those to load, after the others went.
    pub fn keep(&mut self, planned: Vec<ActionPlanned>, board: &StatusBoard) -> Vec<ActionPlanned> {
        let wanted: Vec<&PluginId> = planned.iter().map(|p| &p.spec.id).collect();
        let gone: Vec<PluginId> = self.specs.keys().filter(|id| !wanted.contains(id)).cloned().collect();
        for id in gone {
            self.specs.remove(&id);
            self.entries.remove(&id);
            board.remove(&id);
            tracing::info!(plugin = %id, "action plugin dropped: it is no longer configured");
        }
        let mut load = Vec::new();
        for one in planned {
            let id = one.spec.id.clone();
            // The file may be another one by now: it is looked at again at every reload.
            board.update(&id, |line| {
                line.file.clone_from(&one.spec.file);
                line.grants = one.spec.grants.iter().map(|scope| scope.capability().word()).collect();
                line.grants.sort_unstable();
                line.grants.dedup();
            });
            load.push(one.clone());
            self.specs.insert(id, one);
        }
        load
    }

    /// It runs from now on. `swapped`: another version ran before.
    pub fn loaded(&mut self, one: ActionPlanned, actor: Box<dyn Actor>, swapped: bool, board: &StatusBoard) {
        let id = one.spec.id;
        let about = actor.about().clone();
        tracing::info!(plugin = %id, version = about.version, digest = about.digest, "action plugin loaded");
        board.update(&id, |line| {
            line.state = State::Running;
            line.reason.clear();
            line.code.clear();
            line.refused = None;
            line.version.clone_from(&about.version);
            line.digest.clone_from(&about.digest);
            line.world.clone_from(&about.world);
            line.description.clone_from(&about.description);
            line.swaps.done += u64::from(swapped);
        });
        let entry = Entry { about, rules: one.rules, actor: Arc::new(Mutex::new(actor)) };
        self.entries.insert(id, entry);
    }

    /// What the operator put there can't run: nothing does, since no action is done by an older version than that one.
    pub fn refused(&mut self, id: &PluginId, told: &RefusedVersion, board: &StatusBoard) {
        self.entries.remove(id);
        self.kept(id, told, board);
    }

    /// What was offered can't run: what ran before runs on, if anything did.
    pub fn kept(&self, id: &PluginId, told: &RefusedVersion, board: &StatusBoard) {
        let RefusedVersion { digest, version, code, reason } = told;
        tracing::error!(plugin = %id, code, digest, version, "action plugin refused: {reason}");
        let kept = self.entries.contains_key(id);
        board.update(id, |line| {
            line.code.clone_from(code);
            line.swaps.refused += u64::from(kept);
            if kept {
                line.reason = told.former();
            } else {
                line.state = State::Refused;
                line.reason.clone_from(reason);
            }
            line.refused = Some(told.clone());
        });
    }

    /// Nothing is there to be run.
    pub fn removed(&mut self, id: &PluginId, why: &str, board: &StatusBoard) {
        self.entries.remove(id);
        tracing::info!(plugin = %id, "action plugin stopped: {why}");
        board.update(id, |line| line.remove(why));
    }

    /// For the aggregator.
    pub fn report(&self) -> Vec<v1::ActionPlugin> {
        self.entries
            .iter()
            .map(|(id, entry)| {
                let actions: Vec<_> = entry
                    .about
                    .definitions
                    .iter()
                    .filter(|d| entry.rules.allows(&d.name))
                    .map(|d| {
                        json!({
                            "name": d.name, "summary": d.summary, "parameters": d.parameters,
                            "disturbs": d.disturbs, "reversible": d.reversible,
                            "dangerous": entry.rules.wants_approval(d),
                        })
                    })
                    .collect();
                v1::ActionPlugin {
                    id: id.as_str().to_owned(),
                    version: entry.about.version.clone(),
                    digest: entry.about.digest.clone(),
                    actions_json: serde_json::Value::Array(actions).to_string(),
                }
            })
            .collect()
    }
}
