//! The fleet as a scrape sees it: Prometheus text 0.0.4 or OpenMetrics 1.0, in chunks.
//!
//! Families in order of name, HELP and TYPE once each, all nodes' series of a family together and within a node in the
//! order in which they were registered. A sample has a timestamp only when it brought its own. Help that a plugin
//! didn't give is said to be missing, since the format's linter wants one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use picket_proto::model::MetricType;

use super::node::{Ask, Node, type_of};
use super::registry::{FamilyEntry, NODE_LAST_SEEN, NODE_UP, OWN};
use super::selector::{self, Selector};
use super::{Store, read, text};

/// A chunk is handed out when it has grown to this many bytes.
const CHUNK: usize = 64 << 10;

/// The exposition formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics when it is weighed above plain text, else text.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let (mut open, mut plain) = (0.0f32, 0.0f32);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let (mut weight, mut known_version) = (1.0f32, true);
            for part in parts {
                match part.split_once('=').map(|(k, v)| (k.trim(), v.trim())) {
                    Some(("q", q)) => weight = q.parse().unwrap_or(0.0),
                    Some(("version", v)) if media == "application/openmetrics-text" => {
                        known_version = matches!(v, "1.0.0" | "0.0.1");
                    }
                    _ => {}
                }
            }
            match media {
                "application/openmetrics-text" if known_version => open = open.max(weight),
                "text/plain" => plain = plain.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Text }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// An iterator over the chunks of one scrape. Making one takes no lock for longer than a list is copied.
pub struct Exposition {
    store: Arc<Store>,
    open_metrics: bool,
    selectors: Vec<Selector>,
    now_ms: i64,
    families: std::vec::IntoIter<Subject>,
    current: Option<Cursor>,
    ended: bool,
}

enum Subject {
    Family(Arc<FamilyEntry>),
    /// One of the aggregator's own, about the nodes.
    Own(&'static str),
}

struct Cursor {
    family: Arc<FamilyEntry>,
    holder: usize,
    from: usize,
    headed: bool,
}

impl Exposition {
    pub(super) fn new(store: Arc<Store>, format: Format, selectors: Vec<Selector>, now_ms: i64) -> Self {
        let wanted = |name: &str| selectors.is_empty() || selectors.iter().any(|s| s.may_match_family(name));
        let mut subjects: Vec<Subject> =
            store.registry.sorted().into_iter().filter(|f| wanted(&f.name)).map(Subject::Family).collect();
        for name in OWN.into_iter().filter(|name| wanted(name)) {
            let at = subjects.partition_point(|s| match s {
                Subject::Family(family) => &*family.name < name,
                Subject::Own(own) => *own < name,
            });
            subjects.insert(at, Subject::Own(name));
        }
        Self {
            store,
            open_metrics: format == Format::OpenMetrics,
            selectors,
            now_ms,
            families: subjects.into_iter(),
            current: None,
            ended: false,
        }
    }

    /// The same as a stream, for a response body.
    pub fn into_stream(
        self,
    ) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
        futures_util::stream::iter(self.map(Ok))
    }

    /// Adds lines of the current family. `false`: the chunk is full, the family isn't done.
    fn advance(&self, cursor: &mut Cursor, out: &mut Vec<u8>) -> bool {
        let ask = Ask {
            cutoff_s: self.store.cutoff_s(self.now_ms),
            open_metrics: self.open_metrics,
            selectors: &self.selectors,
        };
        let Cursor { family, holder: at, from, headed } = cursor;
        let mut header = |out: &mut Vec<u8>| {
            if !*headed {
                *headed = true;
                self.push_header(family, out);
            }
        };
        let holders = read(&family.holders);
        while let Some(holder) = holders.get(*at) {
            if !self.wants(&holder.node) {
                *at += 1;
                continue;
            }
            match holder.node.expose(holder.block, *from, &ask, CHUNK, out, &mut header) {
                Some(next) => {
                    *from = next;
                    return false;
                }
                None => {
                    *at += 1;
                    *from = 0;
                }
            }
        }
        true
    }

