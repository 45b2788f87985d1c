//! A package's files as they will lie on a node, and the manifest that `cargo-deb` and `cargo-generate-rpm` read of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::Release;
use super::description::{Description, Origin, Package};
use crate::{build, command, plugins};

const CONFIGURATION: &str = "/etc/";
const PROGRAM: u32 = 0o755;
const FILE: u32 = 0o644;

/// A package, staged.
pub struct Staged {
    pub name: String,
    pub folder: PathBuf,
    pub native: bool,
}

/// Puts the files of a package into `folder`, with a `Cargo.toml` that describes it.
pub fn stage(
    release: &Release<'_>,
    name: &str,
    description: &Description,
    package: &Package,
    folder: &Path,
) -> Result<Staged> {
    let mut stage = Stage { release, folder, files: Vec::new() };
    std::fs::create_dir_all(folder)?;
    for entry in &package.files {
        stage.entry(entry.origin()?, &entry.to).with_context(|| format!("{name}: {}", entry.from))?;
    }
    let overrides = release.root.join(format!("packaging/deb/{name}.lintian-overrides"));
    if overrides.is_file() {
        stage.copy(&overrides, &format!("/usr/share/lintian/overrides/{name}"), FILE)?;
    }
    stage.copy(
        &release.root.join("packaging/copyright"),
        &format!("/usr/share/doc/{name}/copyright"),
        FILE,
    )?;
    stage.describe(name, description, package)?;
    Ok(Staged { name: name.to_owned(), folder: folder.to_owned(), native: package.native })
}

struct Stage<'a> {
    release: &'a Release<'a>,
    folder: &'a Path,
    /// Where they will lie, and with which rights.
    files: Vec<(String, u32)>,
}

