//! A plugin and its interning, run: the same natively and in the guest.

use std::cell::RefCell;
use std::rc::Rc;

use crate::core::Core;
use crate::model::FamilyDef;
use crate::{Collect, Controllable, Describe, Failure, Refused, Source};

/// One instance of a plugin.
pub struct Runner<P> {
    pub(crate) plugin: P,
    core: Rc<RefCell<Core>>,
}

impl<P: Source> Runner<P> {
    pub(crate) fn new() -> Self {
        let core = Rc::new(RefCell::new(Core::new()));
        let plugin = P::describe(&mut Describe { core: core.clone() });
        Self { plugin, core }
    }

    pub(crate) fn families(&self) -> Vec<FamilyDef> {
        let core = self.core.borrow();
        let declared = core.families.iter().filter(|f| !f.dynamic);
        declared
            .map(|family| {
                let mut def = family.def.clone();
                for (name, _) in &core.constant {
                    if !def.label_names.contains(name) {
                        def.label_names.push(name.clone());
                    }
                }
                def
            })
            .collect()
    }

    pub(crate) fn configure(&mut self, settings: &str) -> Result<(), Failure> {
        let settings = if settings.trim().is_empty() { "{}" } else { settings };
        let settings = serde_json::from_str(settings)
            .map_err(|e| Failure::new("settings", format!("the settings are not valid: {e}")))?;
        self.plugin.configure(settings)
    }

    pub(crate) fn collect(&mut self) -> Result<(), Failure> {
        self.core.borrow_mut().begin();
        let done = self.plugin.collect(&mut Collect { core: &self.core });
        self.core.borrow_mut().finish();
        done
    }
}

/// Why a control call failed.
pub(crate) enum ControlFailure {
    Refused(Refused),
    Other(String),
}

impl<P: Controllable> Runner<P> {
    pub(crate) fn control(&self) -> Result<String, String> {
        serde_json::to_string(&self.plugin.control()).map_err(|e| e.to_string())
    }

    pub(crate) fn set_control(&mut self, text: &str) -> Result<String, ControlFailure> {
        let control = serde_json::from_str(text).map_err(|e| {
            ControlFailure::Refused(Refused::from(format!("the settings are not valid: {e}")))
        })?;
        self.plugin.set_control(control).map_err(ControlFailure::Refused)?;
        self.control().map_err(ControlFailure::Other)
    }
}
