//! The local page: Prometheus text 0.0.4 and OpenMetrics 1.0.0, written family by family.
//!
//! The collector is locked for one chunk at a time, so neither a slow reader nor a long page delays a collect; a family
//! stands in one chunk, so its lines are of one moment. Values that were not pushed again in time are left out: an
//! absent value says that nothing is known, an old one would lie.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use picket_proto::model::{Family, MetricType, suffix, type_word};

use super::Collector;
use super::dictionary::{Dictionary, Name, SeriesEntry};

/// A chunk is sent when it is longer than this.
const CHUNK: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// OpenMetrics 1.0 where the reader names it and prefers nothing else to it; else Prometheus text, which all read.
    pub fn of_accept(accept: &str) -> Self {
        let mut best = (Self::Prometheus, 0.0);
        for item in accept.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let mut quality = 1.0;
            let mut version = None;
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => version = Some(value.trim()),
                    _ => {}
                }
            }
            let format = match (media, version) {
                ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => Self::OpenMetrics,
                ("text/plain", None | Some("0.0.4")) => Self::Prometheus,
                _ => continue,
            };
            if quality > best.1 {
                best = (format, quality);
            }
        }
        best.0
    }
}

/// The page, chunk by chunk; an iterator.
pub struct Exposition {
    collector: Collector,
    format: Format,
    after: Option<Arc<str>>,
    ended: bool,
}

impl Collector {
    pub fn exposition(&self, format: Format) -> Exposition {
        Exposition { collector: self.clone(), format, after: None, ended: false }
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        if self.ended {
            return None;
        }
        let mut out = String::with_capacity(CHUNK + CHUNK / 4);
        let now = self.collector.shared.clock.monotonic();
        let state = self.collector.state();
        let mut last = None;
        for (name, families) in state.dictionary.names_after(self.after.as_deref()) {
            write_name(&state.dictionary, families, self.format, now, &mut out);
            last = Some(name.clone());
            if out.len() >= CHUNK {
                break;
            }
        }
        drop(state);
        if last.is_none() || out.len() < CHUNK {
            self.ended = true;
            if self.format == Format::OpenMetrics {
                out.push_str("# EOF\n");
            }
        }
        self.after = last;
        (!out.is_empty()).then_some(out)
    }
}

fn write_name(dictionary: &Dictionary, name: &Name, format: Format, now: Duration, out: &mut String) {
    let mut fresh = name
        .families
        .iter()
        .filter_map(|number| dictionary.family_entry(*number))
        .flat_map(|entry| entry.order.iter().map(move |number| (&entry.family, *number)))
        .filter_map(|(family, number)| Some((family, dictionary.entry(number)?)))
        .filter(|(_, series)| series.fresh_until >= now)
        .peekable();
    let Some((family, first)) = fresh.peek() else { return };
    let head = Head::of(family, first, dictionary, format);
    head.write(family, format, out);
    for (_, series) in fresh {
        write_sample(&head.samples, series, format, out);
    }
}

/// What stands above a family's samples.
struct Head {
    /// The name in HELP, TYPE and UNIT.
    family: String,
    /// The name of the samples, less the part's suffix.
    samples: String,
    word: &'static str,
}

impl Head {
    fn of(family: &Family, first: &SeriesEntry, dictionary: &Dictionary, format: Format) -> Self {
        let whole = |word| Self { family: family.name.clone(), samples: family.name.clone(), word };
        let open_metrics = format == Format::OpenMetrics;
        let word = type_word(family.metric_type, open_metrics);
        if !open_metrics {
            return whole(word);
        }
        // OpenMetrics names a counter's and an info's family without the suffix of its samples; where the plugin's name
        // has none, or the shorter name is another's, the truth that can be told is less.
        let shorter = |suffix: &str, otherwise: &'static str| match family.name.strip_suffix(suffix) {
            Some(base) if !base.is_empty() && !dictionary.has_name(base) => {
                Self { family: base.to_owned(), samples: family.name.clone(), word }
            }
            _ => whole(otherwise),
        };
        match family.metric_type {
            MetricType::Counter => shorter("_total", "unknown"),
            MetricType::Info => shorter("_info", "gauge"),
            // A state set's label has its family's name, or it is none.
            MetricType::StateSet if first.labels.get(&family.name).is_none() => whole("gauge"),
            _ => whole(word),
        }
    }

    fn write(&self, family: &Family, format: Format, out: &mut String) {
        if !family.help.is_empty() {
            out.push_str("# HELP ");
            out.push_str(&self.family);
            out.push(' ');
            escape(&family.help, format == Format::OpenMetrics, out);
            out.push('\n');
        }
        // Writing into a String cannot fail.
        let _ = writeln!(out, "# TYPE {} {}", self.family, self.word);
        if format == Format::OpenMetrics
            && !family.unit.is_empty()
            && self.family.strip_suffix(family.unit.as_str()).is_some_and(|rest| rest.ends_with('_'))
        {
            let _ = writeln!(out, "# UNIT {} {}", self.family, family.unit);
        }
    }
}

fn write_sample(name: &str, series: &SeriesEntry, format: Format, out: &mut String) {
    out.push_str(name);
    out.push_str(suffix(series.part));
    let mut before = '{';
    for (name, value) in series.labels.iter() {
        out.push(before);
        out.push_str(name);
        out.push_str("=\"");
        escape(value, true, out);
        out.push('"');
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    out.push(' ');
    write_value(series.value, out);
    if let Some(ms) = series.timestamp_ms {
        let _ = match format {
            Format::Prometheus => write!(out, " {ms}"),
            Format::OpenMetrics => {
                let sign = if ms < 0 { "-" } else { "" };
                write!(out, " {sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
            }
        };
    }
    out.push('\n');
}

/// The shortest text that reads back as the same number.
fn write_value(value: f64, out: &mut String) {
    /// Every integer up to here is a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else if value.fract() == 0.0 && value.abs() < EXACT && !(value == 0.0 && value.is_sign_negative()) {
        out.push_str(itoa::Buffer::new().format(value as i64));
    } else {
        out.push_str(ryu::Buffer::new().format_finite(value));
    }
}

fn escape(text: &str, quotes: bool, out: &mut String) {
    if !text.contains(['\\', '\n', '"']) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0.0"),
            (87.0, "87"),
            (-1.5, "-1.5"),
            (1e300, "1e300"),
            (1e15, "1000000000000000"),
            (0.1, "0.1"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            let mut out = String::new();
            write_value(value, &mut out);
            assert_eq!(out, text);
        }
    }

    #[test]
    fn accept() {
        use Format::{OpenMetrics, Prometheus};
        for (accept, format) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain", Prometheus),
            ("application/openmetrics-text", OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                OpenMetrics,
            ),
            ("text/plain;q=0.9, application/openmetrics-text; version=1.0.0; q=0.1", Prometheus),
            ("application/openmetrics-text;version=9.0.0", Prometheus),
            ("application/openmetrics-text;q=x", Prometheus),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }
}
