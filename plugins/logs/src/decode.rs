//! From the bytes of a source to its lines: Docker's JSON, CRI's prefix, the journal's entries, or text as it is.
//!
//! Engines cut long lines into parts; here they are one line again. Each line knows which bytes it came of, so that what is
//! not whole yet can be held back.

use std::borrow::Cow;

use picket_sdk::logs::{Chunk, SourceKind};
use serde::Deserialize;
use serde_json::Value;

use crate::level::Level;
use crate::time;

/// How a source writes its lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Docker,
    Cri,
    Journal,
    Plain,
}

impl Format {
    pub fn of(chunk: &Chunk) -> Self {
        match chunk.kind {
            SourceKind::Journal => Self::Journal,
            _ if chunk.name.ends_with("-json.log") => Self::Docker,
            _ if chunk.name.starts_with("/var/log/pods/") || chunk.name.contains("/log/pods/") => Self::Cri,
            _ => Self::Plain,
        }
    }
}

/// One line as its writer wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Line<'a> {
    /// The bytes that it came of: from, and up to.
    pub from: usize,
    pub to: usize,
    pub text: Cow<'a, str>,
    /// Nanoseconds since the epoch; none: the source does not say.
    pub time: Option<u64>,
    /// `stdout` or `stderr`; empty: unknown.
    pub stream: &'static str,
    /// Of a syslog priority.
    pub priority: Option<Level>,
    /// Of the journal: unit, container, identifier.
    pub unit: String,
    pub container: String,
    /// The rest of the line has not come.
    pub partial: bool,
    pub cut: bool,
    /// Bytes that were no UTF-8 were replaced.
    pub invalid: bool,
    /// It was not in the source's format.
    pub malformed: bool,
}

impl Line<'_> {
    /// With nothing in it.
    pub fn bare(from: usize, to: usize) -> Self {
        Self {
            from,
            to,
            text: Cow::Borrowed(""),
            time: None,
            stream: "",
            priority: None,
            unit: String::new(),
            container: String::new(),
            partial: false,
            cut: false,
            invalid: false,
            malformed: false,
        }
    }
}

#[derive(Deserialize)]
struct Docker<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE", default)]
    message: Value,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    micros: String,
    #[serde(rename = "PRIORITY", default)]
    priority: Value,
    #[serde(rename = "_SYSTEMD_UNIT", default)]
    unit: Value,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Value,
    #[serde(rename = "CONTAINER_NAME", default)]
    container: Value,
}

/// The lines of chunks of one source, in order; parts of a line are joined to `most` bytes.
pub fn lines<'a>(format: Format, chunks: &[&'a Chunk], most: usize) -> Vec<Line<'a>> {
    let mut out: Vec<Line<'a>> = Vec::new();
    let mut base = 0;
    for chunk in chunks {
        let mut at = 0;
        for raw in chunk.bytes.split_inclusive(|b| *b == b'\n') {
            let (from, to) = (base + at, base + at + raw.len());
            at += raw.len();
            let mut line = line(format, raw.strip_suffix(b"\n").unwrap_or(raw), from, to);
            line.cut |= chunk.cut;
            join(&mut out, line, most);
        }
        base += chunk.bytes.len();
    }
    out
}

/// Adds a line, or the next part of one: the last unfinished one of the same stream.
fn join<'a>(out: &mut Vec<Line<'a>>, line: Line<'a>, most: usize) {
    let open =
        out.iter().rposition(|l| l.stream == line.stream).filter(|i| out.get(*i).is_some_and(|l| l.partial));
    let Some(before) = open.and_then(|i| out.get_mut(i)) else { return out.push(line) };
    before.to = line.to;
    before.partial = line.partial;
    before.invalid |= line.invalid;
    let room = most.saturating_sub(before.text.len());
    let end = line.text.floor_char_boundary(room);
    before.cut |= line.cut || end < line.text.len();
    before.text.to_mut().push_str(line.text.get(..end).unwrap_or_default());
}

fn line(format: Format, raw: &[u8], from: usize, to: usize) -> Line<'_> {
    let (text, invalid) = match std::str::from_utf8(raw) {
        Ok(text) => (Cow::Borrowed(text), false),
        Err(_) => (Cow::Owned(String::from_utf8_lossy(raw).into_owned()), true),
    };
    let plain = Line { invalid, ..Line::bare(from, to) };
    let decoded = match (format, &text) {
        (Format::Plain, _) => None,
        (Format::Docker, Cow::Borrowed(text)) => docker(text, &plain),
        (Format::Docker, Cow::Owned(text)) => docker(text, &plain).map(owned),
        (Format::Cri, Cow::Borrowed(text)) => cri(text, &plain),
        (Format::Cri, Cow::Owned(text)) => cri(text, &plain).map(owned),
        (Format::Journal, text) => journal(text, &plain),
    };
    decoded.unwrap_or_else(|| {
        let text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches('\r')),
            Cow::Owned(text) => Cow::Owned(text),
        };
        Line { text, malformed: format != Format::Plain, ..plain }
    })
}

