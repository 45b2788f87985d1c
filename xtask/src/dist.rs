//! The packages: what is shipped, built and packed. `packaging/packages.toml` says what is in them.
//!
//! The same sources, compiler and key give the same bytes: every time in a package is that of the last commit, or what
//! `SOURCE_DATE_EPOCH` says.

mod built;
mod description;
mod sbom;
mod stage;
mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{build, command, setup};
use description::Description;
use stage::Staged;
use tools::{CARGO_DEB, CARGO_GENERATE_RPM};

/// Most bytes of the agent's deb, as it is shipped.
const AGENT_BYTES: u64 = 15 << 20;

#[derive(clap::Args, Clone)]
pub struct Args {
    /// How it is built; dev: the programs of the tests, to try packages with.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// For which machines; for others than this one it is cross-compiled.
    #[arg(long, value_enum, default_value_t = Arch::HOST)]
    pub arch: Arch,
    /// Build nothing, pack what lies in this folder: programs, plugins/*.wasm.
    #[arg(long, value_name = "FOLDER")]
    pub built: Option<PathBuf>,
    /// The private key that plugins are signed with, NAME.key, with NAME.pub beside it. Without one, a key of this machine's.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The packages' version, where it is not the workspace's.
    #[arg(long, value_name = "VERSION")]
    pub package_version: Option<semver::Version>,
    /// Where the packages go; target/dist/VERSION/ARCH where not said.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// Pack everything a second time and compare the bytes.
    #[arg(long)]
    pub check: bool,
    /// Leave out the bill of materials.
    #[arg(long)]
    pub no_sbom: bool,
    /// Packed in a hurry: large.
    #[arg(long)]
    pub quick: bool,
}

