//! What the agent and the aggregator read themselves.

use std::cell::RefCell;
use std::path::Path;

use picket_aggregator::logs::{logql, push};
use picket_proto::model::Labels;

/// A component, as far as it comes: looked into, and with the compiler built in compiled, linked and instantiated within
/// its limits.
pub fn component(bytes: &[u8]) {
    let looked = picket_agent_host::trial::inspected(bytes);
    #[cfg(feature = "compile")]
    if looked.is_ok() {
        picket_agent_host::trial::instantiated(bytes);
    }
    let _ = looked;
}

/// What a worker that was taken over may send: frames of any kind with any body, answered as the agent does.
pub fn worker_frames(bytes: &[u8]) {
    picket_agent_host::trial::answered(bytes);
}

/// The agent's configuration.
pub fn agent_config(bytes: &[u8]) {
    with_file("agent.toml", bytes, |file| {
        let sources = picket_agent::config::Sources { file: file.to_owned(), environment: Vec::new() };
        if let Err(error) = picket_agent::config::load(&sources) {
            assert!(!error.to_string().is_empty());
        }
    });
}

/// The aggregator's.
pub fn aggregator_config(bytes: &[u8]) {
    with_file("aggregator.toml", bytes, |file| {
        if let Err(error) = picket_aggregator::config::Config::load(Some(file)) {
            assert!(!error.to_string().is_empty());
        }
    });
}

/// A query; where it is one, on lines that hold its own text.
pub fn logql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = logql::parse_selector(text);
    let _ = logql::parse_labels(text);
    let _ = logql::parse(text);
    let Ok(query) = logql::parse_log(text) else { return };
    let labels = Labels::new([("job".to_owned(), "a".to_owned())]).expect("good labels");
    let pipeline = logql::pipeline::Pipeline::new(&query.stages);
    let mut extracted = logql::pipeline::Extracted::default();
    for line in [text, r#"{"a":{"b":[1,"c"]},"d":1e9}"#, r#"level=info msg="a b" took=1h3m size=10KB x="#] {
        if pipeline.run(&labels, line, &mut extracted) {
            let _ = extracted.labels(&labels);
        }
    }
}

/// Log lines that are pushed to the aggregator, as JSON or as protobuf.
pub fn log_push(bytes: &[u8]) {
    for kind in [Some("application/json"), Some("application/x-protobuf")] {
        if let Ok(format) = push::Format::of(kind) {
            let _ = push::decode(bytes, format);
        }
    }
}

fn with_file(name: &str, bytes: &[u8], then: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
        });
        let file = folder.path().join(name);
        std::fs::write(&file, bytes).expect("written");
        then(&file);
    });
}