fn owned<'a>(line: Line<'_>) -> Line<'a> {
    let Line { from, to, text, time, stream, priority, unit, container, partial, cut, invalid, malformed } =
        line;
    let text = Cow::Owned(text.into_owned());
    Line { from, to, text, time, stream, priority, unit, container, partial, cut, invalid, malformed }
}

/// `{"log":"…\n","stream":"stderr","time":"…"}`; a part of a line has no newline.
fn docker<'a>(text: &'a str, plain: &Line<'_>) -> Option<Line<'a>> {
    let Docker { log, stream, time } = serde_json::from_str(text).ok()?;
    let partial = !log.ends_with('\n');
    let log = match log {
        Cow::Borrowed(log) => Cow::Borrowed(log.trim_end_matches(['\n', '\r'])),
        Cow::Owned(mut log) => {
            log.truncate(log.trim_end_matches(['\n', '\r']).len());
            Cow::Owned(log)
        }
    };
    let time = time::rfc3339(&time).map(|(time, _)| time);
    let invalid = plain.invalid || log.contains('\u{fffd}');
    Some(Line { text: log, time, stream: stream_word(&stream), partial, invalid, ..bare(plain) })
}

/// `2026-11-21T14:00:00.000000000Z stdout F …`; `P` for a part of a line.
fn cri<'a>(text: &'a str, plain: &Line<'_>) -> Option<Line<'a>> {
    let (time, length) = time::rfc3339(text)?;
    let rest = text.get(length..)?.strip_prefix(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    let (tags, message) = rest.split_once(' ').unwrap_or((rest, ""));
    let partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    let stream = stream_word(stream);
    (!stream.is_empty()).then_some(())?;
    Some(Line { text: Cow::Borrowed(message), time: Some(time), stream, partial, ..bare(plain) })
}

fn journal<'a>(text: &str, plain: &Line<'_>) -> Option<Line<'a>> {
    let entry: Entry = serde_json::from_str(text).ok()?;
    let (message, invalid) = message(&entry.message)?;
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = entry.micros.parse::<u64>().ok().and_then(|micros| micros.checked_mul(1000));
    let priority = entry.priority.as_str().and_then(|p| p.parse().ok()).map(Level::of_priority);
    let unit = match word(&entry.unit) {
        unit if unit.is_empty() => word(&entry.identifier),
        unit => unit,
    };
    Some(Line {
        text: Cow::Owned(message),
        time: time.and_then(time::plausible),
        priority,
        unit,
        container: word(&entry.container),
        invalid,
        ..bare(plain)
    })
}

/// A text, or the bytes of what is no text; of several the first.
fn message(value: &Value) -> Option<(String, bool)> {
    match value {
        Value::String(text) => Some((text.clone(), false)),
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            let bytes: Vec<u8> =
                list.iter().filter_map(|v| v.as_u64().and_then(|b| u8::try_from(b).ok())).collect();
            let text = String::from_utf8_lossy(&bytes);
            Some((text.clone().into_owned(), matches!(text, Cow::Owned(_))))
        }
        Value::Array(list) => list.first().and_then(message),
        Value::Null => Some((String::new(), false)),
        _ => None,
    }
}

fn bare<'a>(plain: &Line<'_>) -> Line<'a> {
    Line { invalid: plain.invalid, ..Line::bare(plain.from, plain.to) }
}

fn stream_word(word: &str) -> &'static str {
    match word {
        "stdout" => "stdout",
        "stderr" => "stderr",
        _ => "",
    }
}

