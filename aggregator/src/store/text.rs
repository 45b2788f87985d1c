//! The text of one series: written once when it is registered, kept, and copied at every scrape.
//!
//! A *series text* is `name{instance="node",label="value",…}` without anything behind it. It is at once what is
//! exposed, what identifies the series within its node (labels stand in order of name, `instance` first), and what the
//! log keeps of it. So its escaping is that of the Prometheus text format, and [`parse`] is its exact inverse.

use std::borrow::Cow;

use picket_proto::model::{MetricType, Part, suffix};

/// The label that names the node, set by the aggregator alone.
pub const INSTANCE: &str = "instance";

/// A series text taken apart again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// The name as exposed, with `_bucket`, `_sum` or `_count`.
    pub name: &'a str,
    /// `instance` first, then the rest in order of name.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
}

impl Parsed<'_> {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_ref())
    }
}

/// Writes a series text. `labels` must be checked, in order of name, without an empty value. One that is called
/// `instance` is renamed `exported_instance`, as Prometheus does with a clash.
pub(crate) fn push_series<'a>(
    out: &mut Vec<u8>,
    family: &str,
    part: Part,
    node: &str,
    labels: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) {
    out.extend_from_slice(family.as_bytes());
    out.extend_from_slice(suffix(part).as_bytes());
    out.extend_from_slice(b"{instance=\"");
    push_escaped(out, node);
    out.push(b'"');
    for (name, value) in labels.clone() {
        out.push(b',');
        if name == INSTANCE {
            let mut exported = String::from("exported_instance");
            while labels.clone().any(|(other, _)| other == exported) {
                exported.insert_str(0, "exported_");
            }
            out.extend_from_slice(exported.as_bytes());
        } else {
            out.extend_from_slice(name.as_bytes());
        }
        out.extend_from_slice(b"=\"");
        push_escaped(out, value);
        out.push(b'"');
    }
    out.push(b'}');
}

/// Escapes a label value: backslash, quote and line feed, in both formats alike.
pub(crate) fn push_escaped(out: &mut Vec<u8>, value: &str) {
    if !value.bytes().any(|b| matches!(b, b'\\' | b'"' | b'\n')) {
        out.extend_from_slice(value.as_bytes());
        return;
    }
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            other => out.push(other),
        }
    }
}

/// Escapes a help text: OpenMetrics wants the quote escaped too, the older format forbids it.
pub(crate) fn push_help(out: &mut Vec<u8>, help: &str, open_metrics: bool) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if open_metrics => out.extend_from_slice(b"\\\""),
            other => out.push(other),
        }
    }
}

/// Whole numbers up to this are written without a fraction; all of them are exact in an f64.
const WHOLE: f64 = 1e15;

/// Writes a sample value so that it reads back to the same bits (a NaN to a NaN).
pub(crate) fn push_value(out: &mut Vec<u8>, value: f64) {
    if value.fract() == 0.0 && value.abs() < WHOLE && !(value == 0.0 && value.is_sign_negative()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value > 0.0 {
        out.extend_from_slice(b"+Inf");
    } else {
        out.extend_from_slice(b"-Inf");
    }
}

/// Takes a series text apart. `None` when it isn't one: only a damaged log can give such.
pub fn parse(text: &str) -> Option<Parsed<'_>> {
    let (name, rest) = text.split_once('{')?;
    let mut rest = rest.strip_suffix('}')?;
    let mut labels = Vec::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.bytes().position(|b| {
            let closes = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            closes
        })?;
        let (value, after) = after.split_at_checked(end)?;
        labels.push((label, unescape(value)?));
        rest = after.strip_prefix('"')?;
        if !rest.is_empty() {
            rest = rest.strip_prefix(',')?;
        }
    }
    Some(Parsed { name, labels })
}

fn unescape(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains('\\') {
        return Some(Cow::Borrowed(value));
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => out.push(other),
        }
    }
    Some(Cow::Owned(out))
}

/// How a family is named and typed in one format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header<'a> {
    pub name: &'a str,
    pub word: &'static str,
}

