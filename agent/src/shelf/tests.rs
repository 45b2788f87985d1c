use std::sync::OnceLock;

use picket_artifact::{Envelope, PrivateKey, Statement, embed};

use super::*;
use crate::config;

/// A component file of this id and version, which no engine would load.
pub(crate) fn component(id: &str, version: &str) -> Vec<u8> {
    let manifest = format!(
        "manifest = 1\nid = \"{id}\"\nversion = \"{version}\"\nworld = \"w\"\nlicense = \"l\"\ndescription = \"d\"\n"
    );
    embed(b"\0asm\x0d\0\x01\0", &manifest).unwrap()
}

/// A shelf for tests of what stands on it; anybody is trusted.
pub(crate) fn shelf() -> Arc<Shelf> {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let own = folder.path().join(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string());
    let trust = Arc::new(Trust::open(&config::Trust::of_anybody()));
    Arc::new(Shelf::open(&own, &own, trust))
}

/// The file of a plugin that is there.
pub(crate) fn file(id: &str) -> PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let file = FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join(format!("{id}.wasm"));
    if !file.exists() {
        std::fs::write(&file, component(id, "1.0.0")).unwrap();
    }
    file
}

struct Bench {
    dir: tempfile::TempDir,
    key: PrivateKey,
    shelf: Shelf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        std::fs::write(dir.path().join("k.pub"), key.public().to_pem()).unwrap();
        std::fs::write(dir.path().join("policy.toml"), "policy = 1\n[keys.k]\nfile = \"k.pub\"\n").unwrap();
        let shelf = Self::shelf(dir.path());
        Self { dir, key, shelf }
    }

    fn shelf(dir: &Path) -> Shelf {
        let settings = config::Trust { policy: dir.join("policy.toml"), allow_unsigned: false };
        Shelf::open(&dir.join("state"), &dir.join("cache"), Arc::new(Trust::open(&settings)))
    }

    fn spec(&self) -> SourceSpec {
        SourceSpec {
            id: PluginId::new("a").unwrap(),
            file: self.dir.path().join("a.wasm"),
            settings: serde_json::json!({}),
            grants: Vec::new(),
            limits: Default::default(),
            isolation: Default::default(),
        }
    }

    /// Puts a signed version into the plugin folder; gives its digest.
    fn drop_in(&self, version: &str) -> String {
        let bytes = component("a", version);
        let digest = Digest::of(&bytes);
        let statement = Statement { digest, id: "a".to_owned(), version: version.to_owned() };
        let mut envelope = Envelope::new(statement);
        envelope.sign(&self.key);
        std::fs::write(self.dir.path().join("a.wasm"), bytes).unwrap();
        std::fs::write(self.dir.path().join("a.wasm.sig"), envelope.to_json()).unwrap();
        digest.to_string()
    }

    fn run(&self) -> Result<Staged, String> {
        let staged = self.shelf.stage(&self.spec(), &Which::Wanted).map_err(|no| no.error.code)?;
        self.shelf.adopted(&self.spec().id, &staged.version);
        Ok(staged)
    }

    fn files(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path().join("state/artifacts")).unwrap();
        entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "wasm")).count()
    }
}

