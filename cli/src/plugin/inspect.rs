//! `picket plugin inspect`: what can be told of a file without running it or trusting it.

use std::path::Path;

use picket_artifact::{Envelope, Evidence};
use serde_json::json;
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload};

use super::file::{Component, FileError};
use crate::Error;
use crate::arguments::Output;
use crate::output;

pub fn show(format: Output, file: &Path) -> Result<(), Error> {
    let component = Component::read(file)?;
    let evidence =
        Evidence::beside(file).map_err(|source| FileError::Unreadable { path: file.to_owned(), source })?;
    let (imports, exports) = outline(&component.bytes);
    let signatures = evidence.signature.as_deref().map(Envelope::parse);
    let signed: Vec<String> = match &signatures {
        Some(Ok(envelope)) => envelope.keys().map(|key| key.to_string()).collect(),
        _ => Vec::new(),
    };
    let of_this =
        matches!(&signatures, Some(Ok(envelope)) if envelope.statement().digest == component.digest);
    let manifest = component.manifest.as_ref();
    if format == Output::Json {
        let manifest = manifest.map(|m| {
            json!({
                "id": m.id, "version": m.version, "world": m.world, "license": m.license,
                "description": m.description, "needs": m.needs, "config": m.config,
            })
        });
        let document = json!({
            "file": file, "bytes": component.bytes.len(), "digest": component.digest, "manifest": manifest,
            "imports": imports, "exports": exports,
            "signatures": signed, "signatures_are_of_this_file": of_this,
            "sigstore_bundle": evidence.bundle.is_some(),
        });
        return Ok(output::json(&document)?);
    }
    let row = |name: &str, value: String| vec![name.to_owned(), output::plain(&value)];
    let mut rows = vec![
        row("digest", component.digest.tagged()),
        row("size", format!("{} bytes", component.bytes.len())),
    ];
    match manifest {
        Some(m) => {
            rows.push(row("id", m.id.to_string()));
            rows.push(row("version", m.version.clone()));
            rows.push(row("world", m.world.clone()));
            rows.push(row("license", m.license.clone()));
            rows.push(row("description", m.description.clone()));
            for need in &m.needs {
                rows.push(row("needs", format!("{}: {}", need.capability, need.why)));
            }
        }
        None => rows.push(row("manifest", "none".to_owned())),
    }
    rows.extend(imports.into_iter().map(|name| row("imports", name)));
    rows.extend(exports.into_iter().map(|name| row("exports", name)));
    match &signatures {
        Some(Ok(_)) if !of_this => rows.push(row("signature", "of another file".to_owned())),
        Some(Err(error)) => rows.push(row("signature", format!("not readable: {error}"))),
        None if evidence.bundle.is_none() => rows.push(row("signature", "none".to_owned())),
        _ => {}
    }
    rows.extend(signed.into_iter().map(|key| row("signed by key", key)));
    if evidence.bundle.is_some() {
        rows.push(row("sigstore bundle", "there".to_owned()));
    }
    Ok(output::table(&["WHAT", "SAYS"], rows, &[])?)
}

/// The names of what a component imports, beside types alone, and of what it exports.
pub(super) fn outline(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        // What is damaged further on has been told as far as it goes.
        let Ok(payload) = payload else { break };
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => break,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                let named = section.into_iter().filter_map(Result::ok);
                let named = named.filter(|import| !matches!(import.ty, ComponentTypeRef::Type(_)));
                imports.extend(named.map(|import| import.name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                exports.extend(section.into_iter().filter_map(Result::ok).map(|e| e.name.name.to_owned()));
            }
            _ => {}
        }
    }
    (imports, exports)
}