impl Stage<'_> {
    fn entry(&mut self, origin: Origin<'_>, to: &str) -> Result<()> {
        let built = self.release.built;
        match origin {
            Origin::Repository(file) => self.copy(&self.release.root.join(file), to, FILE),
            Origin::Program(name) => self.program(&built.join(name), to),
            Origin::Key => self.copy(&self.release.key.with_extension("pub"), to, FILE),
            Origin::Plugins => {
                for file in listed(&built.join("plugins"), "wasm")? {
                    let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
                    self.copy(&file, &format!("{to}/{name}"), FILE)?;
                    self.sign(&format!("{to}/{name}"))?;
                }
                Ok(())
            }
            Origin::Manual(program) => {
                for file in listed(&self.pages(program), "1")? {
                    let name = file.file_name().context("no name")?.to_string_lossy().into_owned();
                    self.compress(&file, &format!("{to}/{name}.gz"))?;
                }
                Ok(())
            }
            Origin::Completion(program) => {
                for (file, to) in [
                    (format!("{program}.bash"), format!("/usr/share/bash-completion/completions/{program}")),
                    (format!("_{program}"), format!("/usr/share/zsh/vendor-completions/_{program}")),
                    (
                        format!("{program}.fish"),
                        format!("/usr/share/fish/vendor_completions.d/{program}.fish"),
                    ),
                ] {
                    self.copy(&self.pages(program).join(file), &to, FILE)?;
                }
                Ok(())
            }
        }
    }

    /// What a program's own test wrote of its arguments.
    fn pages(&self, program: &str) -> PathBuf {
        self.release.root.join("packaging/pages").join(program)
    }

    fn inside(&self, to: &str) -> Result<PathBuf> {
        let place = self.folder.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().context("no folder")?)?;
        Ok(place)
    }

    fn copy(&mut self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let place = self.inside(to)?;
        std::fs::copy(from, &place).with_context(|| format!("cannot copy {}", from.display()))?;
        self.added(to, mode)
    }

    /// Without what only a debugger reads; its own copy, so that what was built stays as it is.
    fn program(&mut self, from: &Path, to: &str) -> Result<()> {
        let place = self.inside(to)?;
        let tool = self.release.arch.tool("strip");
        let mut strip = Command::new(&tool);
        command::output(strip.arg("--strip-unneeded").arg("-o").arg(&place).arg(from))
            .with_context(|| format!("{} is not there, or {tool} (binutils) is not", from.display()))?;
        self.added(to, PROGRAM)
    }

    fn compress(&mut self, from: &Path, to: &str) -> Result<()> {
        let place = self.inside(to)?;
        let packed = Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).output().context("gzip")?;
        if !packed.status.success() {
            bail!("gzip failed on {}", from.display());
        }
        std::fs::write(&place, packed.stdout)?;
        self.added(to, FILE)
    }

    /// By the CLI, as everybody signs.
    fn sign(&mut self, to: &str) -> Result<()> {
        let place = self.inside(to)?;
        plugins::sign(&self.release.signer, &place, self.release.key)?;
        self.added(&format!("{to}.sig"), FILE)
    }

    fn added(&mut self, to: &str, mode: u32) -> Result<()> {
        let place = self.inside(to)?;
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode))?;
        let when = SystemTime::UNIX_EPOCH + Duration::from_secs(self.release.epoch);
        std::fs::File::options().write(true).open(&place)?.set_modified(when)?;
        self.files.push((to.to_owned(), mode));
        Ok(())
    }

    /// A crate of its own with nothing in it: both tools read their part of its manifest.
    fn describe(&mut self, name: &str, description: &Description, package: &Package) -> Result<()> {
        let release = self.release;
        self.files.sort();
        let scripts = release.root.join("packaging");
        let mut deb = table([
            ("maintainer", description.maintainer.as_str().into()),
            ("extended-description", package.description.trim().into()),
            ("section", "admin".into()),
            ("priority", "optional".into()),
            ("changelog", "changelog".into()),
            ("depends", depends(description, package).join(", ").into()),
            ("assets", self.deb_assets().into()),
        ]);
        let mut rpm = table([
            ("summary", capitalised(&package.summary).into()),
            ("vendor", description.vendor.as_str().into()),
            ("auto-req", "no".into()),
            ("assets", self.rpm_assets().into()),
            ("requires", requires(description, package).into()),
        ]);
        if !package.recommends.is_empty() {
            deb.insert("recommends".to_owned(), package.recommends.join(", ").into());
            let any = package.recommends.iter().map(|other| (other.clone(), "*".into())).collect();
            rpm.insert("recommends".to_owned(), Value::Table(any));
        }
        let mut after = self.remove_folders();
        if package.scripts {
            let folder = self.folder.join("scripts");
            std::fs::create_dir_all(&folder)?;
            for script in ["postinst", "prerm", "postrm"] {
                std::fs::copy(scripts.join(format!("deb/{name}.{script}")), folder.join(script))?;
            }
            deb.insert("maintainer-scripts".to_owned(), "scripts".into());
            let script = |kind: &str| std::fs::read_to_string(scripts.join(format!("rpm/{name}.{kind}")));
            rpm.insert("post_install_script".to_owned(), script("post")?.into());
            rpm.insert("pre_uninstall_script".to_owned(), script("preun")?.into());
            after += &script("postun")?;
        }
        rpm.insert("post_uninstall_script".to_owned(), after.into());
        let metadata = table([("deb", deb.into()), ("generate-rpm", rpm.into())]);
        let crate_ = table([
            ("name", name.into()),
            ("version", release.version.into()),
            ("edition", "2024".into()),
            ("description", package.summary.as_str().into()),
            ("license", "Apache-2.0".into()),
            ("metadata", metadata.into()),
        ]);
        let manifest = table([
            ("package", crate_.into()),
            ("lib", table([("path", "lib.rs".into())]).into()),
            ("workspace", Table::new().into()),
        ]);
        std::fs::write(self.folder.join("Cargo.toml"), toml::to_string(&manifest)?)?;
        std::fs::write(self.folder.join("lib.rs"), "")?;
        let changelog = format!(
            "{name} ({version}-1) unstable; urgency=medium\n\n  * What changed stands in CHANGELOG.md of the source.\n\n \
             -- {maintainer}  {date}\n",
            version = release.version,
            maintainer = description.maintainer,
            date = release.date,
        );
        std::fs::write(self.folder.join("changelog"), changelog)?;
        Ok(())
    }

    fn deb_assets(&self) -> Vec<Value> {
        let asset = |(to, mode): &(String, u32)| {
            let inside = to.trim_start_matches('/').to_owned();
            vec![inside.clone(), inside, format!("{mode:o}")].into()
        };
        self.files.iter().map(asset).collect()
    }

    fn rpm_assets(&self) -> Vec<Value> {
        let file = |(to, mode): &(String, u32)| {
            // Each system has a folder of its own for zsh.
            let place = to.replace("/zsh/vendor-completions/", "/zsh/site-functions/");
            let document = ["/usr/share/doc/", "/usr/share/man/"].iter().any(|folder| to.starts_with(folder));
            let mut asset = table([
                ("source", to.trim_start_matches('/').into()),
                ("dest", place.into()),
                ("mode", format!("{mode:o}").into()),
                ("doc", document.into()),
            ]);
            if to.starts_with(CONFIGURATION) {
                asset.insert("config".to_owned(), "noreplace".into());
            }
            Value::Table(asset)
        };
        self.files.iter().filter(|(to, _)| !to.contains("/lintian/")).map(file).collect()
    }

    /// cargo-generate-rpm knows no folders, so RPM does not remove them either.
    fn remove_folders(&self) -> String {
        let mut folders: Vec<&Path> = self.files.iter().flat_map(|(to, _)| own_folders(to)).collect();
        // The deepest first.
        folders.sort_unstable_by(|a, b| b.cmp(a));
        folders.dedup();
        let list: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("if [ \"$1\" -eq 0 ]; then\n    rmdir {} 2>/dev/null || :\nfi\n", list.join(" "))
    }
}

