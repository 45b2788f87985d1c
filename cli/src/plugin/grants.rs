//! `picket plugin grants`: the lines that an operator adds, or doesn't.

use std::path::Path;

use picket_agent_services::grants::{Need, grant_lines};
use picket_artifact::Manifest;
use serde_json::json;

use super::file::{Component, FileError, name};
use crate::Error;
use crate::arguments::Output;
use crate::output;

pub fn print(format: Output, file: &Path, given: Option<&str>) -> Result<(), Error> {
    let component = Component::read(file)?;
    let (Some(text), Some(written)) = (&component.text, &component.manifest) else {
        return Err(FileError::NoManifest { path: file.to_owned() }.into());
    };
    let invalid = |source| FileError::Manifest { path: file.to_owned(), source };
    // As the agent reads it: with scopes that it knows.
    let manifest = Manifest::<Need>::parse(text).map_err(invalid)?;
    let id = name(given)?.unwrap_or(manifest.id);
    let lines = grant_lines(&id, &manifest.needs);
    match format {
        Output::Json => {
            let document =
                json!({ "plugin": id, "digest": component.digest, "needs": written.needs, "toml": lines });
            output::json(&document)?;
        }
        Output::Table if manifest.needs.is_empty() => eprintln!("{id} needs no grant"),
        Output::Table => output::line(lines.trim_end())?,
    }
    Ok(())
}