#[test]
fn what_runs_is_the_copy_of_what_was_judged() {
    let bench = Bench::new();
    let digest = bench.drop_in("1.0.0");
    let staged = bench.run().unwrap();
    assert_eq!((staged.version.digest.as_str(), staged.version.signed_by.as_str()), (digest.as_str(), "k"));
    assert_ne!(staged.spec.file, bench.spec().file);
    std::fs::write(bench.spec().file, b"something else").unwrap();
    assert_eq!(Digest::of(&std::fs::read(&staged.spec.file).unwrap()).to_string(), digest);
    let mode = std::fs::metadata(staged.spec.file.parent().unwrap()).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn two_versions_are_kept_and_no_more() {
    let bench = Bench::new();
    for minor in 0..5 {
        bench.drop_in(&format!("1.{minor}.0"));
        drop(bench.run().unwrap());
    }
    bench.shelf.clear();
    assert_eq!(bench.files(), 2);
    let record = Bench::shelf(bench.dir.path()).record(&bench.spec().id);
    assert_eq!(record.current.unwrap().version, "1.4.0");
    assert_eq!(record.previous.unwrap().version, "1.3.0");
    // One that was looked at and not taken leaves nothing.
    bench.drop_in("1.5.0");
    drop(bench.shelf.stage(&bench.spec(), &Which::Wanted).unwrap());
    bench.shelf.clear();
    assert_eq!(bench.files(), 2);
}

#[test]
fn rolled_back_until_another_file_comes() {
    let bench = Bench::new();
    let id = bench.spec().id;
    bench.drop_in("1.0.0");
    bench.run().unwrap();
    assert!(bench.shelf.roll_back(&bench.spec()).unwrap_err().contains("no version"));
    bench.drop_in("2.0.0");
    bench.run().unwrap();
    assert_eq!(bench.shelf.roll_back(&bench.spec()).unwrap(), None);
    assert_eq!(bench.run().unwrap().version.version, "1.0.0");
    // After a restart too.
    let again = Bench::shelf(bench.dir.path());
    assert_eq!(again.stage(&bench.spec(), &Which::Wanted).unwrap().version.version, "1.0.0");
    // Back again: what lies in the folder.
    let pinned = bench.shelf.roll_back(&bench.spec()).unwrap().unwrap();
    assert!(!pinned.central);
    assert_eq!(bench.run().unwrap().version.version, "2.0.0");
    assert_eq!(bench.shelf.record(&id).pin, None);
    bench.shelf.roll_back(&bench.spec()).unwrap();
    bench.run().unwrap();
    bench.drop_in("3.0.0");
    assert_eq!(bench.run().unwrap().version.version, "3.0.0");
    assert_eq!(bench.shelf.record(&id).pin, None);
}

#[test]
fn a_quarantine_is_of_a_digest_and_its_settings() {
    let bench = Bench::new();
    let digest = bench.drop_in("1.0.0");
    bench.run().unwrap();
    bench.shelf.quarantine(&bench.spec(), &digest, "it trapped");
    assert_eq!(bench.run().unwrap_err(), "PKT-0081");
    let again = Bench::shelf(bench.dir.path());
    let refusal = again.stage(&bench.spec(), &Which::Wanted).unwrap_err();
    assert!(refusal.error.message.contains("it trapped"), "{}", refusal.error.message);
    let other = SourceSpec { settings: serde_json::json!({ "x": 1 }), ..bench.spec() };
    assert!(again.stage(&other, &Which::Wanted).is_ok());
    bench.drop_in("1.0.1");
    bench.run().unwrap();
    bench.drop_in("1.0.0");
    assert_eq!(bench.run().unwrap_err(), "PKT-0081");
    assert!(bench.shelf.release(&bench.spec().id));
    assert!(!bench.shelf.release(&bench.spec().id));
    bench.run().unwrap();
}

#[test]
fn what_is_not_let_in() {
    let bench = Bench::new();
    let file = bench.spec().file;
    let code = || bench.run().map(|s| s.version.version).unwrap_or_else(|code| code);
    assert_eq!(code(), "PKT-0001");
    bench.drop_in("1.0.0");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, good.get(..good.len() / 2).unwrap()).unwrap();
    assert_eq!(code(), "PKT-0004");
    std::fs::write(&file, component("a", "1.0.1")).unwrap();
    assert_eq!(code(), "PKT-0012");
    std::fs::remove_file(bench.dir.path().join("a.wasm.sig")).unwrap();
    assert_eq!(code(), "PKT-0011");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    assert_eq!(code(), "PKT-0018");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_eq!(code(), "PKT-0001");
    std::fs::remove_dir(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(code(), "PKT-0001");
    let compiled = SourceSpec { file: "/nowhere/a.cwasm".into(), ..bench.spec() };
    let refusal = bench.shelf.stage(&compiled, &Which::Wanted).unwrap_err();
    assert!(refusal.error.code == "PKT-0007" && refusal.error.message.contains("a.cwasm"));
}

#[test]
fn a_copy_that_was_damaged_or_revoked_does_not_run() {
    let bench = Bench::new();
    let digest = bench.drop_in("1.0.0");
    let copy = bench.run().unwrap().spec.file;
    let kept = Which::Kept(digest.clone());
    assert!(bench.shelf.stage(&bench.spec(), &kept).is_ok());
    std::fs::write(&copy, component("a", "9.0.0")).unwrap();
    assert_eq!(bench.shelf.stage(&bench.spec(), &kept).unwrap_err().error.code, "PKT-0004");
    // What lies in the folder mends it.
    bench.run().unwrap();
    assert!(bench.shelf.stage(&bench.spec(), &kept).is_ok());
    let policy = bench.dir.path().join("policy.toml");
    let text = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("{text}[revoked]\ndigests = [\"{digest}\"]\n")).unwrap();
    bench.shelf.trust().refresh();
    assert_eq!(bench.shelf.stage(&bench.spec(), &kept).unwrap_err().error.code, "PKT-0015");
}
