//! Every input with its seeds, its examples, and what is made of them by cutting, doubling and flipping: milliseconds of what
//! the fuzzer does for hours.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inputs::{INPUTS, seeds};

/// What of an example is tried: a large one is slow, and the fuzzer does it better.
const MOST: usize = 16 << 10;

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| files(entry, found));
    } else if path.is_file() {
        found.push(path.to_owned());
    }
}

#[test]
fn seeds_and_what_is_near_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let list = std::fs::read_to_string(root.join("tests/inputs/examples.toml")).unwrap();
    let examples: BTreeMap<String, Vec<String>> = toml::from_str(&list).unwrap();
    for input in INPUTS {
        let mut found = Vec::new();
        files(&seeds(input.name), &mut found);
        for example in examples.get(input.name).into_iter().flatten() {
            let before = found.len();
            files(&root.join(example), &mut found);
            assert!(found.len() > before, "{}: {example} is gone", input.name);
        }
        assert!(!found.is_empty(), "{} has no seed", input.name);
        (input.run)(b"");
        for file in &found {
            let bytes = std::fs::read(file).unwrap();
            let bytes = bytes.get(..MOST).unwrap_or(&bytes);
            (input.run)(bytes);
            for nth in 1..8 {
                let at = bytes.len() * nth / 8;
                (input.run)(&bytes[..at]);
                let mut flipped = bytes.to_vec();
                if let Some(byte) = flipped.get_mut(at) {
                    *byte ^= 1 << (nth % 8);
                }
                (input.run)(&flipped);
            }
        }
    }
}
