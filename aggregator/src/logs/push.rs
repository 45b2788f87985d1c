//! The bodies of Loki's push API, read and written: JSON, and snappy-compressed `logproto.PushRequest`.
//!
//! Source: Loki's HTTP API reference and its public `logproto.proto` (`PushRequest`, `StreamAdapter`, `EntryAdapter`).

use std::collections::BTreeMap;
use std::io::Read as _;

use prost::Message as _;
use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};

use super::logql::parse_labels;
use super::telemetry;

/// Lines of one label set, as they were pushed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushedStream {
    pub labels: Vec<(String, String)>,
    /// Unix ns and the line.
    pub entries: Vec<(i64, String)>,
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("Content-Encoding {0:?} not supported")]
    Encoding(String),
    #[error("Content-Type {0:?} not supported; application/json and application/x-protobuf are")]
    ContentType(String),
    #[error("the body is larger than {limit} bytes when unpacked")]
    TooLarge { limit: usize },
    #[error("{0}")]
    Malformed(String),
    #[error("error parsing labels '{labels}' with error: {error}")]
    Labels { labels: String, error: String },
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Protobuf,
}

impl Format {
    /// By the header, as Loki reads it: protobuf where it says nothing.
    pub fn of(content_type: Option<&str>) -> Result<Self, PushError> {
        let kind = content_type.unwrap_or("application/x-protobuf");
        match kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json" => Ok(Self::Json),
            "application/x-protobuf" | "" => Ok(Self::Protobuf),
            _ => Err(PushError::ContentType(kind.to_owned())),
        }
    }
}

/// Takes the compression off: what `Content-Encoding` says, and snappy, which a protobuf body always has.
pub fn unpack(
    body: Vec<u8>,
    encoding: Option<&str>,
    format: Format,
    limit: usize,
) -> Result<Vec<u8>, PushError> {
    let body = match encoding.map(str::trim).unwrap_or_default() {
        "" | "identity" => body,
        "gzip" => {
            let mut out = Vec::new();
            let mut reader = flate2::read::MultiGzDecoder::new(body.as_slice()).take(limit as u64 + 1);
            reader
                .read_to_end(&mut out)
                .map_err(|error| PushError::Malformed(format!("the gzip body is broken: {error}")))?;
            out
        }
        "snappy" if format == Format::Protobuf => body,
        other => return Err(PushError::Encoding(other.to_owned())),
    };
    let body = match format {
        Format::Json => body,
        Format::Protobuf => {
            let malformed = |error: snap::Error| PushError::Malformed(format!("snappy: {error}"));
            let length = snap::raw::decompress_len(&body).map_err(malformed)?;
            if length > limit {
                return Err(PushError::TooLarge { limit });
            }
            snap::raw::Decoder::new().decompress_vec(&body).map_err(malformed)?
        }
    };
    if body.len() > limit { Err(PushError::TooLarge { limit }) } else { Ok(body) }
}

/// Reads an unpacked body.
pub fn decode(body: &[u8], format: Format) -> Result<Vec<PushedStream>, PushError> {
    match format {
        Format::Json => decode_json(body),
        Format::Protobuf => decode_protobuf(body),
    }
}

#[derive(Deserialize)]
struct JsonRequest {
    streams: Vec<JsonStream>,
}

#[derive(Deserialize)]
struct JsonStream {
    stream: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<JsonEntry>,
}

/// `["<unix ns>", "<line>"]`, and structured metadata behind it.
struct JsonEntry {
    time: i64,
    line: String,
    metadata: u64,
}

impl<'de> Deserialize<'de> for JsonEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entry;
        impl<'de> Visitor<'de> for Entry {
            type Value = JsonEntry;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("[\"<unix ns>\", \"<line>\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonEntry, A::Error> {
                let missing = |at| serde::de::Error::invalid_length(at, &"a time and a line");
                let time: std::borrow::Cow<'de, str> = list.next_element()?.ok_or_else(|| missing(0))?;
                let time = time.parse().map_err(|_| {
                    serde::de::Error::custom(format!("the time {time:?} is no number of Unix ns"))
                })?;
                let line: String = list.next_element()?.ok_or_else(|| missing(1))?;
                let metadata =
                    list.next_element::<BTreeMap<String, IgnoredAny>>()?.map_or(0, |m| m.len() as u64);
                Ok(JsonEntry { time, line, metadata })
            }
        }
        deserializer.deserialize_seq(Entry)
    }
}

