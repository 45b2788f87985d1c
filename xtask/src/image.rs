//! Container images made without a daemon: `cargo xtask image`. From nothing, plus our programs, what the loader needs to start them,
//! and the plugins.
//!
//! An image is an OCI layout, as a folder and as one tar, which Docker's `load` takes too. The same inputs give the same bytes:
//! entries are sorted, owners and modes are stated here, times are `SOURCE_DATE_EPOCH`, else the last commit's.
//!
//! The programs are linked with glibc, and not static with musl, because `picket-nvml` loads NVIDIA's library, which is linked
//! with glibc: a static program cannot load it. So the image carries the loader and exactly the libraries that the programs
//! name ([`elf`]), in the agent's image also the four small ones that the driver's library names.

mod elf;
mod layout;
mod sha256;
mod tar;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::layout::Image;
use self::tar::{Entry, Layer};
use crate::{build, command, plugins};

/// Who the programs run as: a number that is nobody's on a node.
const USER: u32 = 65_532;
/// Who the workers are where an agent is root.
const WORKER: u32 = 65_533;

#[derive(clap::Args)]
pub struct Args {
    /// Which images, agent or aggregator; none: both.
    names: Vec<String>,
    /// Where the programs are, instead of building them as they are shipped.
    #[arg(long, value_name = "FOLDER")]
    bin: Option<PathBuf>,
    /// Where the plugins are, instead of building them; with what vouches for them beside them.
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
    /// Sign the plugins with this key (`picket plugin keygen`), whose .pub lies beside it and goes into the image.
    #[arg(long, value_name = "KEY")]
    key: Option<PathBuf>,
    /// Where the images go. Default: target/images.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Another build of an image with the same tag. Default: the workspace's version.
    #[arg(long)]
    tag: Option<String>,
}

impl Args {
    /// Both images of what is there already.
    pub fn of(bin: &Path, plugins: &Path, out: &Path) -> Self {
        Self {
            names: Vec::new(),
            bin: Some(bin.to_owned()),
            plugins: Some(plugins.to_owned()),
            key: None,
            out: Some(out.to_owned()),
            tag: None,
        }
    }
}

/// What an image is made of.
struct Recipe {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    programs: &'static [&'static str],
    entrypoint: &'static str,
    command: &'static [&'static str],
    environment: &'static [&'static str],
    ports: &'static [&'static str],
    /// Folders of the user's own.
    state: &'static [&'static str],
    with_plugins: bool,
    /// Libraries that are loaded at run time by what the node brings.
    also: &'static [&'static str],
}

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "agent",
        title: "picket-agent",
        description: "Picket's node agent with its first-party plugins",
        programs: &["picket-agent", "picket-worker", "picket-compile", "picket-nvml"],
        entrypoint: "/usr/bin/picket-agent",
        command: &["run", "--config", "/etc/picket/agent.toml"],
        environment: &[],
        ports: &[],
        state: &["var/lib/picket-agent", "var/cache/picket-agent"],
        with_plugins: true,
        also: &["libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"],
    },
    Recipe {
        name: "aggregator",
        title: "picket-aggregator",
        description: "Picket's aggregator and its command line",
        programs: &["picket-aggregator", "picket"],
        entrypoint: "/usr/bin/picket-aggregator",
        command: &["run", "--config", "/etc/picket/aggregator.toml"],
        environment: &[],
        ports: &["9470/tcp", "9471/tcp"],
        state: &["var/lib/picket-aggregator"],
        with_plugins: false,
        also: &[],
    },
];

/// Makes the images and prints where each is, with its digest.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    if let Some(unknown) = args.names.iter().find(|name| !RECIPES.iter().any(|r| r.name == **name)) {
        bail!("there is no image {unknown}; there are agent and aggregator");
    }
    let target = build::target(root)?;
    let out = args.out.clone().unwrap_or_else(|| target.join("images"));
    let wanted: Vec<&Recipe> = RECIPES
        .iter()
        .filter(|r| args.names.is_empty() || args.names.iter().any(|name| name == r.name))
        .collect();
    let stage = tempfile::tempdir().context("no temporary folder")?;
    let bin = match &args.bin {
        Some(folder) => folder.clone(),
        None => {
            let folder = target.join("shipped");
            build::shipped(root, None, &folder)?;
            folder
        }
    };
    let tag = args.tag.clone().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned());
    let about = About { time: build::epoch(root)?, revision: revision(root), tag };
    for recipe in wanted {
        let mut layers = vec![base(recipe, &bin)?, programs(recipe, &bin)?];
        if recipe.with_plugins {
            let built = match &args.plugins {
                Some(folder) => folder.clone(),
                None => {
                    plugins::build(root, &[])?;
                    target.join("plugins")
                }
            };
            let signed = sign(&built, args.key.as_deref(), &bin, stage.path())?;
            layers.push(plugin_layer(&signed, args.key.as_deref())?);
        }
        let image = describe(recipe, &about, &bin)?;
        let folder = out.join(recipe.title);
        let digest = layout::write(&folder, &image, layers, about.time)?;
        let archive = out.join(format!("{}.tar", recipe.title));
        layout::archive(&folder, &archive, about.time)?;
        println!("{}\t{}\t{digest}", recipe.title, archive.display());
    }
    Ok(true)
}

struct About {
    time: u64,
    revision: Option<String>,
    tag: String,
}

