//! What is packed, in one folder: programs and `plugins/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Arch, Profile};
use crate::{build, command, plugins};

/// One call of `cargo build`, each apart, so that features of the one don't reach the other.
struct Part {
    programs: &'static [&'static str],
    profile: &'static str,
    args: &'static [&'static str],
}

const PARTS: &[Part] = &[
    Part { programs: &["picket-agent"], profile: "small", args: &["-p", "picket-agent"] },
    Part {
        programs: &["picket-worker"],
        profile: "small",
        args: &["-p", "picket-agent-host", "--bin", "picket-worker"],
    },
    Part {
        programs: &["picket-nvml"],
        profile: "small",
        args: &["-p", "picket-agent-nvml", "--features", "driver", "--bin", "picket-nvml"],
    },
    Part {
        programs: &["picket-compile"],
        profile: "release",
        args: &["-p", "picket-agent-host", "--features", "compile", "--bin", "picket-compile"],
    },
    Part {
        programs: &["picket-aggregator", "picket"],
        profile: "release",
        args: &["-p", "picket-aggregator", "-p", "picket"],
    },
];

/// Builds all of it and puts it into one folder, which is given back.
pub fn build(root: &Path, arch: Arch, profile: Profile) -> Result<PathBuf> {
    let target = build::target(root)?;
    let folder = target.join("dist").join(format!("built-{}", arch.debian()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(folder.join("plugins"))?;
    match profile {
        Profile::Release => {
            for part in PARTS {
                let mut build = command::cargo(root, &["build", "--locked", "--profile", part.profile]);
                build.args(part.args);
                let mut from = target.clone();
                if arch != Arch::HOST {
                    build.args(["--target", arch.rust()]);
                    from.push(arch.rust());
                }
                command::run(&mut build)?;
                for program in part.programs {
                    copy(&from.join(part.profile).join(program), &folder.join(program))?;
                }
            }
        }
        Profile::Dev if arch != Arch::HOST => bail!("the dev profile is built for this machine alone"),
        Profile::Dev => {
            build::all(root)?;
            for program in PARTS.iter().flat_map(|part| part.programs) {
                copy(&target.join("debug").join(program), &folder.join(program))?;
            }
        }
    }
    for file in plugins::build(root, &[])? {
        let name = file.file_name().context("a plugin without a name")?.to_owned();
        copy(&file, &folder.join("plugins").join(name))?;
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

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
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
            assert!(PARTS.iter().any(|part| part.programs.contains(&program)), "{program}");
        }
    }
}
