//! Plugin files of the tests' own making: a guest with a manifest, signed by the command line.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{binary, guests, plugins, run_program_with};

/// A guest of `tests/guests` as a plugin of this id and version: its manifest is appended as a custom section.
pub fn plugin_of(guest: &str, id: &str, version: &str) -> Result<Vec<u8>> {
    let manifest = format!(
        "manifest = 1\nid = \"{id}\"\nversion = \"{version}\"\nworld = \"picket:source/source-plugin@0.2.0\"\n\
         license = \"Apache-2.0\"\ndescription = \"made for a test\"\n"
    );
    let file = guests().join(guest);
    let mut bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = "picket:manifest";
    let mut body = vec![u8::try_from(name.len())?];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(manifest.as_bytes());
    bytes.push(0);
    let mut len = body.len();
    // LEB128.
    while len > 0x7f {
        bytes.push(u8::try_from(len & 0x7f)? | 0x80);
        len >>= 7;
    }
    bytes.push(u8::try_from(len)?);
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

/// A first-party plugin as of another version, whose number is as long as its own.
pub fn first_party_as(id: &str, version: &str) -> Result<Vec<u8>> {
    let file = plugins().join(format!("{id}.wasm"));
    let mut bytes = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let before = format!("id = \"{id}\"\nversion = \"");
    let at = bytes.windows(before.len()).position(|w| w == before.as_bytes()).context("no manifest")?;
    let rest = bytes.get_mut(at + before.len()..).context("no version")?;
    ensure!(rest.get(version.len()) == Some(&b'"'), "{id} has a version of another length than {version}");
    rest.get_mut(..version.len()).context("no version")?.copy_from_slice(version.as_bytes());
    Ok(bytes)
}

/// A pair of keys, and what is signed with it.
pub struct Keys {
    name: PathBuf,
}

impl Keys {
    /// Made by `picket plugin keygen`.
    pub async fn new(folder: &Path, name: &str) -> Result<Self> {
        let name = folder.join(name);
        picket(&["plugin", "keygen", &name.to_string_lossy()]).await?;
        Ok(Self { name })
    }

    pub fn private(&self) -> PathBuf {
        self.name.with_extension("key")
    }

    pub fn public(&self) -> PathBuf {
        self.name.with_extension("pub")
    }

    /// `FILE.sig`, by `picket plugin sign`.
    pub async fn sign(&self, file: &Path) -> Result<()> {
        let (file, key) =
            (file.to_string_lossy().into_owned(), self.private().to_string_lossy().into_owned());
        picket(&["plugin", "sign", &file, "--key", &key]).await.map(drop)
    }

    /// Puts a signed plugin where the agent looks, the signature first, each in one step.
    pub async fn drop_in(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        let work = self.name.with_file_name("work.wasm");
        std::fs::write(&work, bytes)?;
        let _ = std::fs::remove_file(signature(&work));
        self.sign(&work).await?;
        std::fs::rename(signature(&work), signature(file))?;
        std::fs::rename(&work, file).context("cannot drop the plugin in")
    }
}

/// Where the signatures of a plugin lie.
pub fn signature(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Runs `picket`; its standard output.
pub async fn picket(arguments: &[&str]) -> Result<String> {
    let output = run_program_with(Command::new(binary("picket")?).args(arguments)).await?;
    output.ok()
}
