//! What comes over sockets: from agents, and from the helper that calls the driver.

use picket_agent_nvml::{Ask, MAX_FRAME, Tell, length};
use picket_proto::columns::{Columns, Decoder, Encoder};
use picket_proto::{definitions, v1};
use prost::Message as _;

/// The frames of the driver's helper, both ways.
pub fn nvml_frames(bytes: &[u8]) {
    if let Some((head, rest)) = bytes.split_first_chunk::<4>()
        && let Ok(wanted) = length(*head)
    {
        assert!(wanted <= MAX_FRAME);
        let frame = rest.get(..wanted).unwrap_or(rest);
        if let Ok(tell) = Tell::decode(frame) {
            let _ = tell.encode();
        }
    }
    if let Ok(ask) = Ask::decode(bytes) {
        let _ = ask.encode();
    }
    if let Ok(tell) = Tell::decode(bytes) {
        let _ = tell.encode();
    }
}

/// Messages of an agent's stream, and what they hold.
pub fn uplink(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    let mut columns = Columns::default();
    let mut rest = bytes;
    while let Some((&size, tail)) = rest.split_first() {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(size) * 16));
        rest = tail;
        let Ok(message) = v1::UplinkMessage::decode(frame) else { continue };
        let Some(message) = message.message else { continue };
        use v1::uplink_message::Message;
        match message {
            Message::Definitions(message) => walk(&message),
            Message::Batch(batch) => {
                for block in &batch.columns {
                    let _ = decoder.decode(block, &mut columns);
                }
            }
            _ => {}
        }
    }
    if let Ok(message) = v1::Definitions::decode(bytes) {
        walk(&message);
    }
    let _ = v1::DownlinkMessage::decode(bytes);
}

fn walk(message: &v1::Definitions) {
    let Ok(reader) = definitions::read(message) else { return };
    let families = reader.families().count();
    let labels: usize = reader.series().map(|series| series.labels.count()).sum();
    assert!(families + labels <= message.encoded_len() * 4 + 16, "{families} families, {labels} labels");
}

/// Blocks of one stream, one after the other, as the column codec reads them. What it reads can be written again.
pub fn columns(bytes: &[u8]) {
    let mut decoder = Decoder::new();
    let mut encoder = Encoder::new();
    let mut again = Decoder::new();
    let mut rest = bytes;
    while let Some((&size, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at(tail.len().min(usize::from(size)));
        rest = tail;
        let mut read = Columns::default();
        if decoder.decode(block, &mut read).is_err() {
            return;
        }
        assert_eq!(read.series.len(), read.values.len());
        let times = (!read.times_ms.is_empty()).then_some(read.times_ms.as_slice());
        let mut written = Vec::new();
        encoder
            .encode(read.timestamp_ms, &read.series, &read.values, times, &mut written)
            .expect("what was read can be written");
        let mut second = Columns::default();
        again.decode(&written, &mut second).expect("what was written can be read");
        assert_eq!(
            (second.timestamp_ms, &second.series, &second.times_ms),
            (read.timestamp_ms, &read.series, &read.times_ms)
        );
        let bits = |c: &Columns| c.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&second), bits(&read));
    }
}
