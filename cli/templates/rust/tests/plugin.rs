use picket_sdk::serde_json::json;
use picket_sdk::testing::Host;
use {{snake}}::Plugin;

#[test]
fn counts_open_files() {
    let mut host = Host::<Plugin>::new();
    host.configure(&json!({ "warn_above": 0.5 })).unwrap();
    host.file("/proc/sys/fs/file-nr", "1100\t100\t10000\n");
    host.collect().unwrap();
    assert_eq!(host.value("{{snake}}_open_files", &[]), Some(1000.0));
    assert_eq!(host.value("{{snake}}_open_files_limit", &[]), Some(10000.0));
    assert!(host.take_events().is_empty());
}

#[test]
fn says_when_they_are_many() {
    let mut host = Host::<Plugin>::new();
    host.file("/proc/sys/fs/file-nr", "9500 0 10000");
    host.collect().unwrap();
    assert_eq!(host.take_events().len(), 1);
}

#[test]
fn what_cannot_be_read_is_left_out() {
    let mut host = Host::<Plugin>::new();
    assert!(host.collect().is_err());
    host.file("/proc/sys/fs/file-nr", "nonsense");
    assert_eq!(host.collect().unwrap_err().reason, "parse");
    assert_eq!(host.value("{{snake}}_open_files", &[]), None);
}
