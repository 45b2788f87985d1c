use super::*;
use crate::envelope::Statement;
use crate::keys::PrivateKey;
use crate::section::embed;

fn component(id: &str, version: &str) -> Vec<u8> {
    let manifest = format!(
        "manifest = 1\nid = \"{id}\"\nversion = \"{version}\"\nworld = \"w\"\nlicense = \"l\"\ndescription = \"d\"\n"
    );
    embed(b"\0asm\x0d\0\x01\0", &manifest).unwrap()
}

fn signed(bytes: &[u8], id: &str, version: &str, keys: &[&PrivateKey]) -> Evidence {
    let statement = Statement { digest: Digest::of(bytes), id: id.to_owned(), version: version.to_owned() };
    let mut envelope = Envelope::new(statement);
    keys.iter().for_each(|key| envelope.sign(key));
    Evidence { signature: Some(envelope.to_json().into_bytes()), bundle: None }
}

struct Bench {
    dir: tempfile::TempDir,
    keys: BTreeMap<&'static str, PrivateKey>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys: BTreeMap<_, _> = ["a", "b", "c"].map(|name| (name, PrivateKey::generate().unwrap())).into();
        for (name, key) in &keys {
            std::fs::write(dir.path().join(format!("{name}.pub")), key.public().to_pem()).unwrap();
        }
        Self { dir, keys }
    }

    /// The keys `a` and `b` are known; `rules` follows.
    fn policy(&self, rules: &str) -> Policy {
        self.load(&format!("policy = 1\n[keys]\na.file = \"a.pub\"\nb.file = \"b.pub\"\n{rules}")).unwrap()
    }

    fn load(&self, text: &str) -> Result<Policy, PolicyError> {
        let file = self.dir.path().join("policy.toml");
        std::fs::write(&file, text).unwrap();
        Policy::load(&file)
    }
}

/// The code of the refusal, or who signed it.
fn judged(policy: &Policy, configured: Option<&str>, bytes: &[u8], evidence: &Evidence) -> String {
    let configured = configured.map(|id| PluginId::new(id).unwrap());
    match policy.judge(Subject { configured: configured.as_ref(), bytes, evidence }) {
        Ok(verdict) => verdict.signed_by(),
        Err(untrusted) => {
            assert!(!untrusted.advice().is_empty() && !untrusted.to_string().is_empty());
            untrusted.code().to_owned()
        }
    }
}

#[test]
fn who_must_have_signed() {
    let bench = Bench::new();
    let bytes = component("node", "0.2.0");
    for (rules, by, wanted) in [
        ("", &[][..], "PKT-0011"),
        ("", &["a"], "a"),
        ("", &["b", "a"], "a, b"),
        ("", &["c"], "PKT-0013"),
        ("", &["c", "b"], "b"),
        ("[default]\nrequire = \"all-of\"", &["a"], "PKT-0013"),
        ("[default]\nrequire = \"all-of\"", &["a", "b"], "a, b"),
        ("[default]\nsigners = [\"b\"]", &["a"], "PKT-0013"),
        ("[default]\nsigners = [\"b\"]", &["a", "b"], "b"),
        // A plugin's own rule stands alone.
        ("[default]\nsigners = [\"b\"]\n[plugins.node]\nsigners = [\"a\"]", &["a"], "a"),
        ("[default]\nsigners = [\"b\"]\n[plugins.node]\nsigners = [\"a\"]", &["b"], "PKT-0013"),
        ("[default]\nsigners = [\"b\"]\n[plugins.other]\nsigners = [\"a\"]", &["a"], "PKT-0013"),
        ("[default]\nallow_unsigned = true", &[], "unsigned"),
        ("[default]\nallow_unsigned = true", &["c"], "unsigned"),
        ("[default]\nallow_unsigned = true", &["a"], "a"),
        ("[plugins.node]\nallow_unsigned = true", &[], "unsigned"),
        ("[plugins.other]\nallow_unsigned = true", &[], "PKT-0011"),
        ("[default]\nminimum_version = \"0.2.0\"", &["a"], "a"),
        ("[default]\nminimum_version = \"0.2.1\"", &["a"], "PKT-0016"),
        ("[plugins.node]\nminimum_version = \"0.10.0\"", &["a"], "PKT-0016"),
        ("[plugins.node]\nminimum_version = \"0.2.0-rc.1\"", &["a"], "a"),
    ] {
        let keys: Vec<&PrivateKey> = by.iter().map(|name| &bench.keys[name]).collect();
        let evidence =
            if keys.is_empty() { Evidence::default() } else { signed(&bytes, "node", "0.2.0", &keys) };
        let policy = bench.policy(rules);
        assert_eq!(judged(&policy, None, &bytes, &evidence), wanted, "{rules} by {by:?}");
        assert_eq!(judged(&policy, Some("node"), &bytes, &evidence), wanted, "{rules} by {by:?}");
    }
}

