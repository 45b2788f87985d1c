//! What can be told of a plugin without running any of it: the first half of a load, and all of `check-config`.

use std::io::Read;
use std::path::Path;

use picket_agent_services::grants::{Admission, Refusal, admit};

use crate::compiler::sha256;
use crate::component::{Component, Role, inspect};
use crate::error::codes;
use crate::manifest::Manifest;
use crate::settings::problems;
use crate::{Phase, PluginError, PluginSpec};

/// The largest component that is read, in bytes.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// A plugin that is admitted.
#[derive(Debug)]
pub struct Checked {
    /// SHA-256 of the component file, hex.
    pub digest: String,
    /// The very bytes that were checked: what is compiled is nothing else.
    pub(crate) bytes: Vec<u8>,
    pub(crate) component: Component,
    pub(crate) admission: Admission,
}

impl Checked {
    /// The manifest's version; empty where there is no manifest.
    pub fn version(&self) -> &str {
        self.component.manifest.as_ref().map_or("", |m| m.version.as_str())
    }
}

/// Reads the file, looks into it, holds its needs against the grants and its settings against its own schema. Blocks on
/// the disk.
///
/// # Errors
/// [`PluginError`] of the phases up to [`Phase::Admit`], and PKT-0068 for settings.
pub fn check(spec: &PluginSpec) -> Result<Checked, PluginError> {
    check_as(spec, Role::Source)
}

/// The same of an action.
///
/// # Errors
/// As [`check`].
pub fn check_action(spec: &PluginSpec) -> Result<Checked, PluginError> {
    check_as(spec, Role::Action)
}

fn check_as(spec: &PluginSpec, role: Role) -> Result<Checked, PluginError> {
    let id = &spec.id;
    let shown = spec.file.display();
    let error = |phase, code, message: String| PluginError::new(id, phase, code, message);
    let bytes = read(&spec.file)
        .map_err(|e| error(Phase::Read, &codes::UNREADABLE, format!("{shown} cannot be read")).because(e))?
        .ok_or_else(|| {
            let message = format!("{shown} is larger than {MAX_COMPONENT_BYTES} bytes");
            error(Phase::Read, &codes::TOO_LARGE, message)
        })?;
    let digest = sha256(&bytes);
    let component = inspect(&bytes).map_err(|unfit| {
        let phase = if unfit.code == &codes::MANIFEST { Phase::Manifest } else { Phase::Read };
        error(phase, unfit.code, format!("{shown}: {}", unfit.message)).of("", &digest)
    })?;
    if component.role != role {
        let message = match role {
            Role::Source => format!(
                "{shown} is an action, configured as a source: write role = \"action\" in its section"
            ),
            Role::Action => {
                format!("{shown} is a source, configured as an action: leave out role = \"action\"")
            }
        };
        return Err(error(Phase::Admit, &codes::OTHER_WORLD, message).of("", &digest));
    }
    let manifest = component.manifest.as_ref();
    let version = manifest.map(|m| m.version.clone()).unwrap_or_default();
    let needs = manifest.map(|m| m.needs.as_slice());
    let admission = admit(id, needs, &component.capabilities, &spec.grants)
        .map_err(|refusal| refused(spec, &refusal).of(&version, &digest))?;
    if let Some(schema) = manifest.and_then(|m| m.config.as_ref()) {
        let found = problems(schema, &spec.settings);
        if !found.is_empty() {
            let message = found.join("; ");
            return Err(error(Phase::Configure, &codes::SETTINGS, message).of(&version, &digest));
        }
    }
    Ok(Checked { digest, bytes, component, admission })
}

/// The manifest of a component file, which nothing else of is looked at.
///
/// # Errors
/// For a person: the file cannot be read, is no plugin for this agent, or has no manifest.
pub fn manifest_of(file: &Path) -> Result<Manifest, String> {
    let shown = file.display();
    let bytes = read(file)
        .map_err(|e| format!("{shown} cannot be read: {e}"))?
        .ok_or_else(|| format!("{shown} is larger than {MAX_COMPONENT_BYTES} bytes"))?;
    let component = inspect(&bytes).map_err(|unfit| format!("{shown}: {}", unfit.message))?;
    component.manifest.ok_or_else(|| format!("{shown} has no manifest"))
}

fn refused(spec: &PluginSpec, refusal: &Refusal) -> PluginError {
    let code = match refusal {
        Refusal::NotGranted { .. } => &codes::NOT_GRANTED,
        Refusal::NotNamed { .. } => &codes::NOT_NAMED,
        Refusal::Malformed { operator: true, .. } => &codes::BAD_GRANT,
        Refusal::Malformed { operator: false, .. } => &codes::BAD_NEED,
    };
    PluginError::new(&spec.id, Phase::Admit, code, refusal.to_string())
}

/// The file's bytes; none where there are too many.
fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_COMPONENT_BYTES).then_some(bytes))
}
