//! Secrets that must not leave the node in a line.
//!
//! The defaults are found in one pass over the bytes: each begins at a rare one, so a line without any costs a table look-up
//! a byte. An operator's rules are regular expressions.

use std::borrow::Cow;

use picket_sdk::Failure;
use regex_lite::Regex;

use crate::settings::Redact;

const STARS: &str = "***";
/// Names whose values are secrets, in small letters.
const KEYS: [&str; 9] = [
    "password",
    "passwd",
    "api_key",
    "apikey",
    "api-key",
    "secret",
    "secret_key",
    "access_key",
    "private_key",
];

/// The names of the default rules, in the order of [`Rule`].
pub const DEFAULTS: [&str; 4] = ["bearer", "api-key", "url-password", "key-value"];

/// The rules in force; by default the built-in ones.
#[derive(Debug)]
pub struct Redactor {
    defaults: bool,
    rules: Vec<(String, Regex, String, String)>,
}

impl Default for Redactor {
    fn default() -> Self {
        Self { defaults: true, rules: Vec::new() }
    }
}

impl Redactor {
    /// # Errors
    /// A rule whose expression can't be used.
    pub fn new(settings: &Redact) -> Result<Self, Failure> {
        let rules = settings
            .rules
            .iter()
            .map(|rule| {
                let pattern = Regex::new(&rule.pattern)
                    .map_err(|e| Failure::new("settings", format!("redaction rule {:?}: {e}", rule.name)))?;
                Ok((rule.name.clone(), pattern, rule.replace.clone(), rule.contains.clone()))
            })
            .collect::<Result<_, Failure>>()?;
        Ok(Self { defaults: settings.defaults, rules })
    }

    /// The text without secrets; `hit` is called with the rule of each that was found.
    pub fn apply<'a>(&self, text: Cow<'a, str>, mut hit: impl FnMut(&str)) -> Cow<'a, str> {
        let mut text = match self.defaults.then(|| defaults(&text, &mut hit)).flatten() {
            Some(redacted) => Cow::Owned(redacted),
            None => text,
        };
        for (name, pattern, replace, contains) in &self.rules {
            if !contains.is_empty() && !text.contains(contains.as_str()) {
                continue;
            }
            if let Cow::Owned(replaced) = pattern.replace_all(&text, replace.as_str()) {
                hit(name);
                text = Cow::Owned(replaced);
            }
        }
        text
    }
}

/// Bytes at which a default rule looks closer.
const TRIGGER: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b" -_:=";
    let mut i = 0;
    while i < bytes.len() {
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[bytes[i] as usize] = true;
        }
        i += 1;
    }
    table
};

fn triggers(byte: u8) -> bool {
    TRIGGER.get(usize::from(byte)).copied().unwrap_or(false)
}

/// None: nothing was found.
fn defaults(text: &str, hit: &mut impl FnMut(&str)) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out: Option<String> = None;
    let (mut copied, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        if triggers(byte)
            && let Some((rule, from, to)) = secret(bytes, at)
            && from >= copied
        {
            let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
            // Both ends stand at ASCII.
            out.push_str(text.get(copied..from).unwrap_or_default());
            out.push_str(STARS);
            hit(rule);
            copied = to;
            at = to.max(at + 1);
            continue;
        }
        at += 1;
    }
    let mut out = out?;
    out.push_str(text.get(copied..).unwrap_or_default());
    Some(out)
}

