//! Secrets as they are met, in the places where they are met: none is left.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn clean(text: &str) -> Cleaned {
    Redactor::default().text(text)
}

/// Each: a line, and what of it must not be left.
const SECRETS: &[(&str, &[&str])] = &[
    ("password=hunter2 user=ada", &["hunter2"]),
    ("Password: correct horse battery", &["correct", "horse", "battery"]),
    ("DB_PASSWORD='it''s me' next", &["it''s", "me'"]),
    ("{\"api_key\": \"s3\\\"cret\", \"a\": 1}", &["s3", "cret"]),
    ("msg=\"{\\\"token\\\":\\\"s3 cret\\\",\\\"b\\\":1}\"", &["s3", "cret"]),
    ("Token(\"s3cret\") and secret: Some(\"s3 cret\")", &["s3"]),
    ("Authorization: Bearer abc.def+/=", &["abc.def"]),
    ("authorization: Basic dXNlcjpwYXNz", &["dXNlcjpwYXNz"]),
    ("sent Basic dXNlcjpwYXNz to it", &["dXNlcjpwYXNz"]),
    ("with bearer abcdefgh to it", &["abcdefgh"]),
    ("Cookie: session=abc; other=def", &["abc", "def"]),
    ("X-Api-Key: abc,def", &["abc", "def"]),
    ("X-SLURM-USER-TOKEN: abcdef", &["abcdef"]),
    ("https://ada:hunter2@example.org/x", &["ada", "hunter2"]),
    ("postgres://ada:hun/ter2@db/x", &["hun", "ter2"]),
    ("redis://:hunter2@db:6379", &["hunter2"]),
    ("GET /x?a=1&token=abc%20def&b=2", &["abc%20def"]),
    ("unknown key: password = \"s3 cret\" here", &["s3", "cret"]),
    ("bearer token = \"s3 cret\" here", &["s3", "cret"]),
    ("at \"key\": \"token\": \"s3 cret\"", &["s3", "cret"]),
    ("token = \"\"\"s3 cret\"\"\"", &["s3", "cret"]),
    ("GET /x?sig=abcdef&b=2", &["abcdef"]),
    ("https://x.example/?X-Amz-Signature=abcdef", &["abcdef"]),
    ("https://hooks.slack.com/services/T0/B0/abcdef", &["T0", "abcdef"]),
    ("vllm serve --api-key abcdef --port 1", &["abcdef"]),
    ("vllm serve --hf-token=abcdef --port 1", &["abcdef"]),
    ("Environment=\"HF_TOKEN=abcdef\"", &["abcdef"]),
    ("export AWS_SECRET_ACCESS_KEY=wJalr/XUtnFEMI", &["wJalr", "XUtnFEMI"]),
    ("env[\"API_KEY\"] = \"abcdef\"", &["abcdef"]),
    ("password: |\n  hunter2\nuser: ada", &["hunter2"]),
    ("client_secret:\n  hunter2\n", &["hunter2"]),
    ("passwords = [\"a1\", \"b2\"]", &["a1", "b2"]),
    ("token%3Dabcdef", &["abcdef"]),
    ("Server=x;Uid=ada;Pwd=hunter2;", &["hunter2"]),
    ("enrolled with picket-enrol-v1.eyJhIjpbXX0", &["eyJhIjpbXX0"]),
    ("said picket-api-v1.12ab.c3d4", &["12ab", "c3d4"]),
    ("got eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", &["eyJhbGciOiJIUzI1NiJ9", "c2ln"]),
    ("AKIAIOSFODNN7EXAMPLE was refused", &["AKIAIOSFODNN7EXAMPLE"]),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", &["16C7e42F"]),
    ("hf_AbCdEfGhIjKlMnOp1234 is used", &["AbCdEfGh"]),
    ("nvapi-AbCdEfGh_IjKlMnOp1234", &["AbCdEfGh"]),
    ("sk-proj-AbCdEfGhIjKlMnOp1234", &["AbCdEfGh"]),
    ("glpat-AbCdEfGhIjKl1234", &["AbCdEfGh"]),
    ("xoxb-123456789012-abcdef", &["123456789012"]),
];