/// Namespace, pod and container of `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/N.log`.
pub fn pod(path: &str) -> Option<(&str, &str, &str)> {
    let mut segments = path.rsplit('/');
    segments.next()?;
    let container = segments.next()?;
    let mut words = segments.next()?.split('_');
    let (namespace, pod) = (words.next()?, words.next()?);
    words.next()?;
    (!namespace.is_empty() && !pod.is_empty() && !container.is_empty()).then_some((namespace, pod, container))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn chunk(name: &str, bytes: &[u8]) -> Chunk {
        let kind = if name.is_empty() { SourceKind::Journal } else { SourceKind::File };
        Chunk {
            id: 0,
            kind,
            name: name.to_owned(),
            labels: Vec::new(),
            bytes: bytes.to_vec(),
            waited: Duration::ZERO,
            last: false,
            cut: false,
        }
    }

    #[test]
    fn docker_lines_and_their_parts() {
        let text = concat!(
            r#"{"log":"one \"quoted\"\n","stream":"stdout","time":"2026-11-21T14:00:01.5Z"}"#,
            "\n",
            r#"{"log":"a long ","stream":"stderr","time":"2026-11-21T14:00:02Z"}"#,
            "\n",
            r#"{"log":"between\n","stream":"stdout","time":"2026-11-21T14:00:02Z"}"#,
            "\n",
            r#"{"log":"line\r\n","stream":"stderr","attrs":{"tag":"x"},"time":"2026-11-21T14:00:03Z"}"#,
            "\n",
            "{\"log\":\"torn\n",
            r#"{"log":"unfinished","stream":"stderr","time":"2026-11-21T14:00:03Z"}"#,
            "\n",
        );
        let chunk = chunk("/x-json.log", text.as_bytes());
        assert_eq!(Format::of(&chunk), Format::Docker);
        let lines = lines(Format::Docker, &[&chunk], 1 << 16);
        let seen: Vec<(&str, &str, bool, bool)> =
            lines.iter().map(|l| (l.stream, l.text.as_ref(), l.partial, l.malformed)).collect();
        assert_eq!(
            seen,
            [
                ("stdout", "one \"quoted\"", false, false),
                ("stderr", "a long line", false, false),
                ("stdout", "between", false, false),
                ("", "{\"log\":\"torn", false, true),
                ("stderr", "unfinished", true, false),
            ]
        );
        assert_eq!(lines[0].time, Some(1_795_269_601_500_000_000));
        assert_eq!(lines.last().unwrap().to, text.len());
    }

    #[test]
    fn cri_lines_and_their_parts() {
        let text = "2026-11-21T14:00:01.123456789Z stdout P first \n2026-11-21T14:00:01.2Z stdout F second\n\
                    2026-11-21T14:00:02Z stderr F \nnot CRI at all\n";
        let path = "/var/log/pods/prod_vllm-0_1234-5678/server/0.log";
        let chunk = chunk(path, text.as_bytes());
        assert_eq!(Format::of(&chunk), Format::Cri);
        let lines = lines(Format::Cri, &[&chunk], 1 << 16);
        let seen: Vec<(&str, &str, bool)> =
            lines.iter().map(|l| (l.stream, l.text.as_ref(), l.malformed)).collect();
        assert_eq!(
            seen,
            [("stdout", "first second", false), ("stderr", "", false), ("", "not CRI at all", true)]
        );
        assert_eq!(pod(path), Some(("prod", "vllm-0", "server")));
        assert_eq!(pod("/var/log/x.log"), None);
    }

    #[test]
    fn journal_entries() {
        let text = concat!(
            r#"{"__CURSOR":"s=1","__REALTIME_TIMESTAMP":"1795269601000000","PRIORITY":"3","_SYSTEMD_UNIT":"a.service","MESSAGE":"text"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1795269601000000","SYSLOG_IDENTIFIER":"sudo","MESSAGE":[104,105,255]}"#,
            "\n",
            r#"{"CONTAINER_NAME":"vllm","MESSAGE":null}"#,
            "\n",
        );
        let chunk = chunk("", text.as_bytes());
        let lines = lines(Format::Journal, &[&chunk], 1 << 16);
        assert_eq!((lines[0].text.as_ref(), lines[0].unit.as_str()), ("text", "a.service"));
        assert_eq!((lines[0].priority, lines[0].time), (Some(Level::Error), Some(1_795_269_601_000_000_000)));
        assert_eq!(
            (lines[1].text.as_ref(), lines[1].unit.as_str(), lines[1].invalid),
            ("hi\u{fffd}", "sudo", true)
        );
        assert_eq!((lines[2].text.as_ref(), lines[2].container.as_str()), ("", "vllm"));
    }

    proptest::proptest! {
        /// Every byte belongs to a line, whatever the bytes are.
        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            for (format, name) in [(Format::Docker, "/a-json.log"), (Format::Cri, "/var/log/pods/a"), (Format::Journal, ""), (Format::Plain, "/x")] {
                let chunk = chunk(name, &bytes);
                let lines = lines(format, &[&chunk], 1 << 16);
                proptest::prop_assert_eq!(lines.last().map_or(0, |l| l.to), bytes.len());
            }
        }

        /// What Docker writes comes out as it was written.
        #[test]
        fn docker_is_read_as_it_is_written(texts in proptest::collection::vec("[^\r\n]{0,40}", 1..10)) {
            let json = |text: &String| picket_sdk::serde_json::json!({"log": format!("{text}\n"), "stream": "stdout", "time": "2026-11-21T14:00:01Z"}).to_string() + "\n";
            let bytes: String = texts.iter().map(json).collect();
            let chunk = chunk("/a-json.log", bytes.as_bytes());
            let lines = lines(Format::Docker, &[&chunk], 1 << 16);
            let got: Vec<&str> = lines.iter().map(|l| l.text.as_ref()).collect();
            proptest::prop_assert_eq!(got, texts.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}
