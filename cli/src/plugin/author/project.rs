//! A plugin's folder: its language, by the file that it begins with, and its manifest.

use std::path::{Path, PathBuf};

use picket_artifact::{Manifest, Need};

use super::{AuthorError, Language};

#[derive(Debug)]
pub struct Project {
    pub folder: PathBuf,
    pub language: Language,
    /// `plugin.toml` as it is written.
    pub text: String,
    pub manifest: Manifest<Need>,
}

impl Project {
    pub fn open(folder: &Path) -> Result<Self, AuthorError> {
        // As the tools that are started in it name it.
        let folder =
            folder.canonicalize().map_err(|source| AuthorError::Read { path: folder.to_owned(), source })?;
        let path = folder.join("plugin.toml");
        if !path.is_file() {
            return Err(AuthorError::NoProject(folder));
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|source| AuthorError::Read { path: path.clone(), source })?;
        let manifest = Manifest::<Need>::parse(text.as_bytes())
            .map_err(|source| AuthorError::Manifest { path, source })?;
        let begins = [
            ("Cargo.toml", Language::Rust),
            ("plugin.py", Language::Python),
            ("plugin.js", Language::Javascript),
            ("plugin.c", Language::C),
        ];
        let language = begins
            .iter()
            .find(|(file, _)| folder.join(file).is_file())
            .map(|(_, language)| *language)
            .ok_or_else(|| AuthorError::NoLanguage(folder.clone()))?;
        Ok(Self { folder, language, text, manifest })
    }

    /// The plugin, once it is built.
    pub fn component(&self) -> PathBuf {
        self.folder.join("target").join(format!("{}.wasm", self.manifest.id))
    }

    /// What is made on the way to it; may be thrown away.
    pub fn work(&self) -> PathBuf {
        self.folder.join("target/picket")
    }

    /// The contract that it is built against.
    pub fn wit(&self) -> PathBuf {
        match self.language {
            // Beside the SDK, which reads it from there.
            Language::Rust => self.folder.join("vendor/wit"),
            _ => self.folder.join("wit"),
        }
    }
}

/// The plugin file of what was named: a file, or a folder in which it was built.
pub fn component_of(named: &Path) -> Result<PathBuf, AuthorError> {
    if !named.is_dir() {
        return Ok(named.to_owned());
    }
    let file = Project::open(named)?.component();
    if file.is_file() { Ok(file) } else { Err(AuthorError::NotBuilt(file)) }
}