#[test]
fn nothing_secret_is_left() {
    for (line, secrets) in SECRETS {
        for text in [(*line).to_owned(), format!("at 1:2 {line}\nnext"), format!("é→{line}")] {
            let Cleaned { text: clean, redacted } = clean(&text);
            assert!(secrets.iter().all(|secret| !clean.contains(secret)), "{text:?} became {clean:?}");
            assert!(redacted > 0 && clean.contains(REDACTED), "{text:?} became {clean:?}");
            // What is clean stays so.
            let again = self::clean(&clean);
            assert_eq!((again.text, again.redacted), (clean, 0), "{text:?}");
        }
    }
}

/// What a bug report needs is left.
#[test]
fn what_is_no_secret_stays() {
    for text in [
        "2026-11-22T05:00:00Z INFO picket_agent::uplink: connected address=10.0.0.1:9470 node=gpu-01",
        "--tokenizer x --max-num-batched-tokens 4096 prompt_tokens: 5",
        "vllm:prompt_tokens_total{model=\"a\"} 5",
        "token_file = \"/etc/picket/token\"",
        "--secret-path /run/x",
        "picket_agent::identity::token::parse failed",
        "http://127.0.0.1:9460/metrics?a=b http://[::1]:9460/ mail@example.org",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0bb822cd15d6c15b0f00a08",
        "PKT-0030: plugin node: [[plugins.node.grants]]\ncapability = \"files\"",
        "password = \"\" token = null",
        "basic settings, and /usr/share/keyrings",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    ] {
        assert_eq!(clean(text), Cleaned { text: text.to_owned(), redacted: 0 });
    }
}

/// Whatever a line repeats, cleaning takes a time that grows with its length alone: this ends in a moment, or not at all.
#[test]
fn long_lines() {
    for part in
        ["eyJ-", "sk-", "a://", "token=", "token=\"", "-----", "bearer ", "[", "=:", "\\\"", "x.", "p@://:"]
    {
        clean(&part.repeat((1 << 20) / part.len()));
    }
}

const BODY: &str = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC";

/// A line of a PEM block of a key, put together here so that no file has one.
fn rule(word: &str, kind: &str) -> String {
    format!("-----{word} {kind}{}-----", super::PRIVATE)
}

#[test]
fn keys_in_pem() {
    for kind in ["", "EC ", "OPENSSH "] {
        let (begin, end) = (rule("BEGIN", kind), rule("END", kind));
        for text in [
            format!("a\n{begin}\n{BODY}\n{BODY}\n{end}\nb"),
            format!("a \"{begin}\\n{BODY}\\n{end}\\n\" b"),
            format!("a\n{begin}\n{BODY}\n{BODY}"),
            format!("{BODY}\n{end}\nb"),
            format!("a {begin} {BODY} {begin} {BODY} {end} b"),
            format!("a {begin} {BODY} {end} x {BODY} {end} b"),
        ] {
            let clean = clean(&text);
            assert!(!clean.text.contains(BODY), "{text} became {}", clean.text);
            assert!(clean.redacted > 0);
            assert!(!text.starts_with('a') || clean.text.starts_with('a'), "{}", clean.text);
            assert!(!text.ends_with('b') || clean.text.ends_with('b'), "{}", clean.text);
        }
    }
}

#[test]
fn documents() {
    let mut value = json!({
        "password": "hush-1", "nested": { "tokens": 5, "api_key": { "value": "hush-2", "list": ["hush-3"] } },
        "arguments": ["serve", "--api-key", "hush-4", "--hf-token=hush-5", "--port", "1"],
        "url": "http://ada:hush-6@h/?token=hush-7", "pin_secret": 1234, "secret_set": true,
        "Bearer hush-8": 1, "token_file": "/etc/token", "key": "/hush/path",
    });
    let redacted = Redactor::default().document(&mut value, false);
    let text = value.to_string();
    assert!(!text.contains("hush-") && !text.contains("1234") && !text.contains("ada"), "{text}");
    assert!(redacted >= 9, "{redacted} {text}");
    assert_eq!(value["nested"]["tokens"], 5);
    assert_eq!(value["secret_set"], true);
    assert_eq!(value["token_file"], "/etc/token");
    assert_eq!(value["arguments"][5], "1");
    assert_eq!(value["key"], REDACTED);
}