/// The folders of a file that are there for what is ours alone.
fn own_folders(file: &str) -> impl Iterator<Item = &Path> {
    let ours = |folder: &&Path| {
        let mut names = folder.components().filter_map(|part| part.as_os_str().to_str());
        names.any(|name| name.starts_with("picket"))
    };
    Path::new(file).ancestors().skip(1).filter(ours)
}

fn depends(description: &Description, package: &Package) -> Vec<String> {
    let mut list = Vec::new();
    if package.native {
        list.push(format!("libc6 (>= {})", description.glibc));
        list.push("libgcc-s1 (>= 4.2)".to_owned());
    }
    if package.scripts {
        // Users are made by the one or the other.
        list.push("systemd | passwd".to_owned());
    }
    if !package.depends.is_empty() {
        list.push(package.depends.join(" | "));
    }
    list
}

fn requires(description: &Description, package: &Package) -> Table {
    let mut all = Table::new();
    if package.native {
        all.insert(format!("libc.so.6(GLIBC_{})(64bit)", description.glibc), "*".into());
        all.insert("libgcc_s.so.1()(64bit)".to_owned(), "*".into());
    }
    if package.scripts {
        all.insert("(systemd or shadow-utils)".to_owned(), "*".into());
    }
    if !package.depends.is_empty() {
        all.insert(format!("({})", package.depends.join(" or ")), "*".into());
    }
    all
}

/// As RPM has it; Debian begins in lower case.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn table<const N: usize>(pairs: [(&str, Value); N]) -> Table {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The files of a folder that end so; there must be some.
fn listed(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let files = build::listed(folder, extension)?;
    if files.is_empty() {
        bail!("{} has no file that ends in .{extension}", folder.display());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_ours() {
        let check = |file: &str, want: &[&str]| {
            let folders: Vec<&Path> = own_folders(file).collect();
            assert_eq!(folders, want.iter().map(Path::new).collect::<Vec<_>>(), "{file}");
        };
        check("/usr/lib/picket/plugins/a.wasm", &["/usr/lib/picket/plugins", "/usr/lib/picket"]);
        check("/usr/share/doc/picket/copyright", &["/usr/share/doc/picket"]);
        check("/usr/bin/picket", &[]);
    }

    #[test]
    fn summaries() {
        assert_eq!(capitalised("node agent"), "Node agent");
        assert_eq!(capitalised(""), "");
    }
}
