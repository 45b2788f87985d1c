//! What a file says of itself, read without compiling it: its kind, its imports and exports, its manifest.
//!
//! Everything here comes from a stranger. Only the component's outermost level is looked at; nothing is run, nothing
//! allocated by a number in the file.

use std::collections::BTreeSet;

use picket_agent_services::grants::Capability;
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentType, ComponentTypeRef, Encoding,
    InstanceTypeDeclaration, Parser, Payload,
};

use crate::error::codes::{self, Code};
use crate::manifest::{self, Manifest};
use crate::versions::{Edition, Unserved, full, served};

/// What is known of a component before it is compiled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Component {
    pub manifest: Option<Manifest>,
    pub capabilities: BTreeSet<Capability>,
    /// It exports `control`.
    pub controllable: bool,
    pub role: Role,
    /// Of the contract's version that its role is exported in.
    pub edition: Edition,
    /// What it imports of a later version than this host's: it may need what is not here.
    pub newer: Option<String>,
}

impl Component {
    /// The world that its exports are of.
    pub(crate) fn world(&self) -> String {
        full(world_of(self.role, self.controllable), self.edition)
    }
}

/// What a component is for, by what it exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Action,
}

impl Role {
    const fn exported(self) -> &'static str {
        match self {
            Self::Source => SOURCE,
            Self::Action => ACTION,
        }
    }
}

/// Why a file is no plugin for this agent.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub code: &'static Code,
    pub message: String,
}

const SOURCE: &str = "picket:source/source";
const CONTROL: &str = "picket:source/control";
const ACTION: &str = "picket:action/action";
const SOURCE_WORLD: &str = "picket:source/source-plugin";
const CONTROLLABLE_WORLD: &str = "picket:source/controllable-source-plugin";
const ACTION_WORLD: &str = "picket:action/action-plugin";

const fn world_of(role: Role, controllable: bool) -> &'static str {
    match role {
        Role::Action => ACTION_WORLD,
        Role::Source if controllable => CONTROLLABLE_WORLD,
        Role::Source => SOURCE_WORLD,
    }
}

/// Imports that need no grant.
const ALWAYS: [&str; 5] = [
    "picket:types/types",
    "picket:source/sink",
    "picket:host/log",
    "picket:host/clock",
    "picket:host/random",
];

pub(crate) fn inspect(bytes: &[u8]) -> Result<Component, Unfit> {
    check_kind(bytes)?;
    let outline = Outline::read(bytes)?;
    outline.check_versions()?;
    let capabilities = outline.capabilities()?;
    let (role, edition) = match (outline.exported(SOURCE), outline.exported(ACTION)) {
        (Some(edition), None) => (Role::Source, edition),
        (None, Some(edition)) => (Role::Action, edition),
        (Some(_), Some(_)) => {
            let message =
                "the component exports picket:source/source and picket:action/action: a plugin has one role";
            return Err(Unfit { code: &codes::OTHER_WORLD, message: message.to_owned() });
        }
        (None, None) => {
            let message = if outline.exports.is_empty() {
                "the component exports nothing".to_owned()
            } else {
                format!(
                    "the component exports neither {SOURCE} nor {ACTION}, only {}",
                    listed(&outline.exports)
                )
            };
            return Err(Unfit { code: &codes::OTHER_WORLD, message });
        }
    };
    let misplaced = capabilities.iter().find(|c| match role {
        // What has effects goes by a plan, which a source has not.
        Role::Source => c.is_control(),
        Role::Action => **c == Capability::Logs,
    });
    if let Some(capability) = misplaced {
        let (is, other) = match role {
            Role::Source => ("a source", "an action"),
            Role::Action => ("an action", "a source"),
        };
        let message =
            format!("the component is {is} and imports picket:host/{capability}, which {other} alone has");
        return Err(Unfit { code: &codes::UNKNOWN_IMPORT, message });
    }
    let controllable = outline
        .exports
        .iter()
        .filter_map(|e| served(e).ok())
        .any(|s| s.name == CONTROL && s.edition == edition);
    let manifest = match outline.manifests.as_slice() {
        [] => None,
        [one] => Some(
            Manifest::parse(one).map_err(|why| Unfit { code: &codes::MANIFEST, message: why.to_string() })?,
        ),
        more => {
            let message = format!("the component has {} sections {}", more.len(), manifest::SECTION);
            return Err(Unfit { code: &codes::MANIFEST, message });
        }
    };
    if let Some(manifest) = &manifest {
        check_world(manifest, controllable, role)?;
    }
    let newer = outline.imports.iter().find(|i| served(i).is_ok_and(|s| s.newer)).cloned();
    Ok(Component { manifest, capabilities, controllable, role, edition, newer })
}