    fn wants(&self, node: &Node) -> bool {
        self.selectors.is_empty() || self.selectors.iter().any(|s| s.may_match_node(node.id().as_str()))
    }

    fn push_header(&self, family: &FamilyEntry, out: &mut Vec<u8>) {
        let meta = read(&family.meta).clone();
        let shadowed = self.open_metrics
            && ["_total", "_info"]
                .iter()
                .find_map(|suffix| family.name.strip_suffix(suffix))
                .is_some_and(|short| self.store.registry.contains(short));
        let metric_type = match type_of(family) {
            MetricType::StateSet if family.loose.load(Ordering::Relaxed) => MetricType::Gauge,
            metric_type => metric_type,
        };
        push_header(out, &family.name, metric_type, &meta.unit, &meta.help, self.open_metrics, shadowed);
    }

    fn push_own(&self, name: &'static str, out: &mut Vec<u8>) {
        let help = match name {
            NODE_UP => "Whether the node has a stream to the aggregator and its samples are fresh.",
            NODE_LAST_SEEN => "When the last batch of the node came in, by the aggregator's clock.",
            _ => "Live series of the node.",
        };
        let mut headed = false;
        let mut series = Vec::new();
        for view in self.store.nodes(self.now_ms) {
            let value = match name {
                NODE_UP => f64::from(u8::from(view.up)),
                NODE_LAST_SEEN => match view.last_seen_ms {
                    Some(ms) => ms as f64 / 1000.0,
                    None => continue,
                },
                _ => view.series as f64,
            };
            series.clear();
            let node = view.node.as_str();
            text::push_series(
                &mut series,
                name,
                picket_proto::model::Part::Value,
                node,
                [("node", node)].into_iter(),
            );
            let parsed = std::str::from_utf8(&series).ok().and_then(text::parse);
            if !parsed.is_some_and(|parsed| selector::any(&self.selectors, name, &parsed)) {
                continue;
            }
            if !std::mem::replace(&mut headed, true) {
                let unit = if name == NODE_LAST_SEEN { "seconds" } else { "" };
                push_header(out, name, MetricType::Gauge, unit, help, self.open_metrics, false);
            }
            out.extend_from_slice(&series);
            out.push(b' ');
            text::push_value(out, value);
            out.push(b'\n');
        }
    }
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = Vec::with_capacity(CHUNK + (4 << 10));
        while out.len() < CHUNK {
            if let Some(mut cursor) = self.current.take() {
                if !self.advance(&mut cursor, &mut out) {
                    self.current = Some(cursor);
                }
                continue;
            }
            match self.families.next() {
                Some(Subject::Family(family)) => {
                    self.current = Some(Cursor { family, holder: 0, from: 0, headed: false });
                }
                Some(Subject::Own(name)) => self.push_own(name, &mut out),
                None => {
                    self.ended = true;
                    if self.open_metrics {
                        out.extend_from_slice(b"# EOF\n");
                    }
                    break;
                }
            }
        }
        (!out.is_empty()).then(|| Bytes::from(out))
    }
}

fn push_header(
    out: &mut Vec<u8>,
    name: &str,
    metric_type: MetricType,
    unit: &str,
    help: &str,
    open_metrics: bool,
    shadowed: bool,
) {
    let header = text::header(name, metric_type, open_metrics, shadowed);
    let help = if help.is_empty() { "Its plugin does not say what this is." } else { help };
    out.extend_from_slice(b"# HELP ");
    out.extend_from_slice(header.name.as_bytes());
    out.push(b' ');
    text::push_help(out, help, open_metrics);
    out.extend_from_slice(b"\n# TYPE ");
    out.extend_from_slice(header.name.as_bytes());
    out.push(b' ');
    out.extend_from_slice(header.word.as_bytes());
    out.push(b'\n');
    let named_after_unit = header.name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
    if open_metrics && !unit.is_empty() && named_after_unit && !matches!(header.word, "info" | "stateset") {
        out.extend_from_slice(b"# UNIT ");
        out.extend_from_slice(header.name.as_bytes());
        out.push(b' ');
        out.extend_from_slice(unit.as_bytes());
        out.push(b'\n');
    }
}