fn decode_json(body: &[u8]) -> Result<Vec<PushedStream>, PushError> {
    let request: JsonRequest =
        serde_json::from_slice(body).map_err(|error| PushError::Malformed(error.to_string()))?;
    let mut metadata = 0;
    let streams = request.streams.into_iter().map(|stream| {
        let entries = stream.values.into_iter().map(|entry| {
            metadata += entry.metadata;
            (entry.time, entry.line)
        });
        PushedStream { labels: stream.stream.into_iter().collect(), entries: entries.collect() }
    });
    let streams = streams.collect();
    count_metadata(metadata);
    Ok(streams)
}

fn decode_protobuf(body: &[u8]) -> Result<Vec<PushedStream>, PushError> {
    let request =
        proto::PushRequest::decode(body).map_err(|error| PushError::Malformed(error.to_string()))?;
    let mut metadata = 0;
    let mut streams = Vec::with_capacity(request.streams.len());
    for stream in request.streams {
        let labels = parse_labels(&stream.labels)
            .map_err(|error| PushError::Labels { labels: stream.labels.clone(), error: error.to_string() })?;
        let entries = stream.entries.into_iter().map(|entry| {
            metadata += entry.structured_metadata.len() as u64;
            let time = entry.timestamp.unwrap_or_default();
            let ns = time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos));
            (ns, entry.line)
        });
        streams.push(PushedStream { labels, entries: entries.collect() });
    }
    count_metadata(metadata);
    Ok(streams)
}

fn count_metadata(pairs: u64) {
    if pairs > 0 {
        metrics::counter!(telemetry::METADATA).increment(pairs);
    }
}

/// Writes a body: snappy-compressed protobuf.
pub fn encode<'a>(streams: impl Iterator<Item = (String, &'a [(i64, String)])>) -> Vec<u8> {
    let entry = |(time, line): &(i64, String)| proto::Entry {
        timestamp: Some(proto::Timestamp {
            seconds: time.div_euclid(1_000_000_000),
            nanos: time.rem_euclid(1_000_000_000) as i32,
        }),
        line: line.clone(),
        structured_metadata: Vec::new(),
    };
    let streams = streams
        .map(|(labels, lines)| proto::Stream { labels, entries: lines.iter().map(entry).collect(), hash: 0 })
        .collect();
    let plain = proto::PushRequest { streams }.encode_to_vec();
    // Fails only for more than 4 GiB.
    snap::raw::Encoder::new().compress_vec(&plain).unwrap_or_default()
}

