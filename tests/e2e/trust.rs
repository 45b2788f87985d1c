//! Signatures against other makers of them: openssl reads and writes ours, cosign's bundles are read. And what `picket
//! plugin` says of files.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{
    AgentBuilder, Keys, Registry, Test, binary, picket, plugin_of, plugins, quoted, run, run_program_with,
    signature,
};
use serde_json::{Value, json};

const TYPE: &str = "application/vnd.picket.plugin.v1+json";

/// What DSSE signs.
fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {TYPE} {} ", TYPE.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

async fn openssl(arguments: &[&str]) -> Result<String> {
    run_program_with(Command::new("openssl").args(arguments)).await?.ok()
}

/// Runs `picket`, which is to fail and to say this.
async fn refuses(arguments: &[&str], words: &[&str]) -> Result<()> {
    run_program_with(Command::new(binary("picket")?).args(arguments)).await?.refused(words)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn openssl_verifies_what_we_sign_and_we_verify_what_it_signs() {
    run(async |test: &Test| {
        if openssl(&["version"]).await.is_err() {
            e2e::skip("needs openssl");
            return Ok(());
        }
        let at = |name: &str| test.folder().join(name);
        let keys = Keys::new(test.folder(), "ours").await?;
        let public = openssl(&["pkey", "-in", &text(&keys.private()), "-pubout"]).await?;
        ensure!(public == std::fs::read_to_string(keys.public())?, "{public}");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(keys.private())?);
        ensure!(mode & 0o777 == 0o600, "{mode:o}");

        let file = at("count.wasm");
        std::fs::write(&file, plugin_of("count.wasm", "count", "1.2.3")?)?;
        keys.sign(&file).await?;
        let envelope: Value = serde_json::from_slice(&std::fs::read(signature(&file))?)?;
        let decode =
            |value: &Value| -> Result<Vec<u8>> { Ok(STANDARD.decode(value.as_str().context("no text")?)?) };
        let payload = decode(&envelope["payload"])?;
        let said: Value = serde_json::from_slice(&payload)?;
        ensure!(said["id"] == "count" && said["version"] == "1.2.3", "{said}");
        let sum = run_program_with(Command::new("sha256sum").arg(&file)).await?.ok()?;
        ensure!(said["digest"] == format!("sha256:{}", sum.split(' ').next().unwrap_or_default()), "{said}");
        std::fs::write(at("message"), encoded(&payload))?;
        std::fs::write(at("signature"), decode(&envelope["signatures"][0]["sig"])?)?;
        let (message, signed) = (text(&at("message")), text(&at("signature")));
        let verify =
            ["pkeyutl", "-verify", "-pubin", "-rawin", "-in", &message, "-sigfile", &signed, "-inkey"];
        let said = openssl(&[&verify[..], &[&text(&keys.public())]].concat()).await?;
        ensure!(said.contains("Successfully"), "{said}");

        // The other way: openssl's key, openssl's signature.
        let (private, public) = (text(&at("theirs.key")), text(&at("theirs.pub")));
        openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private]).await?;
        openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]).await?;
        refuses(&["plugin", "verify", &text(&file), "--key", &public], &["PKT-0013"]).await?;
        openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &private, "-in", &message, "-out", &signed])
            .await?;
        let der = STANDARD.decode(
            std::fs::read_to_string(&public)?.lines().filter(|l| !l.starts_with('-')).collect::<String>(),
        )?;
        std::fs::write(at("spki"), der)?;
        let id = run_program_with(Command::new("sha256sum").arg(at("spki"))).await?.ok()?;
        let theirs = json!({
            "payloadType": TYPE,
            "payload": STANDARD.encode(&payload),
            "signatures": [{
                "keyid": format!("sha256:{}", id.split(' ').next().unwrap_or_default()),
                "sig": STANDARD.encode(std::fs::read(&signed)?),
            }],
        });
        std::fs::write(signature(&file), theirs.to_string())?;
        let said = picket(&["plugin", "verify", &text(&file), "--key", &public]).await?;
        ensure!(said.contains("count 1.2.3"), "{said}");
        // And openssl's key signs by our hand, beside its own.
        std::fs::remove_file(signature(&file))?;
        picket(&["plugin", "sign", &text(&file), "--key", &private]).await?;
        keys.sign(&file).await?;
        for key in [&public, &text(&keys.public())] {
            picket(&["plugin", "verify", &text(&file), "--key", key]).await?;
        }
        Ok(())
    });
}

