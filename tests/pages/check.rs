//! A program's manual pages and completions, held against its own definition of its arguments: included by the program's tests, so
//! that no program on a node carries what writes them.
//!
//! They lie in `packaging/pages/NAME`. After a change of arguments: `PICKET_WRITE_PAGES=1 cargo test -p PACKAGE pages`.

use std::collections::BTreeMap;
use std::path::Path;

use clap_complete::Shell;

/// Fails where a page is other than the definition, missing, or of nothing any more.
pub fn check(mut command: clap::Command) {
    let made = tempfile::tempdir().unwrap();
    let name = command.get_name().to_owned();
    clap_mangen::generate_to(command.clone(), made.path()).unwrap();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, made.path()).unwrap();
    }
    let made = read(made.path());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("packaging/pages").join(&name);
    if std::env::var_os("PICKET_WRITE_PAGES").is_some() {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, text) in &made {
            std::fs::write(folder.join(file), text).unwrap();
        }
    }
    let there = read(&folder);
    for file in made.keys().chain(there.keys()) {
        assert!(
            made.get(file) == there.get(file),
            "packaging/pages/{name}/{file} is not of these arguments: run the test with PICKET_WRITE_PAGES=1 and commit it"
        );
    }
}

fn read(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect()
}
