//! A page, line by line.

use std::borrow::Cow;

use super::bytes::{is_blank, newline, skip_blanks};
use super::number;

/// Why a line can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum LineError {
    #[error("the line is not UTF-8")]
    Utf8,
    #[error("the line has no metric name")]
    Name,
    #[error("the labels are not closed, not quoted or not separated as the format wants")]
    Labels,
    #[error("a label stands twice")]
    Twice,
    #[error("the value is no number")]
    Value,
    #[error("the timestamp is no number")]
    Timestamp,
    #[error("something stands after the value and the timestamp")]
    Rest,
    #[error("the page ends in the middle of the line")]
    Truncated,
    #[error("the line is too long")]
    TooLong,
}

/// A sample as the page has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The exposed name, `_bucket` and the like included.
    pub name: &'a str,
    /// In the page's order, `le` and `quantile` among them.
    pub labels: Labels<'a>,
    /// The value; NaN where the page says so.
    pub value: f64,
    /// Milliseconds since the Unix epoch, where the line has a time.
    pub timestamp_ms: Option<i64>,
}

impl Sample<'_> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, v)| &**v)
    }
}

/// Every sample of a page, in its order: for a page that is read, not passed on.
pub fn samples(body: &[u8]) -> impl Iterator<Item = Result<Sample<'_>, LineError>> {
    let open_metrics = is_open_metrics(body);
    lines(body).filter_map(move |(line, whole)| {
        let content = skip_blanks(line);
        if matches!(content, [] | [b'\r'] | [b'#', ..]) {
            return None;
        }
        Some(if whole { sample(line, open_metrics) } else { Err(LineError::Truncated) })
    })
}

fn sample(line: &[u8], open_metrics: bool) -> Result<Sample<'_>, LineError> {
    let end = series_end(line)?;
    let (series, rest) = line.split_at_checked(end).unwrap_or((line, &[]));
    let (name, labels) = series_of(std::str::from_utf8(series).map_err(|_| LineError::Utf8)?)?;
    let (value, timestamp_ms) = value_of(rest, open_metrics)?;
    Ok(Sample { name, labels, value, timestamp_ms })
}

/// The lines of a page without their ends, and whether each had one.
fn lines(body: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, whole) = first(rest);
        rest = rest.get(line.len() + usize::from(whole)..).unwrap_or_default();
        Some((line, whole))
    })
}

/// The first line without its newline, and whether it has one.
#[inline]
pub fn first(text: &[u8]) -> (&[u8], bool) {
    match newline(text) {
        Some(end) => (text.get(..end).unwrap_or_default(), true),
        None => (text, false),
    }
}

/// OpenMetrics says where it ends, and writes times in seconds.
pub fn is_open_metrics(body: &[u8]) -> bool {
    body.trim_ascii_end().ends_with(b"# EOF")
}

/// How long the name and the labels are that a line begins with.
pub fn series_end(line: &[u8]) -> Result<usize, LineError> {
    let start = line.iter().position(|b| !is_blank(*b)).ok_or(LineError::Name)?;
    let name = line.get(start..).unwrap_or_default().iter().take_while(|b| is_name(**b)).count();
    if name == 0 {
        return Err(LineError::Name);
    }
    let end = start + name;
    let after = skip_blanks(line.get(end..).unwrap_or_default());
    if after.first() != Some(&b'{') {
        // A name ends at a blank: `a-b 1` is not the value -b of `a`.
        let ends = line.get(end).is_none_or(|byte| is_blank(*byte));
        return if ends { Ok(end) } else { Err(LineError::Name) };
    }
    let (mut quoted, mut escaped) = (false, false);
    let open = line.len() - after.len();
    for (i, byte) in after.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Ok(open + i + 1),
            _ => {}
        }
    }
    Err(LineError::Labels)
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':')
}

