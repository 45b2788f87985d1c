//! How grave a line is, by what it says itself. What says nothing is `unknown`: nothing is guessed from words in prose.

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Critical,
    Unknown,
}

/// How far into a line its level may stand.
const HEAD: usize = 120;

impl Level {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }

    /// The words of the usual loggers, in any case.
    pub fn of_word(word: &str) -> Option<Self> {
        let known: [(&[&str], Self); 6] = [
            (&["trace", "verbose", "finest", "finer"], Self::Trace),
            (&["debug", "dbg", "fine"], Self::Debug),
            (&["info", "information", "notice", "inf"], Self::Info),
            (&["warn", "warning", "wrn"], Self::Warn),
            (&["error", "err", "eror", "severe"], Self::Error),
            (
                &["critical", "fatal", "crit", "panic", "emerg", "emergency", "alert", "dpanic"],
                Self::Critical,
            ),
        ];
        if word.eq_ignore_ascii_case("unknown") {
            return Some(Self::Unknown);
        }
        let is = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
        known.iter().find(|(words, _)| is(words)).map(|(_, level)| *level)
    }

    /// Of a syslog priority, 0 to 7 (a facility above it is left out).
    pub const fn of_priority(priority: u32) -> Self {
        match priority & 7 {
            0..=2 => Self::Critical,
            3 => Self::Error,
            4 => Self::Warn,
            5 | 6 => Self::Info,
            _ => Self::Debug,
        }
    }

    /// Of a level in JSON: a word, or a number as pino and bunyan (10 to 60) or slog (-4 to 8) write it.
    pub fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::String(word) => Self::of_word(word),
            Value::Number(number) => Some(match number.as_i64()? {
                ..=-8 => Self::Trace,
                -7..=-1 => Self::Debug,
                0..=3 => Self::Info,
                4..=7 => Self::Warn,
                8 | 9 => Self::Error,
                10 => Self::Trace,
                11..=20 => Self::Debug,
                21..=30 => Self::Info,
                31..=40 => Self::Warn,
                41..=50 => Self::Error,
                _ => Self::Critical,
            }),
            _ => None,
        }
    }

    /// What a line of text says: `level=…`, klog's head, a syslog priority, or a logger's word near its beginning.
    pub fn of_text(text: &str) -> Option<Self> {
        let end = text.floor_char_boundary(HEAD);
        let head = text.get(..end).unwrap_or_default();
        priority(head)
            .or_else(|| klog(head))
            .or_else(|| logfmt(text))
            .or_else(|| word_in(head))
            .or_else(|| trace(text))
    }
}

/// `<13>…`
fn priority(head: &str) -> Option<Level> {
    let (number, _) = head.strip_prefix('<')?.split_once('>')?;
    let plain = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    number.parse().ok().filter(|n| plain && *n < 192).map(Level::of_priority)
}

/// `E1121 14:03:02.000001    1 file.go:12] …`
fn klog(head: &str) -> Option<Level> {
    let bytes = head.as_bytes();
    let level = match bytes.first()? {
        b'I' => Level::Info,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'F' => Level::Critical,
        _ => return None,
    };
    let digits = bytes.get(1..5)?.iter().all(u8::is_ascii_digit);
    (digits && bytes.get(5) == Some(&b' ') && bytes.get(8) == Some(&b':')).then_some(level)
}

/// `level=warn`, `lvl="warn"`, `severity=…`
fn logfmt(text: &str) -> Option<Level> {
    for key in ["level=", "lvl=", "severity="] {
        let Some(at) = text.find(key) else { continue };
        let before = at.checked_sub(1).and_then(|i| text.as_bytes().get(i));
        if before.is_some_and(|b| !matches!(b, b' ' | b'\t' | b',' | b'{')) {
            continue;
        }
        let rest = text.get(at + key.len()..)?.trim_start_matches('"');
        let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        if let Some(level) = rest.get(..end).and_then(Level::of_word) {
            return Some(level);
        }
    }
    None
}

