//! From a folder to a plugin file, by the language's own tool.

use std::path::{Path, PathBuf};
use std::process::Command;

use picket_artifact::Digest;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use super::project::Project;
use super::world;
use super::{AuthorError, Language};

const RUST_TARGET: &str = "wasm32-unknown-unknown";
const NO_CARGO: &str = "Install Rust from https://rustup.rs";

pub struct Built {
    pub file: PathBuf,
    pub bytes: usize,
    pub digest: String,
}

pub fn build(project: &Project) -> Result<Built, AuthorError> {
    let component = match project.language {
        Language::Rust => rust(project)?,
        Language::Python => python(project)?,
        Language::Javascript => javascript(project)?,
        Language::C => c(project)?,
    };
    let whole = picket_artifact::embed(&component, &project.text)?;
    let file = project.component();
    world::write_file(&file, &whole)?;
    Ok(Built { file, bytes: whole.len(), digest: Digest::of(&whole).tagged() })
}

fn rust(project: &Project) -> Result<Vec<u8>, AuthorError> {
    let cargo = cargo()?;
    let libraries = output(
        "rustc",
        Command::new(find("rustc").ok_or_else(|| missing("rustc", NO_CARGO))?)
            .args(["--print", "target-libdir", "--target", RUST_TARGET])
            .current_dir(&project.folder),
    )?;
    if !Path::new(libraries.trim()).is_dir() {
        return Err(uninstalled(&format!("Rust's target {RUST_TARGET}"), project));
    }
    let mut build = Command::new(&cargo);
    build.args(["build", "--release", "--lib", "--target", RUST_TARGET]).current_dir(&project.folder);
    run("cargo", &mut build)?;
    let mut metadata = Command::new(&cargo);
    metadata
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(&project.folder);
    let module = rust_module(&output("cargo metadata", &mut metadata)?, &project.folder)
        .ok_or_else(|| AuthorError::Component("Cargo.toml names no library of the kind cdylib".to_owned()))?;
    let module = std::fs::read(&module).map_err(|source| AuthorError::Read { path: module, source })?;
    encode(&module)
}

/// Where cargo puts the module.
fn rust_module(metadata: &str, folder: &Path) -> Option<PathBuf> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    let target = metadata["target_directory"].as_str()?;
    let manifest = folder.join("Cargo.toml");
    let package = metadata["packages"]
        .as_array()?
        .iter()
        .find(|package| package["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest))?;
    let library = package["targets"].as_array()?.iter().find(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
    })?;
    let name = library["name"].as_str()?.replace('-', "_");
    Some(Path::new(target).join(RUST_TARGET).join("release").join(format!("{name}.wasm")))
}

fn python(project: &Project) -> Result<Vec<u8>, AuthorError> {
    let tool = python_tool(project)?;
    let wit = world::write(project)?;
    let source = stage(project, &["py"])?;
    let file = project.work().join("component.wasm");
    let mut command = Command::new(tool);
    command
        .args(["-q", "-w", "plugin", "-d"])
        .arg(wit)
        .args(["componentize", "plugin", "-p"])
        .arg(source)
        .arg("-o")
        .arg(&file)
        .current_dir(&project.folder);
    run("componentize-py", &mut command)?;
    std::fs::read(&file).map_err(|source| AuthorError::Read { path: file, source })
}

/// The one in the project's environment first.
pub fn python_tool(project: &Project) -> Result<PathBuf, AuthorError> {
    inside(project, ".venv/bin/componentize-py")
        .or_else(|| find("componentize-py"))
        .ok_or_else(|| uninstalled("componentize-py", project))
}

fn javascript(project: &Project) -> Result<Vec<u8>, AuthorError> {
    let tool = inside(project, "node_modules/.bin/componentize-qjs")
        .or_else(|| find("componentize-qjs"))
        .ok_or_else(|| uninstalled("componentize-qjs", project))?;
    let wit = world::write(project)?;
    let source = stage(project, &["js", "mjs", "json"])?;
    let file = project.work().join("component.wasm");
    let mut command = Command::new(tool);
    // Its other runtime wants the component model's async functions, which nodes have switched off.
    command
        .args(["--sync", "--world", "plugin", "--wit"])
        .arg(wit)
        .arg("--js")
        .arg(source.join("plugin.js"))
        .arg("--module-root")
        .arg(&source)
        .arg("--output")
        .arg(&file)
        .current_dir(&project.folder)
        .stdout(std::process::Stdio::null());
    run("componentize-qjs", &mut command)?;
    std::fs::read(&file).map_err(|source| AuthorError::Read { path: file, source })
}