/// The name and type to expose a family under.
///
/// OpenMetrics names a counter without its `_total` and an info without its `_info`; a family whose name doesn't end so
/// can't be exposed as that type there. The older format's linter wants `_total` on counters and on nothing else. Names in
/// use often break both rules (`DCGM_FI_DEV_PCIE_REPLAY_COUNTER`, `slurm_cpus_total`): such a family keeps its name, which
/// dashboards ask for, and loses its type word, which nothing asks for. `shadowed`: another family has the short name.
pub(crate) fn header(name: &str, metric_type: MetricType, open_metrics: bool, shadowed: bool) -> Header<'_> {
    let untyped = Header { name, word: if open_metrics { "unknown" } else { "untyped" } };
    let total = name.strip_suffix("_total").filter(|short| !short.is_empty());
    let plain = Header { name, word: picket_proto::model::type_word(metric_type, open_metrics) };
    match metric_type {
        MetricType::Counter => match total {
            Some(_) if !open_metrics => plain,
            Some(short) if !shadowed => Header { name: short, ..plain },
            _ => untyped,
        },
        MetricType::Info if open_metrics => match name.strip_suffix("_info").filter(|s| !s.is_empty()) {
            Some(short) if !shadowed => Header { name: short, ..plain },
            _ => Header { name, word: "gauge" },
        },
        _ if total.is_some() => untyped,
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn series(labels: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        push_series(&mut out, "m", Part::Value, "n1", labels.iter().copied());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn series_texts() {
        assert_eq!(series(&[]), r#"m{instance="n1"}"#);
        assert_eq!(series(&[("a", "x\"y\\z\n")]), r#"m{instance="n1",a="x\"y\\z\n"}"#);
        assert_eq!(series(&[("instance", "old")]), r#"m{instance="n1",exported_instance="old"}"#);
        assert_eq!(
            series(&[("exported_instance", "older"), ("instance", "old")]),
            r#"m{instance="n1",exported_instance="older",exported_exported_instance="old"}"#
        );
    }

    #[test]
    fn values() {
        let check = |value: f64, want: &str| {
            let mut out = Vec::new();
            push_value(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        };
        check(0.0, "0");
        check(-0.0, "-0.0");
        check(1.0, "1");
        check(-42.0, "-42");
        check(0.5, "0.5");
        check(1e15, "1000000000000000.0");
        check(1e17, "1e17");
        check(1.5e300, "1.5e300");
        check(f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn headers() {
        let check = |name, metric_type, open, shadowed, want: (&str, &str)| {
            let header = header(name, metric_type, open, shadowed);
            assert_eq!((header.name, header.word), want, "{name} {metric_type:?} {open}");
        };
        check("a_total", MetricType::Counter, false, false, ("a_total", "counter"));
        check("a_total", MetricType::Counter, true, false, ("a", "counter"));
        check("a_total", MetricType::Counter, true, true, ("a_total", "unknown"));
        check("PCIE_REPLAY", MetricType::Counter, false, false, ("PCIE_REPLAY", "untyped"));
        check("PCIE_REPLAY", MetricType::Counter, true, false, ("PCIE_REPLAY", "unknown"));
        check("cpus_total", MetricType::Gauge, false, false, ("cpus_total", "untyped"));
        check("build_info", MetricType::Info, false, false, ("build_info", "gauge"));
        check("build_info", MetricType::Info, true, false, ("build", "info"));
        check("build", MetricType::Info, true, false, ("build", "gauge"));
        check("state", MetricType::StateSet, false, false, ("state", "gauge"));
        check("state", MetricType::StateSet, true, false, ("state", "stateset"));
        check("h", MetricType::Histogram, true, false, ("h", "histogram"));
    }

    #[test]
    fn damaged_texts_are_refused() {
        for text in ["", "m", "m{", "m}", "m{a}", "m{a=\"}", "m{a=\"b}", "m{a=\"b\"c}", "m{a=\"b\\\"}"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(values in prop::collection::vec("\\PC*|[\\\\\"\n,{}=]{0,8}", 0..6)) {
            let names: Vec<String> = (0..values.len()).map(|i| format!("l{i}")).collect();
            let labels: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
            let text = series(&labels);
            prop_assert!(!text.contains('\n'));
            let parsed = parse(&text).unwrap();
            prop_assert_eq!(parsed.name, "m");
            prop_assert_eq!(parsed.label("instance"), Some("n1"));
            let back: Vec<(&str, &str)> = parsed.labels.iter().skip(1).map(|(n, v)| (*n, v.as_ref())).collect();
            prop_assert_eq!(back, labels);
        }

        #[test]
        fn values_read_back(value in any::<f64>()) {
            let mut out = Vec::new();
            push_value(&mut out, value);
            let back: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
            prop_assert!(back.to_bits() == value.to_bits() || (back.is_nan() && value.is_nan()));
        }

        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