/// The agent's own words for where a secret lies.
#[test]
fn rules_of_grants() {
    let rule = json!({ "name": "api", "header": "Authorization", "prefix": "Bearer ", "file": "/etc/key" });
    let mut value =
        json!({ "urls": [{ "host": "h", "secret": rule }], "uplink": { "key": "/etc/tls/key.pem" } });
    let before = value.clone();
    assert_eq!(Redactor::default().document(&mut value, true), 0);
    assert_eq!(value, before);
    let mut of_a_plugin = json!({ "plugins": { "a": { "settings": { "secret": { "name": "hush" } } } } });
    assert_eq!(Redactor::default().document(&mut of_a_plugin, true), 1);
    assert!(Redactor::default().document(&mut value, false) > 0);
}

#[test]
fn what_is_known_is_found_everywhere() {
    let mut redactor = Redactor::default();
    redactor.learn_from(
        &json!({ "settings": { "token": "plain words", "token_file": "/etc/token", "name": "kept" } }),
    );
    redactor.learn("line-one\nline-two\nx\n");
    let clean = redactor.text("it said plain words, line-two, /etc/token and kept");
    assert_eq!(clean.text, format!("it said {REDACTED}, {REDACTED}, /etc/token and kept"));
    assert_eq!(clean.redacted, 2);
    let mut value = json!({ "log": ["a line-one b"], "line-two": 1 });
    assert_eq!(redactor.document(&mut value, true), 2);
    assert!(!value.to_string().contains("line-"));
}

/// Names under which, and forms in which, a secret is written.
const TEMPLATES: &[&str] = &[
    "{name}={secret}",
    "{name}: {secret}",
    "{name} = \"{secret}\"",
    "'{name}': '{secret}'",
    "--{name} {secret}",
    "--{name}={secret}",
    "x?a=1&{name}={secret}",
    "{\"a\":1,\"{name}\":\"{secret}\"}",
    "{name} => {secret}",
    "msg=\"{\\\"{name}\\\": \\\"{secret}\\\"}\"",
    "Authorization: Bearer {secret}",
    "http://ada:{secret}@host/a",
    "at {name}(\"{secret}\")",
    "{name}:\n {secret}\n",
];

proptest! {
    #[test]
    fn no_secret_is_left(
        secret in "[A-Za-z0-9+/!#$%^*_.~-]{8,40}",
        name in "(api[_-]?key|TOKEN|db_password|client-secret|X-Auth-Token|credentials)",
        before in "\\PC{0,12}",
        after in "[ -~]{0,12}",
        template in proptest::sample::select(TEMPLATES),
    ) {
        // What says nothing, and what looks like an argument's name, is no value.
        prop_assume!(!secret.starts_with('-'));
        let text = template.replace("{name}", &name).replace("{secret}", &secret);
        for text in [text.clone(), format!("{before} {text}\n{after}")] {
            let clean = clean(&text).text;
            prop_assert!(!clean.contains(&secret), "{text:?} became {clean:?}");
        }
        let mut value = json!({ "in": { name: [&secret] } });
        Redactor::default().document(&mut value, true);
        prop_assert!(!value.to_string().contains(&secret));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}", lines in proptest::collection::vec("[-=:\"'\\\\ (@/?&a-zkeyBEGIN]{0,20}", 0..8)) {
        let mut redactor = Redactor::default();
        redactor.learn(&text);
        redactor.text(&text);
        let once = clean(&lines.join("\n"));
        prop_assert!(once.redacted > 0 || once.text == lines.join("\n"));
    }
}