pub type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// Takes a series apart: its name and its labels.
pub fn series_of(series: &str) -> Result<(&str, Labels<'_>), LineError> {
    let series = series.trim_ascii();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name.trim_ascii_end(), labels.strip_suffix('}').ok_or(LineError::Labels)?),
        None => (series, ""),
    };
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.bytes().all(is_name) {
        return Err(LineError::Name);
    }
    let mut list = Labels::new();
    let mut rest = labels.trim_ascii_start();
    while !rest.is_empty() {
        let (label, after) = rest.split_once('=').ok_or(LineError::Labels)?;
        let label = label.trim_ascii_end();
        let good = !label.is_empty()
            && !label.starts_with(|c: char| c.is_ascii_digit())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let quoted = after.trim_ascii_start().strip_prefix('"').filter(|_| good).ok_or(LineError::Labels)?;
        let (value, after) = unquote(quoted).ok_or(LineError::Labels)?;
        if list.iter().any(|(n, _)| *n == label) {
            return Err(LineError::Twice);
        }
        list.push((label, value));
        let after = after.trim_ascii_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_ascii_start(),
            None if after.is_empty() => after,
            None => return Err(LineError::Labels),
        };
    }
    Ok((name, list))
}

/// The value up to the closing quote, unescaped, and what follows. An escape that the format does not know stays as
/// it is.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.bytes().position(|b| matches!(b, b'"' | b'\\'))?;
    let (plain, rest) = text.split_at_checked(end)?;
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((Cow::Borrowed(plain), rest));
    }
    let mut value = plain.to_owned();
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return Some((Cow::Owned(value), chars.as_str())),
            '\\' => match chars.next()? {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
}

/// The value and the time that follow a series. An exemplar behind them is passed over.
#[inline]
pub fn value_of(rest: &[u8], open_metrics: bool) -> Result<(f64, Option<i64>), LineError> {
    let text = skip_blanks(rest);
    let (value, len) = number::read(text).ok_or(LineError::Value)?;
    let rest = text.get(len..).unwrap_or_default();
    match rest {
        [] | [b'\r'] => Ok((value, None)),
        _ => after_value(rest, open_metrics).map(|time| (value, time)),
    }
}

fn after_value(rest: &[u8], open_metrics: bool) -> Result<Option<i64>, LineError> {
    let text = skip_blanks(rest);
    match text.first() {
        None | Some(b'\r') => return Ok(None),
        Some(b'#') => return Ok(None),
        Some(_) => {}
    }
    let (time, len) = number::read(text).ok_or(LineError::Timestamp)?;
    let time = if open_metrics { (time * 1000.0).round() } else { time };
    if !time.is_finite() || (!open_metrics && time.fract() != 0.0) {
        return Err(LineError::Timestamp);
    }
    match skip_blanks(text.get(len..).unwrap_or_default()).first() {
        None | Some(b'#' | b'\r') => Ok(Some(time as i64)),
        Some(_) => Err(LineError::Rest),
    }
}

/// What a line that begins with `#` says.
#[derive(Debug, PartialEq, Eq)]
pub enum Comment<'a> {
    Type { family: &'a str, word: &'a str },
    Help { family: &'a str, text: &'a str },
    Unit { family: &'a str, unit: &'a str },
    Nothing,
}

pub fn comment(line: &str) -> Comment<'_> {
    let mut rest = line.trim_start_matches([' ', '\t']).trim_start_matches('#');
    let mut word = || {
        let text = rest.trim_start_matches([' ', '\t']);
        let (word, after) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        rest = after;
        word
    };
    let (kind, family) = (word(), word());
    let rest = rest.trim_start_matches([' ', '\t']);
    match kind {
        _ if family.is_empty() => Comment::Nothing,
        "TYPE" => Comment::Type { family, word: rest.trim_ascii() },
        "HELP" => Comment::Help { family, text: rest.trim_ascii_end() },
        "UNIT" => Comment::Unit { family, unit: rest.trim_ascii() },
        _ => Comment::Nothing,
    }
}

/// A help text with its escapes resolved.
pub fn help(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, chars.clone().next()) {
            ('\\', Some('n')) => out.push('\n'),
            ('\\', Some('\\')) => out.push('\\'),
            ('\\', Some('"')) => out.push('"'),
            _ => {
                out.push(c);
                continue;
            }
        }
        chars.next();
    }
    out
}