/// A word in capitals anywhere near the beginning (`2026-… INFO …`, `INFO:     …`, `[ERROR]`), or in any case where it
/// stands in brackets or before a colon at the very beginning (`[error]`, `warning: …`).
fn word_in(head: &str) -> Option<Level> {
    let bytes = head.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..)?;
        let length = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if length == 0 {
            at += 1;
            continue;
        }
        let word = head.get(at..at + length)?;
        let capitals = word.bytes().all(|b| b.is_ascii_uppercase());
        if (3..=11).contains(&length) && word.bytes().all(|b| b.is_ascii_alphabetic()) {
            let before = at.checked_sub(1).and_then(|i| bytes.get(i));
            let after = bytes.get(at + length);
            let alone =
                matches!(after, None | Some(b' ' | b']' | b':' | b'|' | b'\t' | b')' | b',' | b'-' | b'"'));
            let marked = matches!((before, after), (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')))
                || (at == 0 && after == Some(&b':'));
            if (capitals && alone || marked)
                && let Some(level) = Level::of_word(word)
            {
                return Some(level);
            }
        }
        at += length;
    }
    None
}

/// What ends a program says so without a level.
fn trace(text: &str) -> Option<Level> {
    if text.starts_with("panic: ") || text.starts_with("fatal error: ") {
        return Some(Level::Critical);
    }
    let python = text.contains("Traceback (most recent call last)");
    let java = text.starts_with("Exception in thread ") || text.contains("\n\tat ");
    (python || java).then_some(Level::Error)
}

#[cfg(test)]
mod tests {
    use picket_sdk::serde_json::json;

    use super::*;

    #[test]
    fn the_usual_loggers() {
        for (text, expected) in [
            ("INFO 11-21 14:00:01 [api_server.py:1289] vLLM API server version 0.11", Some(Level::Info)),
            ("(EngineCore_0 pid=12) WARNING 11-21 14:00:01 [envs.py:1] x", Some(Level::Warn)),
            ("INFO:     127.0.0.1:5000 - \"GET /health HTTP/1.1\" 200 OK", Some(Level::Info)),
            ("2026-11-21 14:00:00,123 - litellm - ERROR - no model", Some(Level::Error)),
            ("E1121 14:03:02.000001       1 reflector.go:138] failed", Some(Level::Error)),
            ("time=\"2026-11-21T14:00:00Z\" level=warning msg=\"x\"", Some(Level::Warn)),
            ("ts=1 lvl=debug msg=y", Some(Level::Debug)),
            ("<11>kernel: something", Some(Level::Error)),
            ("2026/11/21 14:00:00 [error] 7#7: *1 open() failed", Some(Level::Error)),
            ("warning: unused variable", Some(Level::Warn)),
            ("panic: runtime error: index out of range", Some(Level::Critical)),
            ("Traceback (most recent call last):\n  File", Some(Level::Error)),
            ("slurmctld: error: Nodes node1 not responding", None),
            ("the error was informational", None),
            ("my_level=debugging", None),
            ("<999>x", None),
            ("", None),
        ] {
            assert_eq!(Level::of_text(text), expected, "{text}");
        }
    }

    #[test]
    fn levels_in_json() {
        for (value, expected) in [
            (json!("Warning"), Some(Level::Warn)),
            (json!(30), Some(Level::Info)),
            (json!(50), Some(Level::Error)),
            (json!(60), Some(Level::Critical)),
            (json!(-4), Some(Level::Debug)),
            (json!(null), None),
            (json!("nonsense"), None),
        ] {
            assert_eq!(Level::of_value(&value), expected, "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,300}") {
            let _ = Level::of_text(&text);
        }

        #[test]
        fn a_level_is_found_behind_any_date(prefix in "[0-9:. -]{0,40}", rest in "[a-z ]{0,40}") {
            let found = Level::of_text(&format!("{prefix} ERROR {rest}"));
            proptest::prop_assert_eq!(found, Some(Level::Error));
        }
    }
}