/// The messages, as the public definition numbers their fields.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PushRequest {
        #[prost(message, repeated, tag = "1")]
        pub streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Stream {
        #[prost(string, tag = "1")]
        pub labels: String,
        #[prost(message, repeated, tag = "2")]
        pub entries: Vec<Entry>,
        #[prost(uint64, tag = "3")]
        pub hash: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Entry {
        #[prost(message, optional, tag = "1")]
        pub timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        pub line: String,
        #[prost(message, repeated, tag = "3")]
        pub structured_metadata: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Pair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Protobuf by hand: a field with a length, a number.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        out.extend(varint(bytes.len() as u64));
        out.extend_from_slice(bytes);
        out
    }

    fn number(field: u8, value: u64) -> Vec<u8> {
        let mut out = vec![field << 3];
        out.extend(varint(value));
        out
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    /// What promtail sends: labels as text, seconds and nanoseconds, a hash, metadata.
    fn shipped() -> Vec<u8> {
        let time = [number(1, 1_700_000_000), number(2, 123_456_789)].concat();
        let pair = [field(1, b"trace_id"), field(2, b"abc")].concat();
        let first = [field(1, &time), field(2, b"level=info msg=\"ready\""), field(3, &pair)].concat();
        let second = [field(1, &number(1, 1_700_000_001)), field(2, "zwölf".as_bytes())].concat();
        let labels = br#"{filename="/var/log/a.log", job="varlogs"}"#;
        let stream = [field(1, labels), field(2, &first), field(2, &second), number(3, 0xdead_beef)].concat();
        field(1, &stream)
    }

    fn expected() -> Vec<PushedStream> {
        let text = str::to_owned;
        vec![PushedStream {
            labels: vec![(text("filename"), text("/var/log/a.log")), (text("job"), text("varlogs"))],
            entries: vec![
                (1_700_000_000_123_456_789, text("level=info msg=\"ready\"")),
                (1_700_000_001_000_000_000, text("zwölf")),
            ],
        }]
    }

    #[test]
    fn a_shippers_protobuf_body_is_read() {
        let body = snap::raw::Encoder::new().compress_vec(&shipped()).unwrap();
        for encoding in [None, Some("snappy"), Some("")] {
            let plain = unpack(body.clone(), encoding, Format::of(None).unwrap(), 1 << 20).unwrap();
            assert_eq!(decode(&plain, Format::Protobuf).unwrap(), expected());
        }
    }

    #[test]
    fn a_json_body_is_read_plain_and_gzipped() {
        let json = br#"{"streams":[{"stream":{"job":"varlogs","filename":"/var/log/a.log"},"values":[
            ["1700000000123456789","level=info msg=\"ready\"",{"trace_id":"abc"}],
            ["1700000001000000000","zw\u00f6lf"]]}]}"#;
        assert_eq!(decode(json, Format::Json).unwrap(), expected());
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut packed, json).unwrap();
        let plain = unpack(packed.finish().unwrap(), Some("gzip"), Format::Json, 1 << 20).unwrap();
        assert_eq!(decode(&plain, Format::Json).unwrap(), expected());
    }

    #[test]
    fn what_is_written_reads_back() {
        let lines = expected();
        let labels = r#"{filename="/var/log/a.log", job="varlogs"}"#.to_owned();
        let body = encode(lines.iter().map(|s| (labels.clone(), s.entries.as_slice())));
        let plain = unpack(body, None, Format::Protobuf, 1 << 20).unwrap();
        assert_eq!(decode(&plain, Format::Protobuf).unwrap(), lines);
    }

    #[test]
    fn what_is_refused() {
        let bomb = {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            std::io::Write::write_all(&mut packed, &vec![b' '; 1 << 20]).unwrap();
            packed.finish().unwrap()
        };
        assert!(matches!(unpack(bomb, Some("gzip"), Format::Json, 1 << 16), Err(PushError::TooLarge { .. })));
        // A snappy head that says 4 GiB.
        let huge = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(unpack(huge, None, Format::Protobuf, 1 << 20), Err(PushError::TooLarge { .. })));
        assert!(matches!(unpack(vec![], Some("br"), Format::Json, 9), Err(PushError::Encoding(_))));
        assert!(matches!(Format::of(Some("text/plain")), Err(PushError::ContentType(_))));
        for json in [
            r#"{}"#,
            r#"{"streams":[{"stream":{"a":1},"values":[]}]}"#,
            r#"{"streams":[{"stream":{"a":"b"},"values":[["x","l"]]}]}"#,
            r#"{"streams":[{"stream":{"a":"b"},"values":[["1"]]}]}"#,
        ] {
            assert!(matches!(decode(json.as_bytes(), Format::Json), Err(PushError::Malformed(_))), "{json}");
        }
        let stream = field(1, &field(1, br#"{a=~"b"}"#));
        assert!(matches!(decode(&stream, Format::Protobuf), Err(PushError::Labels { .. })));
    }

    proptest! {
        #[test]
        fn foreign_bodies_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for format in [Format::Json, Format::Protobuf] {
                let _ = decode(&body, format);
                for encoding in [None, Some("gzip"), Some("snappy")] {
                    let _ = unpack(body.clone(), encoding, format, 1 << 16);
                }
            }
        }
    }
}
