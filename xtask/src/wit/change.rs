//! What changed between two versions of a package, and for whom.

use super::shape::Package;

#[derive(Debug, Default)]
pub struct Change {
    removed: Vec<String>,
    changed: Vec<(String, String, String)>,
    /// New, and a plugin that was built before has it not.
    asked: Vec<String>,
    added: Vec<String>,
}

impl Change {
    pub fn between(was: &Package, is: &Package) -> Self {
        let mut change = Self::default();
        for (name, item) in &was.items {
            match is.items.get(name) {
                None => change.removed.push(name.clone()),
                Some(now) if now.shape != item.shape => {
                    change.changed.push((name.clone(), item.shape.clone(), now.shape.clone()));
                }
                // What was the host's to give is now the plugin's, or the other way round.
                Some(now) if now.asked && !item.asked => change.asked.push(name.clone()),
                Some(_) => {}
            }
        }
        for (name, item) in is.items.iter().filter(|(name, _)| !was.items.contains_key(*name)) {
            // In a new interface or world it is asked of nobody who was there before.
            if item.asked && was.items.contains_key(&item.within) {
                change.asked.push(name.clone());
            } else {
                change.added.push(name.clone());
            }
        }
        change
    }

    /// A plugin that was built before does not run any more.
    pub const fn breaks(&self) -> bool {
        !self.removed.is_empty() || !self.changed.is_empty() || !self.asked.is_empty()
    }

    pub const fn adds(&self) -> bool {
        !self.added.is_empty()
    }

    pub const fn kind(&self) -> &'static str {
        match (self.breaks(), self.adds()) {
            (true, _) => "breaks",
            (false, true) => "adds",
            (false, false) => "the same",
        }
    }

    pub fn lines(&self) -> impl Iterator<Item = String> {
        let removed = self.removed.iter().map(|name| format!("{name} was removed"));
        let changed = self.changed.iter().map(|(name, was, is)| format!("{name} changed from {was} to {is}"));
        let asked = self.asked.iter().map(|name| format!("{name} is asked of plugins that have it not"));
        let added = self.added.iter().map(|name| format!("{name} was added"));
        removed.chain(changed).chain(asked).chain(added)
    }
}
