//! Which names stand for a secret: for all that shows what it read to somebody who must not see the value.

use serde_json::Value;

/// Stands in the place of what was taken out.
pub const REDACTED: &str = "[redacted]";
/// What a name holds whose value is nobody's business.
const WORDS: [&str; 9] =
    ["key", "token", "secret", "passw", "passphrase", "credential", "authorization", "cookie", "bearer"];

/// Whether what is called so is a secret: `--api-key`, `HF_TOKEN`, `password`.
pub fn names_a_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    // `--tokenizer` and `--max-num-batched-tokens` are no secrets.
    let lower = lower.replace("tokenizer", "").replace("tokens", "");
    lower == "pwd" || WORDS.iter().any(|word| lower.contains(word))
}

/// Takes the secrets out of a program's arguments.
pub fn clean_arguments(list: &mut [Value]) {
    let mut secret_next = false;
    for argument in list {
        let Value::String(text) = argument else { continue };
        if std::mem::take(&mut secret_next) && !text.starts_with("--") {
            *text = REDACTED.to_owned();
            continue;
        }
        // A script for a shell: its words can't be told apart safely.
        if text.contains(char::is_whitespace) && names_a_secret(text) {
            *text = REDACTED.to_owned();
            continue;
        }
        match text.split_once('=') {
            Some((name, _)) if names_a_secret(name) => *text = format!("{name}={REDACTED}"),
            None if text.starts_with('-') && names_a_secret(text) => secret_next = true,
            _ => {}
        }
    }
}
