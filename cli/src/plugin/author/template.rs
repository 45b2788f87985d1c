//! `picket plugin new`: the folder of a plugin that works, written from what this program carries.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use picket_proto::model::PluginId;

use super::world::write_file;
use super::{AuthorError, Language};

static TEMPLATES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");
static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../wit");
static RUST_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/src");
static PYTHON_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/python");
static JAVASCRIPT_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/javascript");
static C_SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../sdk/c");
/// What the SDK's crate has beside its sources.
const RUST_SDK_FILES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../../../sdk/Cargo.toml")),
    ("README.md", include_str!("../../../../sdk/README.md")),
    ("LICENSE", include_str!("../../../../sdk/LICENSE")),
];
/// Versions that are known to work together; cargo leaves out what the plugin does not use.
const RUST_LOCK: &str = include_str!("../../../../sdk/Cargo.lock");

/// Files whose names mean something to a tool in this repository too have this at their end in the templates.
const SUFFIX: &str = ".tmpl";
const MAX_NAME: usize = 40;

/// Writes the folder `name` into `into`; gives it.
pub fn write(name: &str, language: Language, into: &Path) -> Result<PathBuf, AuthorError> {
    check(name)?;
    let folder = into.join(name);
    if folder.exists() {
        return Err(AuthorError::Exists(folder));
    }
    let snake = name.replace('-', "_");
    let filled = |text: &str| text.replace("{{name}}", name).replace("{{snake}}", &snake);
    let root = Path::new(language.word());
    for file in TEMPLATES.get_dir(root).map(all).unwrap_or_default() {
        let Some(text) = file.contents_utf8() else { continue };
        let inside = file.path().strip_prefix(root).unwrap_or(file.path()).to_string_lossy();
        let inside = filled(inside.strip_suffix(SUFFIX).unwrap_or(&inside));
        let inside = if inside == "gitignore" { ".gitignore".to_owned() } else { inside };
        write_file(&folder.join(inside), filled(text).as_bytes())?;
    }
    match language {
        Language::Rust => {
            let sdk = folder.join("vendor/picket-sdk");
            for (file, text) in RUST_SDK_FILES {
                write_file(&sdk.join(file), text.as_bytes())?;
            }
            put(&RUST_SDK, &sdk.join("src"))?;
            put_contract(&folder.join("vendor/wit"))?;
            write_file(&folder.join("Cargo.lock"), RUST_LOCK.as_bytes())?;
        }
        Language::Python => put(&PYTHON_SDK, &folder)?,
        Language::Javascript => put(&JAVASCRIPT_SDK, &folder.join("picket"))?,
        Language::C => put(&C_SDK, &folder.join("picket"))?,
    }
    if language != Language::Rust {
        put_contract(&folder.join("wit"))?;
    }
    Ok(folder)
}

/// What to type next.
pub fn next_steps(folder: &Path, language: Language) -> String {
    format!(
        "\nOnce:\n  cd {}\n  {}\nThen:\n  picket plugin test\n  picket plugin run --grant-needs",
        folder.display(),
        language.install()
    )
}

/// A plugin's name is the name of a folder, of a crate and of a family too.
fn check(name: &str) -> Result<(), AuthorError> {
    PluginId::new(name)?;
    let wrong = |why: &str| Err(AuthorError::Name { name: name.to_owned(), why: why.to_owned() });
    if name.len() > MAX_NAME {
        return wrong("it is longer than 40 characters");
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) || name.ends_with('-') {
        return wrong("small letters, digits and dashes are wanted, a letter first");
    }
    Ok(())
}

fn put(from: &Dir<'_>, to: &Path) -> Result<(), AuthorError> {
    for file in all(from) {
        write_file(&to.join(file.path()), file.contents())?;
    }
    Ok(())
}

/// The contract as it is; the versions before it are the host's to know.
fn put_contract(to: &Path) -> Result<(), AuthorError> {
    for file in all(&WIT).into_iter().filter(|file| !file.path().starts_with("frozen")) {
        write_file(&to.join(file.path()), file.contents())?;
    }
    Ok(())
}

fn all<'a>(dir: &'a Dir<'a>) -> Vec<&'a include_dir::File<'a>> {
    dir.files().chain(dir.dirs().flat_map(all)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::author::project::Project;

    #[test]
    fn every_language_has_a_whole_folder() {
        let place = tempfile::tempdir().unwrap();
        for language in [Language::Rust, Language::Python, Language::Javascript, Language::C] {
            let name = format!("my-{}", language.word());
            let folder = write(&name, language, place.path()).unwrap();
            let project = Project::open(&folder).unwrap();
            assert_eq!(project.language, language);
            assert_eq!(Project::open(&folder.join("tests/..")).unwrap().folder, project.folder);
            assert_eq!(project.manifest.id.as_str(), name);
            assert!(project.wit().join("source.wit").is_file());
            assert!(!project.wit().join("frozen").exists());
            for file in ["README.md", ".gitignore", "tests/contract.toml"] {
                let text = std::fs::read_to_string(folder.join(file)).unwrap();
                assert!(!text.contains("{{"), "{file}: {text}");
            }
            assert!(matches!(write(&name, language, place.path()), Err(AuthorError::Exists(_))));
        }
    }

    #[test]
    fn names() {
        for good in ["a", "my-thing", "gpu2"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "My", "2a", "a_b", "a-", "../a", "ä"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
