//! What is packed, in one folder: programs and `plugins/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Arch, Profile};
use crate::{build, command, plugins};

/// Builds all of it and puts it into one folder, which is given back.
pub fn build(root: &Path, arch: Arch, profile: Profile) -> Result<PathBuf> {
    let folder = build::target(root)?.join("dist").join(format!("built-{}", arch.debian()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("plugins"))?;
    match profile {
        Profile::Release => build::shipped(root, (arch != Arch::HOST).then(|| arch.rust()), &folder)?,
        Profile::Dev if arch != Arch::HOST => bail!("the dev profile is built for this machine alone"),
        Profile::Dev => build::shipped_to_try(root, &folder)?,
    }
    for file in plugins::build(root, &[])? {
        let name = file.file_name().context("a plugin without a name")?;
        let to = folder.join("plugins").join(name);
        std::fs::copy(&file, to).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(folder)
}

/// A `picket` that runs here.
pub fn signer(root: &Path, arch: Arch, folder: &Path) -> Result<PathBuf> {
    if arch == Arch::HOST {
        return Ok(folder.join("picket"));
    }
    command::run(&mut command::cargo(root, &["build", "--locked", "--release", "-p", "picket"]))?;
    Ok(build::target(root)?.join("release/picket"))
}

/// The newest version of the C library that a program asks for, as `(2, 34)`. The names of versions stand in it as text.
pub fn glibc(program: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_2.";
    program
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .filter_map(|(at, _)| {
            let rest = program.get(at + MARK.len()..)?;
            let digits: Vec<u8> = rest.iter().copied().take(3).take_while(u8::is_ascii_digit).collect();
            let minor = std::str::from_utf8(&digits).ok()?.parse().ok()?;
            Some((2, minor))
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts() {
        assert_eq!(glibc(b"\0GLIBC_2.17\0GLIBC_2.34\0GLIBC_2.3.4\0"), Some((2, 34)));
        assert_eq!(glibc(b"GLIBC_PRIVATE"), None);
        assert_eq!(glibc(b""), None);
    }

    /// Each program of the packages is built by something.
    #[test]
    fn all_programs_are_built() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let description = super::super::description::Description::load(root).unwrap();
        for program in description.programs() {
            assert!(build::shipped_programs().any(|shipped| shipped == program), "{program}");
        }
    }
}