fn check_world(manifest: &Manifest, controllable: bool, role: Role) -> Result<(), Unfit> {
    let world = manifest.world.as_str();
    let unfit = |message| Err(Unfit { code: &codes::OTHER_WORLD, message });
    let named = match served(world) {
        Ok(served) => served.name,
        Err(Unserved::Version(message)) => {
            let message = format!("the manifest says world = {world:?}: {message}");
            return Err(Unfit { code: &codes::VERSION, message });
        }
        Err(Unserved::Stranger) => "",
    };
    match (role, named) {
        (Role::Action, ACTION_WORLD) | (Role::Source, SOURCE_WORLD) => Ok(()),
        (Role::Source, CONTROLLABLE_WORLD) if controllable => Ok(()),
        (Role::Source, CONTROLLABLE_WORLD) => {
            unfit(format!("the manifest says world = {world:?}, but the component exports no control"))
        }
        (_, ACTION_WORLD | SOURCE_WORLD) | (Role::Action, CONTROLLABLE_WORLD) => unfit(format!(
            "the manifest says world = {world:?}, but the component exports {}",
            role.exported()
        )),
        _ => {
            let ours = [SOURCE_WORLD, CONTROLLABLE_WORLD, ACTION_WORLD].map(|w| full(w, Edition::Current));
            unfit(format!("the manifest says world = {world:?}; this agent runs {}", ours.join(", ")))
        }
    }
}

fn check_kind(bytes: &[u8]) -> Result<(), Unfit> {
    let unfit = |code, message: String| Err(Unfit { code, message });
    const MAGIC: &[u8] = b"\0asm";
    if bytes.is_empty() {
        return unfit(&codes::EMPTY, "the file is empty".to_owned());
    }
    if bytes.starts_with(b"\x7fELF") {
        return match wasmtime::Engine::detect_precompiled(bytes) {
            Some(_) => unfit(&codes::PRECOMPILED, "the file is a compiled component (.cwasm)".to_owned()),
            None => unfit(&codes::NATIVE, "the file is a native program or library (ELF)".to_owned()),
        };
    }
    if !bytes.starts_with(MAGIC) {
        if MAGIC.starts_with(bytes) {
            return unfit(&codes::TRUNCATED, format!("the file breaks off after {} bytes", bytes.len()));
        }
        return unfit(&codes::NOT_WASM, format!("the file is {}", what_else(bytes)));
    }
    match bytes.get(4..8) {
        None => unfit(&codes::TRUNCATED, format!("the file breaks off after {} bytes", bytes.len())),
        Some([0x01, 0, 0, 0]) => {
            unfit(&codes::CORE_MODULE, "the file is a core WebAssembly module, not a component".to_owned())
        }
        Some([0x0d, 0, 1, 0]) => Ok(()),
        Some(other) => {
            unfit(&codes::NOT_WASM, format!("the file is WebAssembly of an unknown version ({other:02x?})"))
        }
    }
}

fn what_else(bytes: &[u8]) -> String {
    let start = bytes.get(..bytes.len().min(512)).unwrap_or_default();
    // A character may be cut at the end of the look.
    let text = match std::str::from_utf8(start) {
        Ok(text) => Some(text),
        Err(e) if e.error_len().is_none() => {
            start.get(..e.valid_up_to()).and_then(|s| std::str::from_utf8(s).ok())
        }
        Err(_) => None,
    };
    match text {
        Some(text) if !text.chars().any(|c| c.is_control() && !c.is_whitespace()) => {
            let text = text.trim_start();
            if text.starts_with("(component") || text.starts_with("(module") || text.starts_with(";;") {
                "WebAssembly text (.wat): assemble it first, with `wasm-tools parse`".to_owned()
            } else {
                "text, not WebAssembly".to_owned()
            }
        }
        _ => {
            let head: Vec<u8> = bytes.iter().take(8).copied().collect();
            format!("not WebAssembly: it begins with {head:02x?}")
        }
    }
}

/// The outermost level of a component.
#[derive(Debug, Default)]
struct Outline {
    /// Only those that hold a function: an interface that is imported for its types alone gives nothing.
    imports: Vec<String>,
    exports: Vec<String>,
    manifests: Vec<Vec<u8>>,
}