impl Args {
    /// Of packages that are only to be tried.
    pub fn to_try(built: Option<PathBuf>) -> Self {
        Self {
            profile: Profile::Dev,
            arch: Arch::HOST,
            built,
            key: None,
            package_version: None,
            into: None,
            check: false,
            no_sbom: true,
            quick: true,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    Release,
    Dev,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Arch {
    Amd64,
    Arm64,
}

impl Arch {
    pub const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    pub const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    const fn rpm(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    pub const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// A program of binutils for it.
    fn tool(self, name: &str) -> String {
        if self == Self::HOST { name.to_owned() } else { format!("{}-linux-gnu-{name}", self.rpm()) }
    }
}

/// What all packages of a run share.
struct Release<'a> {
    root: &'a Path,
    built: &'a Path,
    version: &'a str,
    arch: Arch,
    /// A `picket` that runs here.
    signer: PathBuf,
    key: &'a Path,
    /// Every time in a package, in seconds since 1970 and as RFC 2822 writes it.
    epoch: u64,
    date: String,
}

/// Makes the packages; `false` where a check failed.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    let made = make(root, args)?;
    for file in &made {
        println!("{}\t{}", file.metadata()?.len(), file.display());
    }
    if !args.check {
        return Ok(true);
    }
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let again = make(
        root,
        &Args {
            built: Some(built_folder(root, args)?),
            into: Some(folder.path().to_owned()),
            check: false,
            ..args.clone()
        },
    )?;
    let mut same = made.len() == again.len();
    for (first, second) in made.iter().zip(&again) {
        if std::fs::read(first)? != std::fs::read(second)? {
            eprintln!("{} has other bytes the second time", first.display());
            same = false;
        }
    }
    if same {
        eprintln!("packed twice: {} files, the same bytes", made.len());
    }
    Ok(same)
}

pub fn built_folder(root: &Path, args: &Args) -> Result<PathBuf> {
    match &args.built {
        Some(folder) => {
            Ok(folder.canonicalize().with_context(|| format!("no folder {}", folder.display()))?)
        }
        None => Ok(build::target(root)?.join("dist").join(format!("built-{}", args.arch.debian()))),
    }
}

/// The packages, the bill of materials, and the sums of all.
pub fn make(root: &Path, args: &Args) -> Result<Vec<PathBuf>> {
    let description = Description::load(root)?;
    if args.built.is_none() {
        setup::check(root)?;
        if args.arch != Arch::HOST {
            setup::check_foreign(root, args.arch.rust(), args.arch.debian())?;
        }
        built::build(root, args.arch, args.profile)?;
    }
    let built = built_folder(root, args)?;
    let dist = build::target(root)?.join("dist");
    let signer = built::signer(root, args.arch, &built)?;
    let key = match &args.key {
        Some(key) => key.clone(),
        None => own_key(&signer, &dist)?,
    };
    let version = match &args.package_version {
        Some(version) => version.to_string(),
        None => env!("CARGO_PKG_VERSION").to_owned(),
    };
    let epoch = build::epoch(root)?;
    let release = Release {
        root,
        built: &built,
        version: &version,
        arch: args.arch,
        signer,
        key: &key,
        epoch,
        date: command::output(Command::new("date").args(["-u", "-R", "-d"]).arg(format!("@{epoch}")))?
            .trim()
            .to_owned(),
    };
    asks_for_no_newer_library(&release, &description)?;
    let into = args.into.clone().unwrap_or_else(|| dist.join(&version).join(args.arch.debian()));
    std::fs::create_dir_all(&into)?;
    let into = into.canonicalize()?;
    let stages = tempfile::Builder::new().prefix("picket-dist-").tempdir().context("no temporary folder")?;
    let mut files = Vec::new();
    for (name, package) in &description.packages {
        let staged = stage::stage(&release, name, &description, package, &stages.path().join(name))?;
        files.push(deb(&release, &staged, &into, args.quick)?);
        files.push(rpm(&release, &staged, &into, args.quick)?);
    }
    if !args.no_sbom {
        files.extend(sbom::write(root, &into, &version, args.arch.rust(), epoch)?);
    }
    small_enough(&files, args)?;
    files.push(sums(&into, &files)?);
    Ok(files)
}

fn deb(release: &Release<'_>, staged: &Staged, into: &Path, quick: bool) -> Result<PathBuf> {
    let file = into.join(format!("{}_{}-1_{}.deb", staged.name, release.version, release.arch.debian()));
    let mut tool = CARGO_DEB.command(release.root, &staged.folder)?;
    tool.args(["--no-build", "--no-strip", "--offline", "--target", release.arch.rust(), "--output"])
        .arg(&file)
        .arg("--manifest-path")
        .arg(staged.folder.join("Cargo.toml"))
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("CARGO_TARGET_DIR", staged.folder.join("target"));
    if quick {
        tool.arg("--fast");
    }
    command::output(&mut tool)?;
    Ok(file)
}

fn rpm(release: &Release<'_>, staged: &Staged, into: &Path, quick: bool) -> Result<PathBuf> {
    let arch = if staged.native { release.arch.rpm() } else { "noarch" };
    let file = into.join(format!("{}-{}-1.{arch}.rpm", staged.name, release.version));
    let mut tool = CARGO_GENERATE_RPM.command(release.root, &staged.folder)?;
    tool.args(["--arch", arch, "--auto-req", "disabled", "--output"])
        .arg(&file)
        .args(["--payload-compress", if quick { "gzip" } else { "xz" }])
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .env("CARGO_TARGET_DIR", staged.folder.join("target"));
    command::output(&mut tool)?;
    Ok(file)
}

/// A key for packages to try out; made once.
fn own_key(signer: &Path, dist: &Path) -> Result<PathBuf> {
    let name = dist.join("development");
    let key = dist.join("development.key");
    if !key.exists() {
        std::fs::create_dir_all(dist)?;
        command::output(Command::new(signer).args(["plugin", "keygen"]).arg(&name))?;
    }
    eprintln!("plugins are signed with this machine's own key, {}: no release (--key)", key.display());
    Ok(key)
}

fn asks_for_no_newer_library(release: &Release<'_>, description: &Description) -> Result<()> {
    let most = built::glibc(format!("GLIBC_{}", description.glibc).as_bytes()).with_context(|| {
        format!(
            "packaging/packages.toml says glibc = {:?}, which is no version such as 2.34",
            description.glibc
        )
    })?;
    for program in description.programs() {
        let file = release.built.join(program);
        let bytes = std::fs::read(&file).with_context(|| format!("{} was not built", file.display()))?;
        if let Some((major, minor)) = built::glibc(&bytes).filter(|asked| *asked > most) {
            bail!(
                "{program} asks for glibc {major}.{minor}, the packages say {}: build on an older system, or raise `glibc` in \
                 packaging/packages.toml",
                description.glibc
            );
        }
    }
    Ok(())
}

fn small_enough(files: &[PathBuf], args: &Args) -> Result<()> {
    if args.profile == Profile::Dev || args.built.is_some() {
        return Ok(());
    }
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = file.metadata()?.len();
        if name.starts_with("picket-agent_") && name.ends_with(".deb") && bytes > AGENT_BYTES {
            bail!("{name} has {bytes} bytes; it may have {AGENT_BYTES}");
        }
    }
    Ok(())
}

fn sums(into: &Path, files: &[PathBuf]) -> Result<PathBuf> {
    let names: Vec<&std::ffi::OsStr> = files.iter().filter_map(|file| file.file_name()).collect();
    let text = command::output(Command::new("sha256sum").args(names).current_dir(into))?;
    let file = into.join("SHA256SUMS");
    std::fs::write(&file, text)?;
    Ok(file)
}