#[test]
fn both_names_of_a_plugin_count() {
    let bench = Bench::new();
    let bytes = component("theirs", "1.0.0");
    let evidence = signed(&bytes, "theirs", "1.0.0", &[&bench.keys["b"]]);
    let policy = bench.policy("[default]\nsigners = [\"a\"]\n[plugins.theirs]\nsigners = [\"b\"]");
    assert_eq!(judged(&policy, Some("theirs"), &bytes, &evidence), "b");
    // In the place of another plugin it would have that one's grants.
    assert_eq!(judged(&policy, Some("node"), &bytes, &evidence), "PKT-0013");
    let policy = bench.policy(
        "[default]\nsigners = [\"a\"]\n[plugins.theirs]\nsigners = [\"b\"]\n[plugins.twin]\nsigners = [\"b\"]",
    );
    assert_eq!(judged(&policy, Some("twin"), &bytes, &evidence), "b");
    // The oldest that either name allows.
    let policy = bench.policy("[plugins.twin]\nminimum_version = \"2.0.0\"");
    assert_eq!(judged(&policy, Some("twin"), &bytes, &evidence), "PKT-0016");
}

#[test]
fn signatures_that_do_not_fit() {
    let bench = Bench::new();
    let (bytes, other) = (component("node", "0.2.0"), component("node", "0.1.0"));
    let a = &bench.keys["a"];
    let good = signed(&bytes, "node", "0.2.0", &[a]);
    let policies = [bench.policy(""), bench.policy("").allowing_unsigned()];
    for policy in &policies {
        // Of an earlier build; of another plugin; of this file under another name or version.
        for (bytes, evidence) in [
            (&bytes, signed(&other, "node", "0.1.0", &[a])),
            (&other, good.clone()),
            (&bytes, signed(&bytes, "mock", "0.2.0", &[a])),
            (&bytes, signed(&bytes, "node", "0.3.0", &[a])),
        ] {
            assert_eq!(judged(policy, None, bytes, &evidence), "PKT-0012");
        }
        // The manifest was changed after the signing.
        let mut changed = bytes.clone();
        let at = changed.windows(5).position(|w| w == b"0.2.0").unwrap();
        changed[at + 2] = b'9';
        assert_eq!(judged(policy, None, &changed, &good), "PKT-0012");
        // Garbage, and a key's name over another key's signature.
        let garbage = Evidence { signature: Some(b"{}".to_vec()), bundle: None };
        assert_eq!(judged(policy, None, &bytes, &garbage), "PKT-0014");
        let forged =
            String::from_utf8(signed(&bytes, "node", "0.2.0", &[&bench.keys["c"]]).signature.unwrap());
        let forged =
            forged.unwrap().replace(&bench.keys["c"].public().id().to_string(), &a.public().id().to_string());
        let forged = Evidence { signature: Some(forged.into_bytes()), bundle: None };
        assert_eq!(judged(policy, None, &bytes, &forged), "PKT-0014");
        assert_eq!(judged(policy, None, b"\0asm\x0d\0\x01\0\xff", &good), "PKT-0004");
    }
}