fn c(project: &Project) -> Result<Vec<u8>, AuthorError> {
    let clang = clang().ok_or_else(|| uninstalled("clang", project))?;
    let sysroot = std::env::var_os("WASI_SYSROOT").map_or_else(|| PathBuf::from("/usr"), PathBuf::from);
    if !sysroot.join("lib/wasm32-wasi/libc.a").is_file() {
        let install =
            format!("Install it with `{}`, or say in WASI_SYSROOT where it is", project.language.install());
        return Err(missing("wasi-libc", install));
    }
    let generated = project.work().join("c");
    world::replace_folder(&generated)?;
    let (resolve, world) = contract(project)?;
    bindings(resolve.clone(), world, &generated)?;
    let module = project.work().join("module.wasm");
    let mut command = Command::new(clang);
    command
        .args(["--target=wasm32-wasi", "-mexec-model=reactor", "-O2", "-Wall", "-Wextra"])
        .arg(format!("--sysroot={}", sysroot.display()))
        .arg("-I")
        .arg(&generated)
        .arg("-I")
        .arg(project.folder.join("picket"));
    for folder in [&project.folder, &project.folder.join("picket"), &generated] {
        command.args(world::files(folder)?.iter().filter(|file| file.extension().is_some_and(|e| e == "c")));
    }
    command.arg("-o").arg(&module).current_dir(&project.folder);
    run("clang", &mut command)?;
    let mut bytes = std::fs::read(&module).map_err(|source| AuthorError::Read { path: module, source })?;
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8, false)
        .map_err(|e| AuthorError::Component(format!("{e:#}")))?;
    encode(&bytes)
}

/// The contract as the project has it, and the world that its manifest names.
fn contract(project: &Project) -> Result<(Resolve, wit_parser::WorldId), AuthorError> {
    let path = project.wit();
    let wrong = |e: String| AuthorError::Wit { path: path.clone(), why: e };
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&path).map_err(|e| wrong(format!("{e:#}")))?;
    let world = resolve
        .select_world(&[package], Some(&project.manifest.world))
        .map_err(|e| wrong(format!("{e:#}")))?;
    Ok((resolve, world))
}

/// `source_plugin.{h,c}`, as wit-bindgen writes them. What of them is not used the linker leaves out.
fn bindings(mut resolve: Resolve, world: wit_parser::WorldId, into: &Path) -> Result<(), AuthorError> {
    let mut files = wit_bindgen_core::Files::default();
    let options = wit_bindgen_c::Opts {
        no_object_file: true,
        rename_world: Some("plugin".to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    options
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(|e| AuthorError::Component(format!("{e:#}")))?;
    for (name, content) in files.iter() {
        world::write_file(&into.join(name), content)?;
    }
    // The generated code calls this, so that the object file which we leave out would be linked.
    let linked = b"void __component_type_object_force_link_plugin(void) {}\n";
    world::write_file(&into.join("force_link.c"), linked)?;
    Ok(())
}

/// A core module that says its world, as a component.
fn encode(module: &[u8]) -> Result<Vec<u8>, AuthorError> {
    let made = ComponentEncoder::default().module(module).and_then(|encoder| {
        // The C library's way to the clock and to standard output.
        let encoder = if imports(module, WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME) {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        } else {
            encoder
        };
        encoder.validate(true).encode()
    });
    made.map_err(|e| AuthorError::Component(format!("{e:#}")))
}

fn imports(module: &[u8], name: &str) -> bool {
    wasmparser::Parser::new(0).parse_all(module).filter_map(Result::ok).any(|payload| match payload {
        wasmparser::Payload::ImportSection(section) => {
            section.into_imports().filter_map(Result::ok).any(|import| import.module == name)
        }
        _ => false,
    })
}

/// The plugin's own files, without its tests and what is not source: links are followed, so that the tool sees one folder.
fn stage(project: &Project, extensions: &[&str]) -> Result<PathBuf, AuthorError> {
    const APART: [&str; 6] = ["target", "tests", "wit", "node_modules", "__pycache__", "package.json"];
    let to = project.work().join("source");
    world::replace_folder(&to)?;
    for path in world::entries(&project.folder)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if APART.contains(&name) || name.starts_with('.') || name.starts_with("package-lock") {
            continue;
        }
        if path.is_dir() {
            world::copy(&path, &to.join(name))?;
        } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
            world::copy_file(&path, &to.join(name))?;
        }
    }
    Ok(to)
}

fn clang() -> Option<PathBuf> {
    find("clang").or_else(|| (11..=22).rev().find_map(|version| find(&format!("clang-{version}"))))
}

pub fn missing(tool: &str, install: impl Into<String>) -> AuthorError {
    AuthorError::Missing { tool: tool.to_owned(), install: install.into() }
}

/// What the author installs once is not there.
fn uninstalled(tool: &str, project: &Project) -> AuthorError {
    missing(tool, format!("Install it, in the plugin's folder, with `{}`", project.language.install()))
}

pub fn cargo() -> Result<PathBuf, AuthorError> {
    find("cargo").ok_or_else(|| missing("cargo", NO_CARGO))
}

fn inside(project: &Project, path: &str) -> Option<PathBuf> {
    let file = project.folder.join(path);
    file.is_file().then_some(file)
}

/// A program on PATH.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Runs a tool; what it prints is for the author.
pub fn run(tool: &str, command: &mut Command) -> Result<(), AuthorError> {
    let status = command.status().map_err(|source| AuthorError::Start { tool: tool.to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(AuthorError::Tool { tool: tool.to_owned(), status }) }
}

fn output(tool: &str, command: &mut Command) -> Result<String, AuthorError> {
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|source| AuthorError::Start { tool: tool.to_owned(), source })?;
    if !output.status.success() {
        return Err(AuthorError::Tool { tool: tool.to_owned(), status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