fn describe(recipe: &Recipe, about: &About, bin: &Path) -> Result<Image> {
    let program = recipe.programs.first().context("an image without a program")?;
    let machine = elf::read(&bin.join(program))?.machine;
    let mut labels = vec![
        ("org.opencontainers.image.title", recipe.title.to_owned()),
        ("org.opencontainers.image.description", recipe.description.to_owned()),
        ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
        ("org.opencontainers.image.version", about.tag.clone()),
        ("org.opencontainers.image.created", layout::rfc3339(about.time)),
    ];
    labels.extend(about.revision.clone().map(|revision| ("org.opencontainers.image.revision", revision)));
    Ok(Image {
        name: format!("{}:{}", recipe.title, about.tag),
        architecture: machine.oci(),
        user: format!("{USER}:{USER}"),
        entrypoint: recipe.entrypoint,
        command: recipe.command,
        environment: [&["PATH=/usr/bin"], recipe.environment].concat(),
        ports: recipe.ports,
        labels,
    })
}

/// What every program needs: the loader, libraries, users, folders, authorities of the Internet.
fn base(recipe: &Recipe, bin: &Path) -> Result<Layer> {
    let mut layer = Layer::default();
    for folder in ["dev", "etc", "etc/picket", "proc", "run", "sys", "usr/bin", "var/cache", "var/lib"] {
        layer.add(Entry::folder(folder, 0, 0o755));
    }
    layer.add(Entry::folder("tmp", 0, 0o1777));
    for folder in recipe.state {
        layer.add(Entry::folder(folder, USER, 0o700));
    }
    let user = format!(
        "root:x:0:0:root:/:/sbin/nologin\npicket:x:{USER}:{USER}:Picket:/:/sbin/nologin\n\
         picket-worker:x:{WORKER}:{WORKER}:Picket's workers:/:/sbin/nologin\n"
    );
    layer.add(Entry::text("etc/passwd", &user));
    layer.add(Entry::text("etc/group", &format!("root:x:0:\npicket:x:{USER}:\npicket-worker:x:{WORKER}:\n")));
    layer.add(Entry::text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"));
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.exists() {
        layer.add(Entry::file("etc/ssl/certs/ca-certificates.crt", authorities, 0o644)?);
    } else {
        eprintln!(
            "{} is missing: the image trusts no authority of the Internet (Debian: ca-certificates)",
            authorities.display()
        );
    }
    for (place, file) in elf::closure(bin, recipe.programs, recipe.also)? {
        layer.add(Entry::file(&place, &file, 0o755)?);
    }
    // What the licences of those two ask for.
    for package in ["libc6", "libgcc-s1"] {
        let text = PathBuf::from(format!("/usr/share/doc/{package}/copyright"));
        if text.exists() {
            layer.add(Entry::file(&format!("usr/share/doc/{package}/copyright"), &text, 0o644)?);
        }
    }
    Ok(layer)
}

fn programs(recipe: &Recipe, bin: &Path) -> Result<Layer> {
    let mut layer = Layer::default();
    for program in recipe.programs {
        layer.add(Entry::file(&format!("usr/bin/{program}"), &bin.join(program), 0o755)?);
    }
    layer.add(Entry::text("usr/share/doc/picket/LICENSE", include_str!("../../LICENSE")));
    Ok(layer)
}

/// Where the plugins lie with their signatures: where they were built, or a copy that was signed.
fn sign(built: &Path, key: Option<&Path>, bin: &Path, stage: &Path) -> Result<PathBuf> {
    let Some(key) = key else { return Ok(built.to_owned()) };
    let folder = stage.join("plugins");
    std::fs::create_dir_all(&folder)?;
    for file in build::listed(built, "wasm")? {
        let copy = folder.join(file.file_name().context("a file without a name")?);
        std::fs::copy(&file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
        plugins::sign(&bin.join("picket"), &copy, key)?;
    }
    Ok(folder)
}

fn plugin_layer(folder: &Path, key: Option<&Path>) -> Result<Layer> {
    let mut layer = Layer::default();
    let components = build::listed(folder, "wasm")?;
    if components.is_empty() {
        bail!("{} has no plugin: cargo xtask build-plugins", folder.display());
    }
    let mut signed = 0;
    for file in &components {
        for end in ["", ".sig", ".sigstore.json"] {
            let mut beside = file.as_os_str().to_owned();
            beside.push(end);
            let beside = PathBuf::from(beside);
            if beside.exists() {
                let name = beside.file_name().and_then(|n| n.to_str()).context("a name that is no UTF-8")?;
                layer.add(Entry::file(&format!("usr/lib/picket/plugins/{name}"), &beside, 0o644)?);
                signed += usize::from(!end.is_empty());
            }
        }
    }
    if signed == 0 {
        eprintln!(
            "no plugin in {} is signed: agents run them only with trust.allow_unsigned. Sign them with --key",
            folder.display()
        );
    }
    if let Some(key) = key {
        let public = key.with_extension("pub");
        layer.add(Entry::file("usr/share/picket/keys/image.pub", &public, 0o644)?);
    }
    Ok(layer)
}

/// The commit, where the working tree is just that.
fn revision(root: &Path) -> Option<String> {
    let git = |args: &[&str]| command::output(Command::new("git").args(args).current_dir(root)).ok();
    let clean = git(&["status", "--porcelain"])?.trim().is_empty();
    clean.then(|| git(&["rev-parse", "HEAD"])).flatten().map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests;