#[test]
fn cosigns_bundles_are_read() {
    run(async |test: &Test| {
        let Some(cosign) = test.part("cosign") else { return Ok(()) };
        let file = test.folder().join("count.wasm");
        std::fs::write(&file, plugin_of("count.wasm", "count", "1.2.3")?)?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&cosign);
            // No network: neither the log nor the roots of sigstore's own.
            command.args(arguments).env("COSIGN_PASSWORD", "secret").env("HOME", test.folder());
            command.current_dir(test.folder());
            async move { run_program_with(&mut command).await?.ok() }
        };
        run(&["generate-key-pair"]).await?;
        let sign = [
            "sign-blob",
            "--yes",
            "--key",
            "cosign.key",
            "--use-signing-config=false",
            "--tlog-upload=false",
        ];
        run(&[&sign[..], &["--bundle", "count.wasm.sigstore.json", "count.wasm"]].concat()).await?;
        let key = text(&test.folder().join("cosign.pub"));
        let said = picket(&["plugin", "verify", &text(&file), "--key", &key]).await?;
        ensure!(said.contains("count 1.2.3"), "{said}");
        // Of this file alone, and by this key alone.
        let other = test.folder().join("other.wasm");
        std::fs::write(&other, plugin_of("count.wasm", "count", "1.2.4")?)?;
        std::fs::copy(
            test.folder().join("count.wasm.sigstore.json"),
            test.folder().join("other.wasm.sigstore.json"),
        )?;
        refuses(&["plugin", "verify", &text(&other), "--key", &key], &["PKT-0014", "of another file"])
            .await?;
        let keys = Keys::new(test.folder(), "ours").await?;
        refuses(&["plugin", "verify", &text(&file), "--key", &text(&keys.public())], &["PKT-0013"]).await?;
        // All-of over both makers, on a node.
        let policy = test.folder().join("policy.toml");
        std::fs::write(
            &policy,
            format!(
                "policy = 1\n[keys]\nours.file = {}\ntheirs.file = {}\n[default]\nrequire = \"all-of\"\n",
                quoted(keys.public()),
                quoted(&key)
            ),
        )?;
        let agent = AgentBuilder::new(test, "alone")?
            .plugin_dir(test.folder())
            .trust(&format!("policy = {}", quoted(&policy)))
            .section("[plugins.count]\ninterval = \"200ms\"\n")
            .start()
            .await?;
        let plugin = agent.plugin_state("count", "refused").await?;
        ensure!(plugin["code"] == "PKT-0013" && plugin["reason"].to_string().contains("theirs"), "{plugin}");
        keys.sign(&file).await?;
        let plugin = agent.plugin_state("count", "running").await?;
        ensure!(plugin["signed_by"] == "ours, theirs", "{plugin}");
        Ok(())
    });
}

