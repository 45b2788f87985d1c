//! The Prometheus text format, version 0.0.4.

use std::fmt::Write;

use super::sink::{Sample, Sink};
use crate::MetricType;

pub(crate) fn render(sink: &Sink) -> String {
    let mut samples = sink.samples();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out = String::new();
    let mut last: Option<&str> = None;
    for sample in &samples {
        if last != Some(&sample.name) {
            last = Some(&sample.name);
            if let Some(family) = sink.families.iter().find(|f| f.name == sample.name) {
                let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
                let word = type_word(family.metric_type);
                let _ = writeln!(out, "# HELP {} {help}\n# TYPE {} {word}", family.name, family.name);
            }
        }
        line(&mut out, sample);
    }
    out
}

fn line(out: &mut String, sample: &Sample) {
    out.push_str(&sample.exposed_name());
    for (i, (name, value)) in sample.labels.iter().enumerate() {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{name}=\"{value}\"", if i == 0 { '{' } else { ',' });
    }
    if !sample.labels.is_empty() {
        out.push('}');
    }
    let _ = match sample.value {
        v if v == f64::INFINITY => write!(out, " +Inf"),
        v if v == f64::NEG_INFINITY => write!(out, " -Inf"),
        v => write!(out, " {v}"),
    };
    if let Some(time) = sample.time_ms {
        let _ = write!(out, " {time}");
    }
    out.push('\n');
}

fn type_word(metric_type: MetricType) -> &'static str {
    match metric_type {
        MetricType::Gauge | MetricType::Info | MetricType::StateSet => "gauge",
        MetricType::Counter => "counter",
        MetricType::Histogram => "histogram",
        MetricType::Summary => "summary",
        MetricType::Unknown => "untyped",
    }
}
