//! The first-party plugins, built: a guest of `plugins/` becomes a component with its manifest inside, so that one
//! file is the whole plugin.
//!
//! No WASI: the target is `wasm32-unknown-unknown`, and the component's imports are what the plugin really uses.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use wasm_encoder::{ComponentSection, CustomSection};
use wit_component::{ComponentEncoder, DecodedWasm};

use crate::{build, command};

/// The component's custom section that holds the manifest.
const SECTION: &str = "picket:manifest";
const TARGET: &str = "wasm32-unknown-unknown";

/// Builds the named plugins, or all; gives their files in `target/plugins`. A file is written only where it changed,
/// so what was compiled of it stays good.
pub fn build(root: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let workspace = root.join("plugins");
    let plugins = select(all(&workspace)?, names)?;
    let target = folder(root);
    let mut command = command::cargo(&workspace, &["build", "--release", "--lib", "--target", TARGET]);
    command.env("CARGO_TARGET_DIR", &target);
    for plugin in &plugins {
        command.args(["--package", &plugin.package]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!(
            "the plugins did not build ({status}). Where the target is missing: rustup target add {TARGET}"
        );
    }
    let built = target.join(TARGET).join("release");
    let out = build::target(root)?.join("plugins");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    plugins.iter().map(|plugin| plugin.make(&built, &out)).collect()
}

/// Where whatever runs in the sandbox is built, wherever the rest is: what plugins and guests both need is built once.
pub fn folder(root: &Path) -> PathBuf {
    root.join("plugins/target")
}

/// Signs a plugin as everybody does: by the command line, which writes `FILE.sig` beside it.
pub fn sign(picket: &Path, plugin: &Path, key: &Path) -> Result<()> {
    let mut sign = Command::new(picket);
    command::output(sign.args(["plugin", "sign"]).arg(plugin).arg("--key").arg(key)).map(drop)
}

/// The folders of the first-party plugins, in order.
pub fn folders(root: &Path) -> Result<Vec<PathBuf>> {
    let plugins = all(&root.join("plugins"))?;
    Ok(plugins.into_iter().filter_map(|plugin| Some(plugin.manifest.parent()?.to_owned())).collect())
}

struct Plugin {
    name: String,
    package: String,
    manifest: PathBuf,
}

/// Every folder of `plugins/` that has a `plugin.toml`.
fn all(workspace: &Path) -> Result<Vec<Plugin>> {
    let mut found = Vec::new();
    let entries =
        std::fs::read_dir(workspace).with_context(|| format!("cannot list {}", workspace.display()))?;
    for entry in entries {
        let folder = entry?.path();
        let manifest = folder.join("plugin.toml");
        let Some(name) = folder.file_name().and_then(|n| n.to_str()) else { continue };
        if manifest.is_file() {
            found.push(Plugin { name: name.to_owned(), package: format!("picket-plugin-{name}"), manifest });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn select(all: Vec<Plugin>, names: &[&str]) -> Result<Vec<Plugin>> {
    let known: Vec<String> = all.iter().map(|p| p.name.clone()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|k| k == *name)) {
        bail!("there is no plugin {unknown}; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|p| names.is_empty() || names.contains(&p.name.as_str())).collect())
}

impl Plugin {
    fn make(&self, built: &Path, out: &Path) -> Result<PathBuf> {
        let manifest = std::fs::read_to_string(&self.manifest)
            .with_context(|| format!("cannot read {}", self.manifest.display()))?;
        check(&self.name, &manifest).with_context(|| format!("{} is not valid", self.manifest.display()))?;
        let module = built.join(format!("{}.wasm", self.package.replace('-', "_")));
        let bytes = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let component = componentize(&bytes, Some(&manifest))
            .with_context(|| format!("cannot make a component of {}", module.display()))?;
        let file = out.join(format!("{}.wasm", self.name));
        replace(&file, &component)?;
        Ok(file)
    }
}

/// Writes a file as a whole, where it changed.
pub fn replace(file: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let new = file.with_extension("new");
    std::fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
}

/// A core module as a component, with its manifest inside.
pub fn componentize(module: &[u8], manifest: Option<&str>) -> Result<Vec<u8>> {
    let mut component = ComponentEncoder::default().module(module).and_then(|e| e.validate(true).encode())?;
    if let Some(manifest) = manifest {
        check_imports(&component)?;
        let section = CustomSection { name: SECTION.into(), data: manifest.as_bytes().into() };
        section.append_to_component(&mut component);
    }
    Ok(component)
}

/// No other interface than ours, above all no WASI: a dependency that brings some in is found here and not on a node.
fn check_imports(component: &[u8]) -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("it is no component");
    };
    let world = resolve.worlds.get(world).context("the component has no world")?;
    let names = world.imports.keys().map(|key| resolve.name_world_key(key));
    match names.into_iter().find(|name| !name.starts_with("picket:")) {
        Some(name) => {
            bail!("it imports {name}; a first-party plugin imports nothing but picket's interfaces")
        }
        None => Ok(()),
    }
}

/// What the agent will ask of it, as far as the text tells.
fn check(name: &str, text: &str) -> Result<()> {
    const KEYS: &[&str] =
        &["manifest", "id", "version", "world", "license", "description", "needs", "limits", "config"];
    let manifest: toml::Table = toml::from_str(text)?;
    if let Some(unknown) = manifest.keys().find(|key| !KEYS.contains(&key.as_str())) {
        bail!("unknown key {unknown}; known are {}", KEYS.join(", "));
    }
    if manifest.get("manifest").and_then(toml::Value::as_integer) != Some(1) {
        bail!("manifest must be 1");
    }
    for key in ["id", "version", "world", "license", "description"] {
        match manifest.get(key).and_then(toml::Value::as_str) {
            None | Some("") => bail!("{key} is missing"),
            Some(id) if key == "id" && id != name => bail!("id is {id}, the folder is {name}"),
            Some(_) => {}
        }
    }
    let needs = match manifest.get("needs") {
        None => &Vec::new(),
        Some(needs) => needs.as_array().context("needs must be [[needs]] tables")?,
    };
    for (nth, need) in needs.iter().enumerate() {
        for key in ["capability", "why"] {
            if need.get(key).and_then(toml::Value::as_str).is_none_or(str::is_empty) {
                bail!("needs[{nth}] has no {key}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        manifest = 1
        id = "x"
        version = "1"
        world = "w"
        license = "l"
        description = "d"
        [[needs]]
        capability = "system"
        why = "so"
    "#;

    #[test]
    fn manifests() {
        check("x", GOOD).unwrap();
        for (from, to, says) in [
            ("manifest = 1", "manifest = 2", "must be 1"),
            ("id = \"x\"", "id = \"y\"", "the folder is x"),
            ("license = \"l\"", "", "license is missing"),
            ("why = \"so\"", "", "no why"),
            ("[[needs]]", "[[wants]]", "unknown key wants"),
        ] {
            let error = check("x", &GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
