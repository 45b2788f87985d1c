//! What is taken out of an engine's JSON before a plugin sees it.
//!
//! Environment variables are where containers keep their secrets, so all of them go but those that the grant names. What
//! an argument such as `--api-key` is given goes too, the logging driver's options (tokens of log services), and whole
//! command lines in one string, in which arguments can't be told apart.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::secrets::clean_arguments;

/// Lists of arguments.
const ARGUMENTS: [&str; 5] = ["Args", "Cmd", "Entrypoint", "Test", "Command"];

/// An entry of `GET /containers/json`.
pub(super) fn listed(mut container: Value, socket: &str) -> Value {
    clean(&mut container, &BTreeSet::new());
    if let Value::Object(map) = &mut container {
        map.insert("PicketSocket".to_owned(), Value::String(socket.to_owned()));
    }
    container
}

/// The answer of `GET /containers/{id}/json`, with the variables that the grant names.
pub(super) fn inspected(mut container: Value, visible: &BTreeSet<String>) -> Value {
    clean(&mut container, visible);
    container
}

fn clean(value: &mut Value, visible: &BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            map.remove("CreateCommand");
            // A string here is a whole command line.
            if map.get("Command").is_some_and(Value::is_string) {
                map.remove("Command");
            }
            for (key, inner) in map.iter_mut() {
                match (key.as_str(), &mut *inner) {
                    ("Env", _) => environment(inner, visible),
                    ("LogConfig", Value::Object(log)) => {
                        log.remove("Config");
                    }
                    ("Labels", _) => {}
                    (name, Value::Array(list)) if ARGUMENTS.contains(&name) => clean_arguments(list),
                    _ => clean(inner, visible),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| clean(inner, visible)),
        _ => {}
    }
}

fn environment(value: &mut Value, visible: &BTreeSet<String>) {
    match value {
        Value::Array(list) => list.retain(|entry| {
            let name = entry.as_str().and_then(|e| e.split_once('=')).map(|(name, _)| name);
            name.is_some_and(|name| visible.contains(name))
        }),
        Value::Object(map) => map.retain(|name, _| visible.contains(name)),
        other => *other = Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secrets::REDACTED;
    use serde_json::json;

    #[test]
    fn secrets_are_taken_out() {
        let container = json!({
            "Args": ["serve", "--api-key", "s3cret", "--port", "8000", "--hf-token=s3cret", "--tokenizer", "kept",
                "--max-num-batched-tokens", "4096", "--key", "--port", "1"],
            "Config": {
                "Env": ["HF_TOKEN=s3cret", "NVIDIA_VISIBLE_DEVICES=0,1", "NVIDIA_VISIBLE_DEVICES_X=s3cret", "s3cret"],
                "Cmd": ["/bin/sh", "-c", "PASSWORD=s3cret exec vllm serve", "vllm serve model"],
                "CreateCommand": ["podman", "run", "-e", "X=s3cret"],
                "Healthcheck": { "Test": ["CMD", "curl", "--secret", "s3cret"] },
                "Labels": { "vllm": "true", "Env": "kept" },
            },
            "HostConfig": { "LogConfig": { "Type": "splunk", "Config": { "splunk-token": "s3cret" } } },
            "Odd": { "Env": { "A": "s3cret", "NVIDIA_VISIBLE_DEVICES": "2" } },
        });
        let visible = BTreeSet::from(["NVIDIA_VISIBLE_DEVICES".to_owned()]);
        let clean = inspected(container.clone(), &visible);
        assert!(!clean.to_string().contains("s3cret"), "{clean}");
        assert_eq!(clean["Config"]["Env"], json!(["NVIDIA_VISIBLE_DEVICES=0,1"]));
        assert_eq!(clean["Odd"]["Env"], json!({ "NVIDIA_VISIBLE_DEVICES": "2" }));
        assert_eq!(clean["Config"]["Labels"], json!({ "vllm": "true", "Env": "kept" }));
        assert_eq!(
            clean["Args"],
            json!([
                "serve",
                "--api-key",
                REDACTED,
                "--port",
                "8000",
                format!("--hf-token={REDACTED}"),
                "--tokenizer",
                "kept",
                "--max-num-batched-tokens",
                "4096",
                "--key",
                "--port",
                "1"
            ])
        );
        assert_eq!(clean["Config"]["Cmd"], json!(["/bin/sh", "-c", REDACTED, "vllm serve model"]));
        assert_eq!(clean["HostConfig"]["LogConfig"], json!({ "Type": "splunk" }));
        let entry =
            listed(json!({ "Id": "x", "Command": "vllm --api-key s3cret", "PicketSocket": "lie" }), "/s");
        assert_eq!(entry, json!({ "Id": "x", "PicketSocket": "/s" }));
    }

    #[test]
    fn a_real_answer_keeps_all_else() {
        let real: Value = serde_json::from_slice(include_bytes!("testdata/inspect.json")).unwrap();
        let mut expected = real.clone();
        expected["HostConfig"]["LogConfig"].as_object_mut().unwrap().remove("Config");
        assert_eq!(inspected(real, &BTreeSet::new()), expected);
    }
}