/// The secret that the byte at `at` announces: its rule, and where it stands.
fn secret(bytes: &[u8], at: usize) -> Option<(&'static str, usize, usize)> {
    let [bearer, api_key, url, key_value] = DEFAULTS;
    let before = bytes.get(..at)?;
    let run = |from: usize, fits: fn(u8) -> bool| {
        bytes.get(from..).map_or(0, |rest| rest.iter().take_while(|b| fits(**b)).count())
    };
    match bytes.get(at)? {
        b' ' => {
            let word = before.get(before.len().checked_sub(6)?..)?;
            let length = run(at + 1, token);
            (word.eq_ignore_ascii_case(b"bearer") && length >= 8).then_some((bearer, at + 1, at + 1 + length))
        }
        dash @ (b'-' | b'_') => {
            let (word, least): (&[u8], usize) = if *dash == b'-' { (b"sk", 16) } else { (b"hf", 20) };
            let start = before.len().checked_sub(word.len())?;
            let own = before.get(start..)? == word
                && start.checked_sub(1).and_then(|i| bytes.get(i)).is_none_or(|b| !b.is_ascii_alphanumeric());
            let length = run(at + 1, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
            (own && length >= least).then_some((api_key, at + 1, at + 1 + length))
        }
        b':' if bytes.get(at + 1..at + 3) == Some(b"//") => {
            let user = run(at + 3, in_user);
            let colon = at + 3 + user;
            let length = run(colon + 1, |b| !matches!(b, b'@' | b'/' | b' ' | b'"' | b'\'' | b'\n' | b'\t'));
            let whole = bytes.get(colon) == Some(&b':') && bytes.get(colon + 1 + length) == Some(&b'@');
            (whole && length > 0).then_some((url, colon + 1, colon + 1 + length))
        }
        b':' | b'=' => {
            let name = before.strip_suffix(b"\"").unwrap_or(before);
            let key = KEYS.iter().any(|key| {
                name.len().checked_sub(key.len()).is_some_and(|start| {
                    name.get(start..).is_some_and(|end| end.eq_ignore_ascii_case(key.as_bytes()))
                })
            });
            if !key {
                return None;
            }
            let gap = run(at + 1, |b| matches!(b, b' ' | b'"' | b'\''));
            let from = at + 1 + gap;
            let length =
                run(from, |b| !matches!(b, b' ' | b'"' | b'\'' | b',' | b'&' | b';' | b'}' | b')' | b'\n'));
            let stars = bytes.get(from) == Some(&b'*');
            (length >= 4 && !stars).then_some((key_value, from, from + length))
        }
        _ => None,
    }
}

fn token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'+' | b'/' | b'=' | b'-')
}

fn in_user(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'%' | b'+')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::RedactRule;

    fn redacted(text: &str) -> (String, Vec<String>) {
        let redactor = Redactor::new(&Redact::default()).unwrap();
        let mut hits = Vec::new();
        let out = redactor.apply(Cow::Borrowed(text), |rule| hits.push(rule.to_owned())).into_owned();
        (out, hits)
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (text, expected) in [
            ("Authorization: Bearer abcdef123456.x-y", "Authorization: Bearer ***"),
            ("authorization: bearer abcdef123456, ok", "authorization: bearer ***, ok"),
            ("key sk-proj-abcdefghijklmnop1234 used", "key sk-*** used"),
            ("token hf_abcdefghijklmnopqrstuv end", "token hf_*** end"),
            ("postgres://admin:s3cr:et@db:5432/x", "postgres://admin:***@db:5432/x"),
            ("a password=hunter22 b", "a password=*** b"),
            (r#"{"api_key": "abcd1234", "x": 1}"#, r#"{"api_key": "***", "x": 1}"#),
            ("OPENAI_API_KEY=sk-abcdefghijklmnop1234", "OPENAI_API_KEY=***"),
            ("two: sk-aaaaaaaaaaaaaaaaaaaa sk-bbbbbbbbbbbbbbbbbbbb", "two: sk-*** sk-***"),
            ("ünïcödé Bearer abcdefghijk ünï", "ünïcödé Bearer *** ünï"),
        ] {
            let (out, hits) = redacted(text);
            assert_eq!(out, expected);
            assert!(!hits.is_empty(), "{text}");
        }
        for text in [
            "the bearer of bad news",
            "task-management-system-of-the-company",
            "http://127.0.0.1:8000/v1/models",
            "git clone ssh://git@example.org/x",
            "password: ",
            "12:30:01 INFO secretly fine",
        ] {
            assert_eq!(redacted(text), (text.to_owned(), Vec::new()));
        }
    }

    #[test]
    fn an_operators_rule() {
        let rule = RedactRule {
            name: "cards".into(),
            pattern: r"\b\d{4}-\d{4}-\d{4}-(\d{4})\b".into(),
            replace: "card-$1".into(),
            contains: "-".into(),
        };
        let redactor = Redactor::new(&Redact { defaults: false, rules: vec![rule.clone()] }).unwrap();
        let mut hits = 0;
        let out = redactor.apply(Cow::Borrowed("paid with 1234-5678-9012-3456."), |_| hits += 1);
        assert_eq!((out.as_ref(), hits), ("paid with card-3456.", 1));
        let bad = RedactRule { pattern: "(".into(), ..rule };
        assert!(Redactor::new(&Redact { defaults: true, rules: vec![bad] }).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered_and_nothing_is_found_twice(text in "(sk-|Bearer |://|password=|:|@|[a-zé0-9]{0,12}| ){0,12}") {
            let (once, _) = redacted(&text);
            let (twice, _) = redacted(&once);
            proptest::prop_assert_eq!(once, twice);
        }
    }
}
