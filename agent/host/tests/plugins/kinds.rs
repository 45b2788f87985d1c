//! What is no plugin, or none that the operator granted: refused before it is compiled, each with its own reason.

use std::time::Duration;

use picket_agent_host::{Fault, Phase, PluginSpec};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn files_that_are_no_plugins() {
    let f = Fixture::new();
    let good = component("hostile");
    let elf = std::fs::read("/proc/self/exe").unwrap();
    let half = &good[..good.len() / 2];
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("empty", Vec::new(), "PKT-0003", "empty"),
        ("truncated", half.to_vec(), "PKT-0004", "breaks off"),
        ("header", good[..6].to_vec(), "PKT-0004", "breaks off"),
        ("module", core_module(), "PKT-0005", "core"),
        ("elf", elf, "PKT-0006", "ELF"),
        ("text", b"[[plugins]]\n".to_vec(), "PKT-0008", "text"),
        ("wat", b"(component)".to_vec(), "PKT-0008", "WebAssembly text"),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0], "PKT-0008", "not WebAssembly"),
        ("stranger", component("stranger"), "PKT-0021", "picket:source/source"),
    ];
    for (name, bytes, code, word) in cases {
        let file = f.file(&format!("{name}.wasm"), &bytes);
        let e = f.refused(spec(name, file, json!({}))).await;
        assert_eq!((e.code, e.fault), (code, Fault::Plugin), "{name}: {e}");
        let text = e.to_string();
        assert!(text.contains(word) && text.contains(&format!("plugin {name}")), "{name}: {text}");
        assert_eq!(e.digest.len(), 64, "{name}");
    }
    let e = f.refused(spec("none", f.path("none.wasm"), json!({}))).await;
    assert_eq!((e.code, e.phase, e.fault), ("PKT-0001", Phase::Read, Fault::Host), "{e}");
    assert!(e.why().contains("No such file"), "{}", e.why());
    let e = f.refused(spec("folder", f.folder.path().to_owned(), json!({}))).await;
    assert_eq!(e.code, "PKT-0001", "{e}");
    assert!(!f.path("cache").exists(), "something was compiled");
}

#[tokio::test]
async fn a_compiled_file_is_not_taken() {
    let f = Fixture::new();
    drop(f.load(f.hostile("ok")).await);
    let compiled = std::fs::read_dir(f.path("cache")).unwrap().next().unwrap().unwrap().path();
    let e = f.refused(spec("compiled", compiled, json!({}))).await;
    assert_eq!(e.code, "PKT-0007", "{e}");
}

