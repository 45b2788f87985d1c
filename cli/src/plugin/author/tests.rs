//! A plugin's own tests, by the language's own runner; none of them needs WebAssembly.

use std::process::Command;

use super::build::{cargo, find, missing, python_tool, run};
use super::project::Project;
use super::world;
use super::{AuthorError, Language};

pub fn run_own(project: &Project) -> Result<(), AuthorError> {
    match project.language {
        Language::Rust => run("cargo test", Command::new(cargo()?).arg("test").current_dir(&project.folder)),
        Language::Python => python(project),
        Language::Javascript => {
            let node = find("node").ok_or_else(|| missing("node", "Install Node.js 20.6 or newer"))?;
            let tests = world::files(&project.folder.join("tests"))?;
            let tests = tests.iter().filter(|file| file.to_string_lossy().ends_with(".test.js"));
            run("node --test", Command::new(node).arg("--test").args(tests).current_dir(&project.folder))
        }
        Language::C => c(project),
    }
}

fn python(project: &Project) -> Result<(), AuthorError> {
    let inside = project.folder.join(".venv/bin/python3");
    let python = if inside.is_file() { Some(inside) } else { find("python3") };
    let python = python.ok_or_else(|| missing("python3", "Install Python 3.10 or newer"))?;
    let bindings = project.work().join("bindings");
    world::replace_folder(&bindings)?;
    let wit = world::write(project)?;
    let mut make = Command::new(python_tool(project)?);
    make.args(["-q", "-w", "plugin", "-d"]).arg(wit).arg("bindings").arg(&bindings);
    run("componentize-py", &mut make)?;
    let path = std::env::join_paths([&bindings, &project.folder]).unwrap_or_default();
    let mut test = Command::new(python);
    test.args(["-m", "unittest", "discover", "-s", "tests"])
        .env("PYTHONPATH", path)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(&project.folder);
    run("python3 -m unittest", &mut test)
}

/// Each `tests/*.c` is a program, linked with the plugin's own files but plugin.c, whose host is not there.
fn c(project: &Project) -> Result<(), AuthorError> {
    const NO_CC: &str = "The tests run natively. Install it with `apt install gcc libc6-dev`";
    let cc = ["cc", "gcc", "clang"].iter().find_map(|name| find(name)).ok_or_else(|| missing("cc", NO_CC))?;
    let folder = project.folder.join("tests");
    if !folder.is_dir() {
        return Ok(());
    }
    let is_c = |file: &std::path::PathBuf| file.extension().is_some_and(|e| e == "c");
    let own: Vec<_> = world::files(&project.folder)?
        .into_iter()
        .filter(|file| is_c(file) && file.file_name().is_some_and(|name| name != "plugin.c"))
        .collect();
    for test in world::files(&folder)?.into_iter().filter(is_c) {
        let program = project.work().join("test");
        let mut compile = Command::new(&cc);
        compile.args(["-Wall", "-I"]).arg(&project.folder).arg(&test).args(&own).arg("-o").arg(&program);
        run("cc", &mut compile)?;
        let name = test.file_name().unwrap_or_default().to_string_lossy().into_owned();
        run(&name, Command::new(&program).current_dir(&project.folder))?;
    }
    Ok(())
}
