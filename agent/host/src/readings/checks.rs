//! The checks of what a guest declares, registers and emits.

use picket_proto::model::{
    Family, Labels, MAX_LABELS, MetricType, Part, Severity, check_label_name, check_part,
};
use picket_proto::v1;
use serde::{Deserialize, Serialize};

use super::Refused;

/// A family as the guest declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Declared {
    pub name: String,
    #[serde(with = "crate::words")]
    pub metric_type: MetricType,
    pub unit: String,
    pub help: String,
    pub label_names: Vec<String>,
}

impl Declared {
    pub(super) fn check(self) -> Result<(Family, Vec<String>), Refused> {
        let shown: String = self.name.chars().take(64).collect();
        let invalid = |e: String| Refused::Invalid(format!("the family {shown:?}: {e}"));
        if self.label_names.len() > MAX_LABELS {
            return Err(invalid(format!("{} label names, {MAX_LABELS} are allowed", self.label_names.len())));
        }
        for name in &self.label_names {
            check_label_name(name).map_err(|e| invalid(e.to_string()))?;
        }
        let family = Family::new(self.name, self.metric_type, self.unit, &self.help)
            .map_err(|e| invalid(e.to_string()))?;
        Ok((family, self.label_names))
    }
}

const SUFFIXES: [(&str, &[MetricType]); 3] = [
    ("_bucket", &[MetricType::Histogram]),
    ("_sum", &[MetricType::Histogram, MetricType::Summary]),
    ("_count", &[MetricType::Histogram, MetricType::Summary]),
];

/// A histogram `x` writes lines named `x_count`: no other family may have that name.
pub(super) fn check_line_names(
    family: &Family,
    type_of: impl Fn(&str) -> Option<MetricType>,
) -> Result<(), Refused> {
    for (suffix, owners) in SUFFIXES {
        let clash = if owners.contains(&family.metric_type) {
            Some(format!("{}{suffix}", family.name)).filter(|n| type_of(n).is_some())
        } else {
            None
        };
        let clash = clash.or_else(|| {
            let base = family.name.strip_suffix(suffix)?;
            type_of(base).filter(|t| owners.contains(t)).map(|_| base.to_owned())
        });
        if let Some(other) = clash {
            return Err(Refused::Invalid(format!(
                "the family {} would write lines of the same name as {other}, which is there already",
                family.name
            )));
        }
    }
    Ok(())
}

pub(super) fn check_labels(
    family: &Family,
    label_names: &[String],
    part: Part,
    labels: Vec<(String, String)>,
    most_bytes: u32,
) -> Result<Labels, Refused> {
    let invalid = |e: String| Refused::Invalid(format!("a series of {}: {e}", family.name));
    check_part(family.metric_type, part).map_err(|e| invalid(e.to_string()))?;
    let bytes: usize = labels.iter().map(|(n, v)| n.len() + v.len()).sum();
    if bytes > most_bytes as usize {
        return Err(invalid(format!(
            "labels of {bytes} bytes, {most_bytes} are allowed: limits.label_bytes"
        )));
    }
    let bound = match part {
        Part::Bucket => Some("le"),
        Part::Quantile => Some("quantile"),
        _ => None,
    };
    if !label_names.is_empty()
        && let Some((name, _)) =
            labels.iter().find(|(n, _)| Some(n.as_str()) != bound && !label_names.iter().any(|l| l == n))
    {
        let shown: String = name.chars().take(64).collect();
        return Err(invalid(format!("the label {shown:?} is not among the family's label names")));
    }
    let labels = Labels::new(labels).map_err(|e| invalid(e.to_string()))?;
    if let Some(bound) = bound {
        let value = labels.get(bound).unwrap_or_default();
        if value.parse::<f64>().is_ok_and(|v| !v.is_nan()) {
            return Ok(labels);
        }
        let shown: String = value.chars().take(64).collect();
        return Err(invalid(format!("the label {bound} must be a number, not {shown:?}")));
    }
    Ok(labels)
}

/// An event as the guest emits it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Happened {
    pub kind: String,
    #[serde(with = "crate::words")]
    pub severity: Severity,
    pub subject: (String, String),
    pub message: String,
    pub attributes: Vec<(String, String)>,
    pub key: String,
    pub clear: bool,
    /// Milliseconds since the epoch.
    pub timestamp: Option<u64>,
}

const MAX_KIND: usize = 128;
const MAX_SUBJECT: usize = 512;
const MAX_MESSAGE: usize = 4096;

pub(crate) fn check_event(event: Happened, now_ms: i64, most_bytes: u32) -> Result<v1::Event, Refused> {
    let shown: String = event.kind.chars().take(64).collect();
    let invalid = |e: String| Refused::Invalid(format!("the event {shown:?}: {e}"));
    let word = |text: &str| {
        !text.is_empty()
            && text.len() <= MAX_KIND
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    if !word(&event.kind) {
        return Err(invalid("its kind must be a dotted word like gpu.xid".to_owned()));
    }
    let (subject_kind, subject_id) = event.subject;
    if !word(&subject_kind) {
        return Err(invalid("its subject's kind must be a word like gpu".to_owned()));
    }
    if subject_id.len() > MAX_SUBJECT || event.key.len() > MAX_SUBJECT {
        return Err(invalid(format!("its subject or key is longer than {MAX_SUBJECT} bytes")));
    }
    let bytes: usize = event.attributes.iter().map(|(n, v)| n.len() + v.len()).sum();
    if bytes > most_bytes as usize {
        return Err(invalid(format!(
            "attributes of {bytes} bytes, {most_bytes} are allowed: limits.label_bytes"
        )));
    }
    let attributes = Labels::new(event.attributes).map_err(|e| invalid(e.to_string()))?;
    let end = event.message.floor_char_boundary(MAX_MESSAGE);
    let message = event.message.get(..end).unwrap_or_default();
    Ok(v1::Event {
        timestamp_ms: event.timestamp.and_then(|t| i64::try_from(t).ok()).unwrap_or(now_ms),
        plugin: String::new(),
        kind: event.kind,
        severity: event.severity.into(),
        subject_kind,
        subject_id,
        message: message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
        attributes: attributes
            .iter()
            .map(|(n, v)| v1::Label { name: n.to_owned(), value: v.to_owned() })
            .collect(),
        key: event.key,
        clear: event.clear,
    })
}
