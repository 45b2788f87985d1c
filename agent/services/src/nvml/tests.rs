//! What needs no helper. With one, and the fake library: `tests/fake-nvml/tests`.

use picket_agent_nvml::{DeviceText, Tell, XidText};

use super::*;
use crate::grants::Granted;

fn devices(uuids: &[&str]) -> Devices {
    let scope = Scope { devices: uuids.iter().map(|u| (*u).to_owned()).collect() };
    Scope::compile(&[&scope]).unwrap()
}

fn desk(options: Options) -> (Desk, mpsc::Sender<desk::Ask>) {
    let (sender, asks) = mpsc::channel(4);
    (Desk::new(options, Wakes::default(), asks), sender)
}

fn device(gpu: &str, json: &str) -> DeviceText {
    DeviceText { gpu: gpu.to_owned(), json: json.to_owned() }
}

fn xid(uuid: &str, xid: u64) -> Tell {
    let (gpu_instance_id, compute_instance_id) = (Some(3), None);
    Tell::Xid(XidText { uuid: uuid.to_owned(), xid, gpu_instance_id, compute_instance_id })
}

#[tokio::test]
async fn a_document_holds_what_is_granted_and_nothing_else() {
    let (mut desk, _asks) = desk(Options::default());
    desk.told(Ok(xid("GPU-a", 79)));
    desk.told(Ok(xid("GPU-b", 31)));
    desk.told(Ok(Tell::NoEvents("a \"reason\"".to_owned())));
    desk.told(Ok(Tell::Snapshot {
        system: "\"driver_version\":\"1\",\"unreadable\":{}".to_owned(),
        devices: vec![
            device("GPU-a", r#"{"uuid":"GPU-a"}"#),
            device("GPU-a", r#"{"uuid":"MIG-1"}"#),
            device("GPU-b", r#"{"uuid":"GPU-b","processes":[{"pid":1}]}"#),
            device("", r#"{"uuid":"","lost":"gpu-lost"}"#),
        ],
    }));
    let taken = desk.last().unwrap();
    let read = |granted: &[&str]| -> serde_json::Value {
        serde_json::from_str(&taken.document(&devices(granted))).unwrap()
    };
    let uuids = |document: &serde_json::Value, list: &str| -> Vec<String> {
        let list = document[list].as_array().unwrap();
        list.iter().map(|item| item["uuid"].as_str().unwrap().to_owned()).collect()
    };
    let all = read(&["all"]);
    assert_eq!(uuids(&all, "devices"), ["GPU-a", "MIG-1", "GPU-b", ""]);
    assert_eq!(uuids(&all, "events"), ["GPU-a", "GPU-b"]);
    assert_eq!(all["driver_version"], "1");
    assert_eq!(all["events_error"], "a \"reason\"");
    assert_eq!(
        (all["events"][0]["sequence"].as_u64(), all["events"][1]["xid"].as_u64()),
        (Some(1), Some(31))
    );
    assert_eq!(all["events"][0]["gpu_instance_id"], 3);
    let one = read(&["GPU-a"]);
    assert_eq!(
        (uuids(&one, "devices"), uuids(&one, "events")),
        (vec!["GPU-a".to_owned(), "MIG-1".to_owned()], vec!["GPU-a".to_owned()])
    );
    assert!(!one.to_string().contains("GPU-b"), "{one}");
    let none = read(&["GPU-c"]);
    assert_eq!((uuids(&none, "devices").len(), uuids(&none, "events").len()), (0, 0));
}

#[tokio::test]
async fn events_are_bounded_and_keep_their_numbers() {
    let (mut desk, _asks) = desk(Options::default());
    for number in 0..3_000 {
        desk.told(Ok(xid("GPU-a", number)));
    }
    desk.told(Ok(Tell::Snapshot { system: "\"unreadable\":{}".to_owned(), devices: Vec::new() }));
    let document = desk.last().unwrap().document(&devices(&["all"]));
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), 1024);
    assert_eq!(events[0]["sequence"], 3_000 - 1024 + 1);
    assert_eq!(events[1023]["xid"], 2_999);
}

#[tokio::test]
async fn helpers_that_do_not_die_are_not_piled_up() {
    let options = Options { back_off: Duration::ZERO, back_off_max: Duration::ZERO, ..missing() };
    let (mut desk, _asks) = desk(options);
    desk.told(Ok(Tell::Hung { call: "nvmlX".to_owned(), device: "GPU 1 (GPU-a)".to_owned(), for_ms: 2_000 }));
    let hangs =
        |desk: &mut Desk| matches!(desk.start(), Err(Error::Hung(why)) if why.contains("nvmlX of GPU 1"));
    // The time has come and nothing is left of the last one: it is tried, and the program isn't there.
    assert!(matches!(desk.start(), Err(Error::Other(_))));
    desk.told(Ok(Tell::Hung { call: "nvmlX".to_owned(), device: "GPU 1 (GPU-a)".to_owned(), for_ms: 2_000 }));
    desk.abandon(2);
    assert!(hangs(&mut desk) && hangs(&mut desk));
    desk.abandon(-1);
    assert!(matches!(desk.start(), Err(Error::Other(_))));
}

fn missing() -> Options {
    Options { helper: "/nowhere/picket-nvml".into(), ..Options::default() }
}

#[tokio::test]
async fn a_missing_helper_says_where_it_belongs_and_is_no_error_loop() {
    let nvml = Nvml::new(missing(), Wakes::default());
    let plugin = PluginId::new("gpu").unwrap();
    for _ in 0..3 {
        let asked = nvml.call(&plugin, &devices(&["all"]), Request::Snapshot { max_age: 0 }).await;
        let error = asked.unwrap_err().to_string();
        assert!(error.contains("/nowhere/picket-nvml") && error.contains("beside picket-agent"), "{error}");
    }
}
