//! An image on disk: an OCI image layout, with the list beside it by which older Docker engines load it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::sha256;
use super::tar::{Entry, Layer};

/// What an image says of itself.
pub struct Image {
    /// With its tag.
    pub name: String,
    pub architecture: &'static str,
    pub user: String,
    pub entrypoint: &'static str,
    pub command: &'static [&'static str],
    pub environment: Vec<&'static str>,
    pub ports: &'static [&'static str],
    pub labels: Vec<(&'static str, String)>,
}

/// Writes the layout into `folder`, which is made anew; gives the manifest's digest.
pub fn write(folder: &Path, image: &Image, layers: Vec<Layer>, time: u64) -> Result<String> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    let (mut descriptors, mut plain, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for layer in &layers {
        let tar = blobs.join("layer.tar");
        layer.write(std::io::BufWriter::new(create(&tar)?), time)?;
        plain.push(format!("sha256:{}", sha256::file(&tar)?));
        let packed = blobs.join("layer.gz");
        // No time and no name in its header; the compressor is this crate's own, so no machine's gzip has a say.
        let mut gzip = GzBuilder::new().write(create(&packed)?, Compression::best());
        let mut source = File::open(&tar).with_context(|| format!("cannot read {}", tar.display()))?;
        std::io::copy(&mut source, &mut gzip).context("a layer cannot be compressed")?;
        gzip.finish().context("a layer cannot be compressed")?;
        std::fs::remove_file(&tar)?;
        let digest = sha256::file(&packed)?;
        let size = std::fs::metadata(&packed)?.len();
        std::fs::rename(&packed, blobs.join(&digest))?;
        descriptors.push(descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest, size));
        history.push(json!({ "created": rfc3339(time), "created_by": "cargo xtask image" }));
    }
    let labels: serde_json::Map<String, Value> =
        image.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let ports: serde_json::Map<String, Value> =
        image.ports.iter().map(|port| ((*port).to_owned(), json!({}))).collect();
    let config = json!({
        "created": rfc3339(time),
        "architecture": image.architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "ExposedPorts": ports,
            "Env": image.environment,
            "Entrypoint": [image.entrypoint],
            "Cmd": image.command,
            "WorkingDir": "/",
            "Labels": labels,
            "StopSignal": "SIGTERM",
        },
        "rootfs": { "type": "layers", "diff_ids": plain },
        "history": history,
    });
    let (config_digest, config_size) = blob(&blobs, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config_digest, config_size),
        "layers": descriptors,
        "annotations": labels,
    });
    let (digest, size) = blob(&blobs, &manifest)?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &digest, size);
    entry["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] =
        json!({ "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": image.name });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    });
    let of_layers: Vec<String> = manifest["layers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|layer| Some(format!("blobs/{}", layer["digest"].as_str()?.replace(':', "/"))))
        .collect();
    let docker = json!([{
        "Config": format!("blobs/sha256/{config_digest}"),
        "RepoTags": [image.name],
        "Layers": of_layers,
    }]);
    for (name, value) in [
        ("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" })),
        ("index.json", &index),
        ("manifest.json", &docker),
    ] {
        let file = folder.join(name);
        std::fs::write(&file, value.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(format!("sha256:{digest}"))
}

/// The layout as one file, for `docker load`, `podman load`, `skopeo copy oci-archive:`.
pub fn archive(folder: &Path, file: &Path, time: u64) -> Result<()> {
    let mut all = Layer::default();
    for name in ["oci-layout", "index.json", "manifest.json"] {
        all.add(Entry::file(name, &folder.join(name), 0o644)?);
    }
    let blobs = folder.join("blobs/sha256");
    for blob in std::fs::read_dir(&blobs).with_context(|| format!("cannot list {}", blobs.display()))? {
        let blob = blob?.path();
        let name = blob.file_name().and_then(|n| n.to_str()).context("a blob's name is no UTF-8")?;
        all.add(Entry::file(&format!("blobs/sha256/{name}"), &blob, 0o644)?);
    }
    let mut out = std::io::BufWriter::new(create(file)?);
    all.write(&mut out, time)?;
    out.flush().with_context(|| format!("cannot write {}", file.display()))
}

/// A time as the labels have it.
pub fn rfc3339(time: u64) -> String {
    let (days, seconds) = (time / 86_400, time % 86_400);
    // The civil calendar from the count of days, in years that begin in March.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn descriptor(kind: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": size })
}

fn blob(blobs: &Path, value: &Value) -> Result<(String, u64)> {
    let text = value.to_string();
    let digest = sha256::bytes(text.as_bytes())?;
    let file = blobs.join(&digest);
    std::fs::write(&file, &text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok((digest, u64::try_from(text.len())?))
}

fn create(file: &Path) -> Result<File> {
    File::create(file).with_context(|| format!("cannot write {}", file.display()))
}