impl Outline {
    fn read(bytes: &[u8]) -> Result<Self, Unfit> {
        let damaged = |e: wasmparser::BinaryReaderError| Unfit {
            code: &codes::TRUNCATED,
            message: format!("the file breaks off or is damaged at byte {}: {}", e.offset(), e.message()),
        };
        let mut outline = Self::default();
        let mut depth = 0usize;
        // Of each type: does an instance of it hold more than types? What can't be told is held to.
        let mut holds: Vec<bool> = Vec::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(damaged)? {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(Unfit {
                        code: &codes::CORE_MODULE,
                        message: "the file is a core module".to_owned(),
                    });
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        let import = import.map_err(damaged)?;
                        let empty = match import.ty {
                            ComponentTypeRef::Instance(i) => holds.get(i as usize) == Some(&false),
                            _ => false,
                        };
                        if matches!(import.ty, ComponentTypeRef::Type(_)) {
                            holds.push(true);
                        }
                        if !empty {
                            outline.imports.push(import.name.name.to_owned());
                        }
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        let export = export.map_err(damaged)?;
                        if export.kind == ComponentExternalKind::Type {
                            holds.push(true);
                        }
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                Payload::ComponentTypeSection(section) if depth == 0 => {
                    for ty in section {
                        holds.push(holds_more_than_types(&ty.map_err(damaged)?));
                    }
                }
                Payload::ComponentAliasSection(section) if depth == 0 => {
                    for alias in section {
                        if is_type_alias(&alias.map_err(damaged)?) {
                            holds.push(true);
                        }
                    }
                }
                Payload::CustomSection(section) if depth == 0 && section.name() == manifest::SECTION => {
                    outline.manifests.push(section.data().to_vec());
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// All that it imports and exports of the contract is of a version that this host serves.
    fn check_versions(&self) -> Result<(), Unfit> {
        let other = self.exports.iter().chain(&self.imports).find_map(|name| match served(name) {
            Err(Unserved::Version(message)) => Some(message),
            _ => None,
        });
        other.map_or(Ok(()), |message| Err(Unfit { code: &codes::VERSION, message }))
    }

    /// In which edition it exports this; the current one if in both.
    fn exported(&self, name: &str) -> Option<Edition> {
        let found = |edition| {
            let mut served = self.exports.iter().filter_map(|e| served(e).ok());
            served.any(|s| s.name == name && s.edition == edition).then_some(edition)
        };
        found(Edition::Current).or_else(|| found(Edition::Former))
    }

    fn capabilities(&self) -> Result<BTreeSet<Capability>, Unfit> {
        let mut capabilities = BTreeSet::new();
        let mut unknown = Vec::new();
        for import in self.imports.iter().filter(|import| !crate::wasi::is_known(import)) {
            match served(import).ok().map(|s| s.name) {
                Some(name) if ALWAYS.contains(&name) => {}
                Some(name) => match name.strip_prefix("picket:host/").and_then(Capability::from_word) {
                    Some(capability) => {
                        capabilities.insert(capability);
                    }
                    None => unknown.push(import.clone()),
                },
                None => unknown.push(import.clone()),
            }
        }
        if unknown.is_empty() {
            return Ok(capabilities);
        }
        let message = format!("the component imports {}, which this agent does not have", listed(&unknown));
        Err(Unfit { code: &codes::UNKNOWN_IMPORT, message })
    }
}

fn holds_more_than_types(ty: &ComponentType<'_>) -> bool {
    let ComponentType::Instance(declarations) = ty else { return true };
    declarations.iter().any(|d| {
        matches!(d, InstanceTypeDeclaration::Export { ty, .. } if !matches!(ty, ComponentTypeRef::Type(_)))
    })
}

fn is_type_alias(alias: &ComponentAlias<'_>) -> bool {
    match alias {
        ComponentAlias::InstanceExport { kind, .. } => *kind == ComponentExternalKind::Type,
        ComponentAlias::Outer { kind, .. } => *kind == wasmparser::ComponentOuterAliasKind::Type,
        ComponentAlias::CoreInstanceExport { .. } => false,
    }
}

/// A few of the names, each cut to a readable length.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> =
        names.iter().take(SHOWN).map(|n| n.chars().take(100).filter(|c| !c.is_control()).collect()).collect();
    if names.len() > SHOWN {
        text.push(format!("and {} more", names.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (bytes, code) in [
            (&b""[..], &codes::EMPTY),
            (b"\0as", &codes::TRUNCATED),
            (b"\0asm\x0d\0", &codes::TRUNCATED),
            (b"\0asm\x01\0\0\0", &codes::CORE_MODULE),
            (b"\0asm\x0d\0\x01\0", &codes::OTHER_WORLD),
            (b"\0asm\x63\0\x01\0", &codes::NOT_WASM),
            (b"\0asm\x0d\0\x01\0\x07\xff\xff\x7f", &codes::TRUNCATED),
            (b"\x7fELF\x02\x01\x01", &codes::NATIVE),
            (b"hello world", &codes::NOT_WASM),
            ("(component) ä".as_bytes(), &codes::NOT_WASM),
            (&[0x1f, 0x8b, 8, 0], &codes::NOT_WASM),
        ] {
            let unfit = inspect(bytes).unwrap_err();
            assert_eq!(unfit.code, code, "{bytes:?}: {}", unfit.message);
        }
        assert!(inspect(b"(component)").unwrap_err().message.contains("WebAssembly text"));
    }
}
