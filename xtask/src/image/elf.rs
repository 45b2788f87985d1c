//! Which libraries a program needs: read from its own dynamic section, so that nothing is run to find out, and a library
//! that is missing is said here and not by the loader in a container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const PT_LOAD: u64 = 1;

/// What is read of a program or a library.
#[derive(Debug)]
pub struct Elf {
    pub machine: Machine,
    /// The loader, of programs alone.
    pub loader: Option<String>,
    pub needs: Vec<String>,
}

/// Those that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// As OCI calls it.
    pub fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
        }
    }
}

/// The loader and the libraries of these programs, and what they need in turn: where each goes, and where it is here.
pub fn closure(bin: &Path, programs: &[&str], also: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut wanted: Vec<String> = also.iter().map(|name| (*name).to_owned()).collect();
    let mut machine = None;
    for program in programs {
        let elf = read(&bin.join(program))?;
        if machine.is_some_and(|other| other != elf.machine) {
            bail!("{program} is for another machine than the programs before it");
        }
        machine = Some(elf.machine);
        let loader = elf
            .loader
            .with_context(|| format!("{program} is static: it needs no library, so none is looked for"))?;
        files.insert(loader.trim_start_matches('/').to_owned(), PathBuf::from(&loader));
        wanted.extend(elf.needs);
    }
    let machine = machine.context("no program")?;
    let mut seen: BTreeSet<String> =
        files.keys().filter_map(|file| Some(file.rsplit('/').next()?.to_owned())).collect();
    while let Some(name) = wanted.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let (place, file) = find(&name, machine)?;
        wanted.extend(read(&file)?.needs);
        files.insert(place, file);
    }
    Ok(files)
}

/// Always below `/usr/lib/TRIPLET` in the image, which the loader of Debian's glibc looks through without a cache; with another
/// distribution's, below `/usr/lib64`.
fn find(name: &str, machine: Machine) -> Result<(String, PathBuf)> {
    let triplet = machine.triplet();
    let folders = [
        (format!("/usr/lib/{triplet}"), format!("usr/lib/{triplet}")),
        (format!("/lib/{triplet}"), format!("usr/lib/{triplet}")),
        (format!("/usr/{triplet}/lib"), format!("usr/lib/{triplet}")),
        ("/usr/lib64".to_owned(), "usr/lib64".to_owned()),
        ("/lib64".to_owned(), "usr/lib64".to_owned()),
    ];
    for (folder, place) in folders {
        let file = Path::new(&folder).join(name);
        if file.exists() && read(&file).is_ok_and(|elf| elf.machine == machine) {
            return Ok((format!("{place}/{name}"), file));
        }
    }
    bail!("the library {name} for {} is not on this machine", machine.oci())
}

/// Reads a 64-bit little-endian ELF file.
pub fn read(path: &Path) -> Result<Elf> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&bytes).with_context(|| format!("{} is no program for an image", path.display()))
}

fn parse(bytes: &[u8]) -> Result<Elf> {
    if bytes.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no 64-bit little-endian ELF file");
    }
    let machine = match number(bytes, 18, 2)? {
        62 => Machine::X86_64,
        183 => Machine::Aarch64,
        other => bail!("ELF machine {other} is none that images are made for"),
    };
    let (table, size, count) = (number(bytes, 32, 8)?, number(bytes, 54, 2)?, number(bytes, 56, 2)?);
    let mut segments = Vec::new();
    for nth in 0..count {
        let at = table.checked_add(nth * size).context("a header beyond the end")?;
        let field = |offset: u64, width| number(bytes, at.saturating_add(offset), width);
        segments.push((field(0, 4)?, field(8, 8)?, field(16, 8)?, field(32, 8)?));
    }
    let loader = segments.iter().find(|s| s.0 == PT_INTERP).map(|s| text(bytes, s.1)).transpose()?;
    let mut needs = Vec::new();
    if let Some((_, offset, _, length)) = segments.iter().find(|s| s.0 == PT_DYNAMIC) {
        let mut names = Vec::new();
        let mut strings = None;
        for nth in 0..length / 16 {
            let at = offset.saturating_add(nth * 16);
            let value = number(bytes, at.saturating_add(8), 8)?;
            match number(bytes, at, 8)? {
                0 => break,
                DT_NEEDED => names.push(value),
                DT_STRTAB => strings = Some(value),
                _ => {}
            }
        }
        let strings = strings.context("a dynamic section without strings")?;
        // An address, of which the file's place is wanted.
        let place = segments
            .iter()
            .filter(|s| s.0 == PT_LOAD)
            .find_map(|s| strings.checked_sub(s.2).filter(|inside| *inside < s.3).map(|inside| (s.1, inside)))
            .and_then(|(start, inside)| start.checked_add(inside))
            .context("strings that are not in the file")?;
        for name in names {
            needs.push(text(bytes, place.saturating_add(name))?);
        }
    }
    Ok(Elf { machine, loader, needs })
}

fn number(bytes: &[u8], at: u64, width: usize) -> Result<u64> {
    let at = usize::try_from(at)?;
    let field = at.checked_add(width).and_then(|end| bytes.get(at..end)).context("it ends too early")?;
    Ok(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

fn text(bytes: &[u8], at: u64) -> Result<String> {
    let rest = bytes.get(usize::try_from(at)?..).context("it ends too early")?;
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(std::str::from_utf8(text).context("a name that is no UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_is_read_as_it_is() {
        let elf = read(&std::env::current_exe().unwrap()).unwrap();
        assert!(elf.loader.as_deref().is_some_and(|loader| Path::new(loader).exists()), "{elf:?}");
        assert!(elf.needs.iter().any(|name| name == "libc.so.6"), "{elf:?}");
    }

    #[test]
    fn anything_else_is_refused_and_nothing_panics() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for length in (0..4096).chain([whole.len() / 2]) {
            let _ = parse(&whole[..length.min(whole.len())]);
        }
        assert!(parse(b"#!/bin/sh\n").is_err());
        let mut other = whole[..4096].to_vec();
        other[18] = 40;
        assert!(parse(&other).unwrap_err().to_string().contains("machine 40"));
        // Offsets that lead out of the file.
        for at in 32..64 {
            let mut bent = whole[..4096].to_vec();
            bent[at] = 0xff;
            let _ = parse(&bent);
        }
    }
}
