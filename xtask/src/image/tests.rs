use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::layout::{self, Image, rfc3339};
use super::tar::{Entry, Layer};
use crate::command;

fn image() -> Image {
    Image {
        name: "example:1".to_owned(),
        architecture: "amd64",
        user: "65532:65532".to_owned(),
        entrypoint: "/usr/bin/example",
        command: &["run"],
        environment: vec!["PATH=/usr/bin"],
        ports: &["9470/tcp"],
        labels: vec![("org.opencontainers.image.title", "example".to_owned())],
    }
}

fn layers(text: &str) -> Vec<Layer> {
    let mut layer = Layer::default();
    layer.add(Entry::text("etc/deep/down/file", text));
    layer.add(Entry::folder("var/lib/own", 65_532, 0o700));
    vec![layer]
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn the_same_inputs_give_the_same_bytes_and_others_do_not() {
    let place = tempfile::tempdir().unwrap();
    let make = |name: &str, text: &str, time| {
        let folder = place.path().join(name);
        let digest = layout::write(&folder, &image(), layers(text), time).unwrap();
        let tar = place.path().join(format!("{name}.tar"));
        layout::archive(&folder, &tar, time).unwrap();
        (digest, std::fs::read(tar).unwrap())
    };
    let first = make("first", "text", 1_700_000_000);
    assert!(first == make("second", "text", 1_700_000_000));
    assert_ne!(first.0, make("third", "other", 1_700_000_000).0);
    assert_ne!(first.0, make("fourth", "text", 1_700_000_001).0);
}

#[test]
fn every_descriptor_is_of_the_blob_it_names() {
    let place = tempfile::tempdir().unwrap();
    let digest = layout::write(place.path(), &image(), layers("text"), 0).unwrap();
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let file = place.path().join("blobs/sha256").join(digest);
        assert_eq!(file.metadata().unwrap().len(), descriptor["size"].as_u64().unwrap());
        assert_eq!(super::sha256::file(&file).unwrap(), digest);
        file
    };
    let index = json(&place.path().join("index.json"));
    assert_eq!(index["manifests"][0]["digest"], digest);
    let manifest = json(&blob(&index["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    assert_eq!(config["config"]["User"], "65532:65532");
    let packed = blob(&manifest["layers"][0]);
    let plain = place.path().join("plain.tar");
    let unpack = format!("gzip -dc '{}' > '{}'", packed.display(), plain.display());
    command::output(Command::new("sh").args(["-c", &unpack])).unwrap();
    let plain_digest = format!("sha256:{}", super::sha256::file(&plain).unwrap());
    assert_eq!(config["rootfs"]["diff_ids"][0], plain_digest);
    let docker = json(&place.path().join("manifest.json"));
    for file in [&docker[0]["Config"], &docker[0]["Layers"][0]] {
        assert!(place.path().join(file.as_str().unwrap()).is_file(), "{file}");
    }
}

#[test]
fn a_layer_is_what_gnu_tar_reads() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("layer.tar");
    let mut layer = layers("text").remove(0);
    let long = "x".repeat(101);
    layer.add(Entry::text(&long, "long"));
    layer.write(std::fs::File::create(&file).unwrap(), 1_700_000_000).unwrap();
    let listing = command::output(
        Command::new("tar")
            .args(["--numeric-owner", "--utc", "--full-time", "-tvf"])
            .arg(&file)
            .env("LC_ALL", "C"),
    )
    .unwrap();
    let lines: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
    let words =
        |path: &str| lines.iter().find(|line| line.last() == Some(&path)).cloned().unwrap_or_default();
    assert_eq!(words("var/lib/own/")[..2], ["drwx------", "65532/65532"]);
    assert_eq!(words("etc/deep/")[..2], ["drwxr-xr-x", "0/0"]);
    assert_eq!(words("etc/deep/down/file")[..5], ["-rw-r--r--", "0/0", "4", "2023-11-14", "22:13:20"]);
    assert_eq!(words(&long)[..3], ["-rw-r--r--", "0/0", "4"]);
}

#[test]
fn a_name_that_leads_out_is_refused() {
    let mut layer = Layer::default();
    layer.add(Entry::text("a/../../b", ""));
    assert!(layer.write(std::io::sink(), 0).is_err());
}

#[test]
fn times_are_those_of_date() {
    for time in [0, 951_782_399, 951_782_400, 1_709_164_800, 1_700_000_000, 4_102_444_799] {
        let date = command::output(Command::new("date").args([
            "-u",
            "-d",
            &format!("@{time}"),
            "+%Y-%m-%dT%H:%M:%SZ",
        ]));
        assert_eq!(rfc3339(time), date.unwrap().trim());
    }
}