#[test]
fn the_command_line_tells_what_a_file_is() {
    run(async |test: &Test| {
        let node = plugins().join("node.wasm");
        // The lines that it prints are those that the agent asks for: with them the plugin runs.
        let lines = picket(&["plugin", "grants", &text(&node)]).await?;
        ensure!(lines.contains("# why: ") && lines.contains("[[plugins.node.grants]]"), "{lines}");
        let agent = AgentBuilder::new(test, "alone")?
            .section(format!("[plugins.node]\ninterval = \"200ms\"\n{lines}"))
            .start()
            .await?;
        agent.plugin_state("node", "running").await?;
        let grants = agent.api.json("/api/v1/grants").await?;
        let first = &grants["plugins"][0];
        ensure!(
            first["needs"][0]["why"].is_string() && first["grants"][0]["capability"].is_string(),
            "{grants}"
        );
        let renamed = picket(&["plugin", "grants", &text(&node), "--as", "node-2"]).await?;
        ensure!(renamed.contains("[[plugins.node-2.grants]]"), "{renamed}");
        let document = picket(&["plugin", "grants", &text(&node), "--output", "json"]).await?;
        let document: Value = serde_json::from_str(&document)?;
        ensure!(
            document["toml"] == format!("{}\n", lines.trim_end()) || document["needs"].is_array(),
            "{document}"
        );

        let said = picket(&["plugin", "inspect", &text(&node)]).await?;
        ensure!(said.contains("picket:host/files@0.1.0") && said.contains("needs"), "{said}");
        let file = test.folder().join("count.wasm");
        std::fs::write(&file, plugin_of("count.wasm", "count", "1.2.3")?)?;
        let keys = Keys::new(test.folder(), "ours").await?;
        keys.sign(&file).await?;
        let document: Value =
            serde_json::from_str(&picket(&["plugin", "inspect", &text(&file), "--output", "json"]).await?)?;
        ensure!(
            document["manifest"]["version"] == "1.2.3" && document["signatures_are_of_this_file"] == true,
            "{document}"
        );

        // What can't be done is said, and no key is lost.
        refuses(&["plugin", "keygen", &text(&test.folder().join("ours"))], &["is there already"]).await?;
        refuses(&["plugin", "inspect", "/nowhere/a.wasm"], &["/nowhere/a.wasm"]).await?;
        refuses(&["plugin", "inspect", &text(&keys.public())], &["no plugin"]).await?;
        refuses(&["plugin", "grants", &text(&e2e::guests().join("count.wasm"))], &["no manifest"]).await?;
        refuses(&["plugin", "sign", &text(&file), "--key", &text(&keys.public())], &["PRIVATE KEY"]).await?;
        std::fs::write(&file, plugin_of("count.wasm", "count", "1.2.4")?)?;
        refuses(&["plugin", "verify", &text(&file), "--key", &text(&keys.public())], &["PKT-0012", "1.2.3"])
            .await?;
        std::fs::remove_file(signature(&file))?;
        refuses(&["plugin", "verify", &text(&file), "--key", &text(&keys.public())], &["PKT-0011"]).await
    });
}

#[test]
fn a_plugin_goes_through_a_registry_and_is_the_same_afterwards() {
    run(async |test: &Test| {
        let Some(registry) = Registry::start(test).await? else { return Ok(()) };
        let host = registry.host();
        let file = test.folder().join("work.wasm");
        std::fs::write(&file, plugin_of("count.wasm", "count", "1.2.3")?)?;
        let keys = Keys::new(test.folder(), "ours").await?;
        keys.sign(&file).await?;
        let place = format!("{host}/plugins/count:1.2.3");
        let pushed = picket(&["plugin", "push", &text(&file), &place, "--plain-http"]).await?;
        let pinned = pushed.trim();
        ensure!(pinned.starts_with(&format!("{place}@sha256:")), "{pushed}");
        // Once more: nothing is new, and the digest is the same.
        ensure!(picket(&["plugin", "push", &text(&file), &place, "--plain-http"]).await? == pushed);

        let folder = test.folder().join("pulled");
        std::fs::create_dir(&folder)?;
        for reference in [place.as_str(), pinned] {
            picket(&["plugin", "pull", reference, "--into", &text(&folder), "--plain-http"]).await?;
            let pulled = folder.join("count.wasm");
            ensure!(std::fs::read(&pulled)? == std::fs::read(&file)?, "other bytes came back");
            picket(&["plugin", "verify", &text(&pulled), "--key", &text(&keys.public())]).await?;
        }
        let wrong = format!("{host}/plugins/count@sha256:{}", "0".repeat(64));
        let into = text(&folder);
        for (reference, words) in [
            (wrong.as_str(), &["404"][..]),
            (&format!("{host}/plugins/nothing:1"), &["404"]),
            (&format!("{host}/plugins/count:no such"), &["is no reference"]),
        ] {
            refuses(&["plugin", "pull", reference, "--into", &into, "--plain-http"], words).await?;
        }
        refuses(&["plugin", "pull", &place, "--into", &into], &["127.0.0.1"]).await?;

        // A layer that was changed where it lies.
        let blobs = registry.store().join("docker/registry/v2/blobs/sha256");
        let digest = run_program_with(Command::new("sha256sum").arg(&file)).await?.ok()?;
        let digest = digest.split(' ').next().unwrap_or_default();
        let blob = blobs.join(digest.get(..2).context("no digest")?).join(digest).join("data");
        let mut bytes = std::fs::read(&blob)?;
        *bytes.last_mut().context("empty")? ^= 1;
        std::fs::write(&blob, bytes)?;
        refuses(&["plugin", "pull", pinned, "--into", &into, "--plain-http"], &["digest"]).await
    });
}