#[tokio::test]
async fn a_damaged_body_is_refused_by_the_compiler() {
    let f = Fixture::new();
    let good = component("hostile");
    // The outline stays as it is: bytes are changed within the largest core module's code.
    let mut bytes = good.clone();
    let middle = bytes.len() / 2;
    for byte in &mut bytes[middle..middle + 64] {
        *byte = 0xff;
    }
    let e = f.refused(spec("damaged", f.file("damaged.wasm", &bytes), json!({}))).await;
    assert!(["PKT-0041", "PKT-0004"].contains(&e.code), "{e}");
    assert_eq!(e.fault, Fault::Plugin);
    let left: Vec<_> = std::fs::read_dir(f.path("cache")).map(|d| d.flatten().collect()).unwrap_or_default();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_is_not_granted_is_refused_with_the_lines_that_grant_it() {
    let f = Fixture::new();
    let e = f.refused(PluginSpec { grants: Vec::new(), ..f.hostile("ok") }).await;
    assert_eq!((e.code, e.phase, e.fault), ("PKT-0030", Phase::Admit, Fault::Grant), "{e}");
    assert!(e.to_string().contains("[[plugins.hostile.grants]]\ncapability = \"store\""), "{e}");
    let grants = serde_json::from_value(json!([{ "capability": "files", "read": ["relative"] }])).unwrap();
    let e = f.refused(PluginSpec { grants, ..f.hostile("ok") }).await;
    assert!(["PKT-0030", "PKT-0032"].contains(&e.code), "{e}");
}

const MANIFEST: &str = r#"
manifest = 1
id = "hostile"
version = "1.2.3"
world = "picket:source/controllable-source-plugin@0.2.0"
license = "Apache-2.0"
description = "Does what it must not"
[[needs]]
capability = "store"
bytes = 100
why = "to count"
[[needs]]
capability = "files"
read = ["/proc/stat"]
why = "to read"
[[needs]]
capability = "http"
urls = [{ host = "*" }]
why = "to ask"
[[needs]]
capability = "system"
why = "to know"
[limits]
memory = "4MiB"
series = 999999
[config]
type = "object"
"#;

#[tokio::test]
async fn a_manifest_is_read_and_held_to() {
    let f = Fixture::new();
    let load = async |manifest: &str| {
        let file = f.file("m.wasm", &with_manifest(component("hostile"), manifest));
        f.host.load(spec("m", file, json!({}))).await
    };
    let mut plugin = load(MANIFEST).await.unwrap();
    let info = plugin.info();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("hostile", "1.2.3"));
    assert_eq!(info.limits.memory, 4 << 20, "asked for less");
    assert_eq!(info.limits.series, limits().series, "asked for more");
    assert!(info.controllable && info.settings_schema.is_some());
    plugin.collect(&mut Kept::default()).await.unwrap();
    for (from, to, code) in [
        ("capability = \"system\"\nwhy = \"to know\"", "capability = \"system\"", "PKT-0020"),
        ("[[needs]]\ncapability = \"system\"\nwhy = \"to know\"\n", "", "PKT-0031"),
        ("read = [\"/proc/stat\"]", "read = [\"/a/../b\"]", "PKT-0033"),
        ("bytes = 100\n", "bytes = 100000\n", "PKT-0030"),
        ("controllable-source-plugin@0.2.0", "action-plugin@0.1.0", "PKT-0021"),
        ("controllable-source-plugin@0.2.0", "controllable-source-plugin@9.0.0", "PKT-0023"),
        ("manifest = 1", "manifest = 2", "PKT-0020"),
        ("license", "licence", "PKT-0020"),
    ] {
        let e = load(&MANIFEST.replace(from, to)).await.err().unwrap_or_else(|| panic!("{to} was loaded"));
        assert_eq!(e.code, code, "{to}: {e}");
    }
    let twice = with_manifest(with_manifest(component("hostile"), MANIFEST), MANIFEST);
    let e = f.refused(spec("m", f.file("m.wasm", &twice), json!({}))).await;
    assert_eq!((e.code, e.phase), ("PKT-0020", Phase::Manifest), "{e}");
}

#[tokio::test]
async fn the_compiler_is_bounded_and_its_absence_named() {
    let f = Fixture::with(|o| o.compiler = "/nonexistent/picket-compile".into());
    let e = f.refused(f.hostile("ok")).await;
    assert_eq!((e.code, e.phase, e.fault), ("PKT-0040", Phase::Compile, Fault::Host), "{e}");
    let f = Fixture::with(|o| o.compile_memory = 16 << 20);
    let e = f.refused(f.hostile("ok")).await;
    assert!(["PKT-0042", "PKT-0040"].contains(&e.code), "{e}");
    let f = Fixture::with(|o| o.compile_timeout = Duration::from_millis(1));
    let e = f.refused(f.hostile("ok")).await;
    assert_eq!((e.code, e.fault), ("PKT-0042", Fault::Limit), "{e}");
}

#[tokio::test]
async fn the_cache_is_ours_alone_and_mended() {
    use std::os::unix::fs::PermissionsExt;
    let f = Fixture::new();
    drop(f.load(f.hostile("ok")).await);
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&f.path("cache")), 0o700);
    let files: Vec<_> = std::fs::read_dir(f.path("cache")).unwrap().map(|e| e.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(mode(file), 0o600);
    // Foreign bytes in its place: compiled again, once.
    std::fs::write(file, b"\x7fELF rubbish").unwrap();
    drop(f.load(f.hostile("ok")).await);
    assert!(std::fs::metadata(file).unwrap().len() > 10_000);
    std::fs::set_permissions(f.path("cache"), PermissionsExt::from_mode(0o777)).unwrap();
    let e = f.refused(f.hostile("ok")).await;
    assert_eq!((e.code, e.fault), ("PKT-0043", Fault::Host), "{e}");
}
