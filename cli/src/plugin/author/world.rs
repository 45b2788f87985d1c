//! The world of one plugin: the contract's, without the capabilities that its manifest does not need.
//!
//! The tools of Python and JavaScript import everything that a world has. So they are given a world of the plugin's own,
//! and the component imports what the operator will read in the manifest, no more.

use std::path::{Path, PathBuf};

use picket_artifact::{Manifest, Need};

use super::AuthorError;
use super::project::Project;

/// What every plugin may import.
const ALWAYS: [&str; 3] = ["log", "clock", "random"];

/// Writes package and dependencies into the project's work folder; gives the folder. The world is called `plugin`.
pub fn write(project: &Project) -> Result<PathBuf, AuthorError> {
    let (from, to) = (project.wit(), project.work().join("wit"));
    let wrong = |why: &str| AuthorError::Wit { path: from.clone(), why: why.to_owned() };
    replace_folder(&to)?;
    copy(&from.join("deps"), &to.join("deps"))?;
    // The contract's root package becomes one of the dependencies.
    let mut roots = 0;
    for file in files(&from)? {
        if file.extension().is_some_and(|e| e == "wit") {
            let name = file.file_name().unwrap_or_default();
            copy_file(&file, &to.join("deps/source").join(name))?;
            roots += 1;
        }
    }
    if roots == 0 {
        return Err(wrong("it has no .wit file"));
    }
    let host = package_version(&to.join("deps/host"), "picket:host")
        .ok_or_else(|| wrong("deps/host does not say `package picket:host@…;`"))?;
    let text = world(&project.manifest, &host)?;
    write_file(&to.join("plugin.wit"), text.as_bytes())?;
    Ok(to)
}

fn world(manifest: &Manifest<Need>, host: &str) -> Result<String, AuthorError> {
    let wrong = |why| AuthorError::World { world: manifest.world.clone(), why };
    let (world, version) = manifest.world.split_once('@').ok_or_else(|| wrong("has no version"))?;
    let lines: &[&str] = match world {
        "picket:source/source-plugin" => &["import picket:source/sink", "export picket:source/source"],
        "picket:source/controllable-source-plugin" => {
            &["import picket:source/sink", "export picket:source/source", "export picket:source/control"]
        }
        "picket:action/action-plugin" => &["export picket:action/action"],
        _ => return Err(wrong("is none of the contract's")),
    };
    let mut text = String::from("package picket:plugin;\n\nworld plugin {\n");
    for line in lines {
        text.push_str(&format!("    {line}@{version};\n"));
    }
    let needed = manifest.needs.iter().map(|need| need.capability.as_str());
    let mut names: Vec<&str> = ALWAYS.into_iter().chain(needed).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        text.push_str(&format!("    import picket:host/{name}@{host};\n"));
    }
    text.push_str("}\n");
    Ok(text)
}

/// `0.1.0` of the line `package picket:host@0.1.0;` in one of the folder's files.
fn package_version(folder: &Path, package: &str) -> Option<String> {
    let start = format!("package {package}@");
    files(folder).ok()?.iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix(';')?.to_owned()))
    })
}

/// The files of a folder, links to files included, in order.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, AuthorError> {
    let mut found: Vec<PathBuf> = entries(folder)?.into_iter().filter(|path| path.is_file()).collect();
    found.sort();
    Ok(found)
}

pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, AuthorError> {
    let read = |source| AuthorError::Read { path: folder.to_owned(), source };
    std::fs::read_dir(folder).map_err(read)?.map(|e| e.map(|e| e.path()).map_err(read)).collect()
}

/// A folder with all that is in it; links are followed.
pub fn copy(from: &Path, to: &Path) -> Result<(), AuthorError> {
    for path in entries(from)? {
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            copy_file(&path, &to.join(name))?;
        }
    }
    Ok(())
}

pub fn copy_file(from: &Path, to: &Path) -> Result<(), AuthorError> {
    let bytes = std::fs::read(from).map_err(|source| AuthorError::Read { path: from.to_owned(), source })?;
    write_file(to, &bytes)
}

pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), AuthorError> {
    let failed = |source| AuthorError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, bytes).map_err(failed)
}

/// Empties a folder of the work folder's.
pub fn replace_folder(folder: &Path) -> Result<(), AuthorError> {
    let failed = |source| AuthorError::Write { path: folder.to_owned(), source };
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(failed)?;
    }
    std::fs::create_dir_all(folder).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(world: &str) -> Manifest<Need> {
        let text = format!(
            "manifest = 1\nid = 'a'\nversion = '1'\nworld = '{world}'\nlicense = 'l'\ndescription = 'd'\n\
             [[needs]]\ncapability = 'http'\nwhy = 'w'\n[[needs]]\ncapability = 'files'\nwhy = 'w'\n"
        );
        Manifest::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn only_what_is_needed() {
        let text = world(&manifest("picket:source/source-plugin@0.2.0"), "0.1.2").unwrap();
        for line in ["export picket:source/source@0.2.0;", "import picket:host/http@0.1.2;", "host/log@0.1.2"]
        {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("command") && !text.contains("control"), "{text}");
        assert!(
            world(&manifest("picket:action/action-plugin@0.1.0"), "0.1.0").unwrap().contains("action/action")
        );
        assert!(world(&manifest("x:y/z@1.0.0"), "0.1.0").is_err());
        assert!(world(&manifest("picket:source/source-plugin"), "0.1.0").is_err());
    }
}
