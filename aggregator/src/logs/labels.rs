//! A stream's labels: as text, as bytes of a file, and which of them an agent may set.
//!
//! `node` and `instance` are the certificate's name, put here; `pushed_by` is the name of the token that pushed a stream. So a
//! line says by its labels who brought it, whatever else it claims: an agent's own `node`, `instance` or
//! `pushed_by` is taken off, and no stream of an agent has a `pushed_by`.

use std::fmt::Write as _;

use picket_proto::model::{InvalidName, Labels};

use crate::log::frame::{Fields, put_bytes, put_u32};

pub const NODE: &str = "node";
pub const INSTANCE: &str = "instance";
pub const PUSHED_BY: &str = "pushed_by";

/// Names and values of one stream's labels together, in bytes.
pub const MAX_LABEL_BYTES: usize = 8 << 10;

/// Why a stream's labels were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("the labels are {bytes} bytes long, {MAX_LABEL_BYTES} are allowed")]
    TooLong { bytes: usize },
}

/// Labels of an agent's stream, with the node's name as its certificate says it.
pub fn of_agent(node: &str, pairs: impl Iterator<Item = (String, String)>) -> Result<Labels, LabelsError> {
    let kept = pairs.filter(|(name, _)| ![NODE, INSTANCE, PUSHED_BY].contains(&name.as_str()));
    checked(kept.chain([(NODE.to_owned(), node.to_owned()), (INSTANCE.to_owned(), node.to_owned())]))
}

/// Labels of a pushed stream, with the token's name.
pub fn of_push(token: &str, pairs: impl Iterator<Item = (String, String)>) -> Result<Labels, LabelsError> {
    checked(pairs.filter(|(name, _)| name != PUSHED_BY).chain([(PUSHED_BY.to_owned(), token.to_owned())]))
}

fn checked(pairs: impl Iterator<Item = (String, String)>) -> Result<Labels, LabelsError> {
    let labels = Labels::new(pairs)?;
    let bytes = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_LABEL_BYTES { Err(LabelsError::TooLong { bytes }) } else { Ok(labels) }
}

/// `{a="b", c="d"}`, as LogQL writes a selector.
pub fn text<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (name, value) in pairs {
        if out.len() > 1 {
            out.push_str(", ");
        }
        out.push_str(name);
        out.push('=');
        quote(value, &mut out);
    }
    out.push('}');
    out
}

/// A text in double quotes that LogQL reads back as the same text.
pub fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String can't fail.
            c if c.is_control() => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends labels to a file's bytes.
pub fn put(labels: &Labels, out: &mut Vec<u8>) {
    put_u32(out, labels.len() as u32);
    for (name, value) in labels.iter() {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

/// Reads what [`put`] wrote.
pub fn take(fields: &mut Fields<'_>) -> Option<Labels> {
    let count = fields.u32()?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((fields.str()?.to_owned(), fields.str()?.to_owned()));
    }
    Labels::new(pairs).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn an_agent_cannot_say_that_it_is_another_node() {
        let given = pairs(&[("node", "other"), ("instance", "other"), ("pushed_by", "x"), ("job", "j")]);
        let labels = of_agent("gpu-1", given.into_iter()).unwrap();
        assert_eq!(text(labels.iter()), r#"{instance="gpu-1", job="j", node="gpu-1"}"#);
    }

    #[test]
    fn a_pushed_stream_says_who_pushed_it() {
        let given = pairs(&[("node", "gpu-1"), ("pushed_by", "somebody")]);
        let labels = of_push("promtail", given.into_iter()).unwrap();
        assert_eq!(text(labels.iter()), r#"{node="gpu-1", pushed_by="promtail"}"#);
    }

    #[test]
    fn what_is_refused() {
        assert!(matches!(of_push("t", pairs(&[("a-b", "c")]).into_iter()), Err(LabelsError::Name(_))));
        assert!(matches!(of_push("t", pairs(&[("__a", "c")]).into_iter()), Err(LabelsError::Name(_))));
        let long: Vec<_> = (0..3).map(|i| (format!("l{i}"), "x".repeat(4000))).collect();
        assert!(matches!(of_push("t", long.into_iter()), Err(LabelsError::TooLong { .. })));
    }

    #[test]
    fn bytes_read_back() {
        let labels = of_push("t", pairs(&[("a", "x\"y\n"), ("b", "ü")]).into_iter()).unwrap();
        let mut bytes = Vec::new();
        put(&labels, &mut bytes);
        assert_eq!(take(&mut Fields(&bytes)), Some(labels));
        for end in 0..bytes.len() {
            assert_eq!(take(&mut Fields(bytes.get(..end).unwrap())), None, "cut at {end}");
        }
    }
}