#[test]
fn what_is_revoked_is_refused() {
    let bench = Bench::new();
    let bytes = component("node", "0.2.0");
    let evidence = signed(&bytes, "node", "0.2.0", &[&bench.keys["a"]]);
    let both = signed(&bytes, "node", "0.2.0", &[&bench.keys["a"], &bench.keys["b"]]);
    let digest = format!("[revoked]\ndigests = [\"{}\"]", Digest::of(&bytes));
    let key = format!("[revoked]\nkeys = [\"{}\"]", bench.keys["a"].public().id());
    assert_eq!(judged(&bench.policy(&digest), None, &bytes, &evidence), "PKT-0015");
    assert_eq!(judged(&bench.policy(&digest).allowing_unsigned(), None, &bytes, &evidence), "PKT-0015");
    assert_eq!(judged(&bench.policy(&key), None, &bytes, &evidence), "PKT-0015");
    assert_eq!(judged(&bench.policy(&key), None, &bytes, &both), "b");
}

#[test]
fn a_component_without_a_manifest() {
    let bench = Bench::new();
    let bytes = b"\0asm\x0d\0\x01\0".to_vec();
    let evidence = signed(&bytes, "", "", &[&bench.keys["a"]]);
    let policy = bench.policy("[plugins.mine]\nsigners = [\"b\"]");
    assert_eq!(judged(&policy, None, &bytes, &evidence), "a");
    assert_eq!(judged(&policy, Some("any"), &bytes, &evidence), "a");
    assert_eq!(judged(&policy, Some("mine"), &bytes, &evidence), "PKT-0013");
    let policy = bench.policy("[default]\nminimum_version = \"0.1.0\"");
    assert_eq!(judged(&policy, None, &bytes, &evidence), "PKT-0016");
}

#[test]
fn an_empty_policy_trusts_nobody() {
    let bench = Bench::new();
    let bytes = component("node", "0.2.0");
    let evidence = signed(&bytes, "node", "0.2.0", &[&bench.keys["a"]]);
    assert_eq!(judged(&Policy::default(), None, &bytes, &Evidence::default()), "PKT-0011");
    let error = Policy::default()
        .judge(Subject { configured: None, bytes: &bytes, evidence: &evidence })
        .unwrap_err();
    assert!(error.to_string().contains(&bench.keys["a"].public().id().to_string()), "{error}");
}

#[test]
fn mistakes_in_a_policy() {
    let bench = Bench::new();
    let private = bench.keys["a"].to_pem();
    for (text, word) in [
        ("", "policy"),
        ("policy = 2", "version 1"),
        ("policy = 1\nkey = 1", "key"),
        ("policy = 1\n[keys.x]\n", "keys.x"),
        ("policy = 1\n[keys.x]\nfile = \"none.pub\"", "none.pub"),
        ("policy = 1\n[keys.x]\nfile = \"a.pub\"\npem = \"y\"", "one of"),
        ("policy = 1\n[keys.x]\npem = \"y\"", "PUBLIC KEY"),
        (&format!("policy = 1\n[keys.x]\npem = '''{private}'''"), "PUBLIC KEY"),
        ("policy = 1\n[default]\nsigners = [\"x\"]", "default.signers names x"),
        ("policy = 1\n[plugins.n]\nsigners = [\"x\"]", "plugins.n.signers names x"),
        ("policy = 1\n[default]\nsigners = []", "is empty"),
        ("policy = 1\n[default]\nrequire = \"some\"", "some"),
        ("policy = 1\n[default]\nminimum_version = \"new\"", "version"),
        ("policy = 1\n[plugins.\"no de\"]\n", "plugin id"),
        ("policy = 1\n[revoked]\ndigests = [\"x\"]", "SHA-256"),
        (
            "policy = 1\n[identities.x]\nissuer = \"i\"\nsubject = \"s\"\ntrusted_root = \"a.pub\"",
            "identities.x",
        ),
    ] {
        let error = bench.load(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    let error = Policy::load(Path::new("/nowhere/policy.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/policy.toml"), "{error}");
}

#[test]
fn the_shipped_policy_is_read_and_trusts_nobody() {
    let policy =
        Policy::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/policy.toml")).unwrap();
    let bytes = component("node", "0.2.0");
    assert_eq!(judged(&policy, None, &bytes, &Evidence::default()), "PKT-0011");
}
