//! Writes the seeds that are no text, with the code that writes such bytes in earnest: `cargo run -p inputs --example seeds`.

use std::error::Error;
use std::fs;
use std::time::Duration;

use picket_agent_nvml::{DeviceText, Tell};
use picket_agent_spool::{Options, Spool};
use picket_artifact::{Digest, Envelope, PrivateKey, Statement};
use picket_proto::columns::Encoder;
use picket_proto::definitions::Builder;
use picket_proto::model::{Family, MetricType, Part};
use picket_proto::v1;
use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let mut encoder = Encoder::new();
    let mut blocks = Vec::new();
    for round in 0..4i64 {
        let mut block = Vec::new();
        let values = [round as f64, 0.25 * round as f64, 1e9 + round as f64];
        let times = [1_700_000_000_000 + round, 1_700_000_000_001, 1_700_000_000_002];
        let timed = (round == 3).then_some(&times[..]);
        encoder.encode(1_700_000_000_000 + 15_000 * round, &[0, 1, 7], &values, timed, &mut block)?;
        blocks.push(block);
    }
    let mut columns = Vec::new();
    for block in &blocks {
        columns.push(u8::try_from(block.len())?);
        columns.extend(block);
    }
    write("columns", "rounds", &columns)?;

    let mut writer = Builder::new();
    let family = Family::new("node_load1", MetricType::Gauge, "", "Load.")?;
    writer.family(0, "node", &family);
    writer.series(0, 0, Part::Value, [("cpu", "0"), ("mode", "idle")].into_iter());
    writer.series(1, 0, Part::Value, [("cpu", "1")].into_iter());
    let definitions = writer.finish();
    write("uplink", "definitions", &definitions.encode_to_vec())?;
    use v1::uplink_message::Message;
    let columns = blocks.into_iter().map(Into::into).collect();
    let batch = v1::Batch { columns, ..v1::Batch::default() };
    let mut stream = Vec::new();
    for message in [Message::Definitions(definitions), Message::Batch(batch)] {
        let mut frame = v1::UplinkMessage { message: Some(message) }.encode_to_vec();
        // A frame's length is said in sixteens: what is too much is an unknown field.
        frame.resize(frame.len().next_multiple_of(16), 0x08);
        stream.push(u8::try_from(frame.len() / 16)?);
        stream.extend(frame);
    }
    write("uplink", "stream", &stream)?;

    let folder = tempfile::tempdir()?;
    let options = Options {
        dir: folder.path().to_owned(),
        max_bytes: 1 << 20,
        max_age: Duration::from_secs(3600),
        segment_bytes: 64 << 10,
        queue_bytes: 1 << 20,
    };
    let spool = Spool::open(options, 7)?;
    for record in [&b"first"[..], &[7; 300], b"third"] {
        spool.append(record, || b"header".to_vec())?;
    }
    spool.close()?;
    drop(spool);
    for entry in fs::read_dir(folder.path())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "spool") {
            write("spool", "three", &fs::read(path)?)?;
        }
    }

    #[cfg(feature = "daemons")]
    for (name, frames) in picket_agent_host::trial::reports() {
        write("worker_frames", name, &frames)?;
    }
    write("component", "empty", b"\0asm\x0d\0\x01\0")?;

    let devices = vec![DeviceText { gpu: "GPU-1".to_owned(), json: "{\"index\":0}".to_owned() }];
    write("nvml_frames", "snapshot", &Tell::Snapshot { system: "{}".to_owned(), devices }.encode())?;

    let key = PrivateKey::generate()?;
    let digest = Digest::of(b"\0asm\x0d\0\x01\0");
    let mut envelope = Envelope::new(Statement { digest, id: "one".to_owned(), version: "1".to_owned() });
    envelope.sign(&key);
    write("signature", "envelope", envelope.to_json().as_bytes())
}

fn write(input: &str, name: &str, bytes: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = inputs::seeds(input);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}
