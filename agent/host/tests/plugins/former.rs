//! A plugin of the contract's version before: the shim gives it what the current one has, in its own words.

use picket_agent_host::{ControlError, Phase, PluginSpec};
use serde_json::json;

use crate::support::{Fixture, Kept, component, spec, with_manifest};

const MANIFEST: &str = r#"
manifest = 1
id = "former"
version = "1.0.0"
world = "picket:source/controllable-source-plugin@0.1.0"
license = "Apache-2.0"
description = "Was made before"
"#;

fn former(f: &Fixture, settings: serde_json::Value) -> PluginSpec {
    let file = f.file("former.wasm", &with_manifest(component("former"), MANIFEST));
    PluginSpec { grants: Vec::new(), ..spec("former", file, settings) }
}

#[tokio::test]
async fn a_plugin_of_the_version_before_is_served_in_its_own_words() {
    let f = Fixture::new();
    let mut plugin = f.load(former(&f, json!({}))).await;
    let info = plugin.info();
    assert_eq!(info.world, "picket:source/controllable-source-plugin@0.1.0");
    assert!(info.controllable);

    let mut kept = Kept::default();
    plugin.collect(&mut kept).await.unwrap();
    assert_eq!(kept.value("former_value{n=a}"), Some(1.0));
    assert_eq!(kept.value("former_value{n=b}"), Some(2.0));
    assert_eq!((kept.timed, kept.retired.as_slice()), (1, &["former_declared{n=c}".to_owned()][..]));
    assert_eq!(kept.events.len(), 1);
    assert_eq!(kept.events[0].message, "from the version before");
    let said = |reason: &str| {
        kept.failures.iter().find(|(r, _)| r == reason).map(|(_, m)| m.as_str()).unwrap_or_default()
    };
    assert!(said("former-quota").contains("limits.series"), "{:?}", kept.failures);
    assert_eq!(said("former-unknown"), "as it should", "{:?}", kept.failures);
    assert!(said("former-invalid").contains("not a name"), "{:?}", kept.failures);
    assert_eq!(said("former-unexpected"), "");

    assert_eq!(plugin.control_schema().await.unwrap(), r#"{"type":"object"}"#);
    assert_eq!(plugin.control_set(r#"{"factor":3}"#).await.unwrap(), r#"{"factor":3}"#);
    let refused = plugin.control_set("{}").await.unwrap_err();
    assert!(matches!(&refused, ControlError::Refused(lines) if lines == &["factor must be a number"]));
    let mut kept = Kept::default();
    plugin.collect(&mut kept).await.unwrap();
    assert_eq!((kept.value("former_value{n=a}"), kept.value("former_value{n=b}")), (Some(3.0), Some(6.0)));
    assert_eq!(plugin.control_get().await.unwrap(), r#"{"factor":3}"#);
}

#[tokio::test]
async fn what_it_refuses_is_told_as_of_any_other() {
    let f = Fixture::new();
    let e = f.refused(former(&f, json!({ "refuse": true }))).await;
    assert_eq!((e.code, e.phase), ("PKT-0068", Phase::Configure), "{e}");
    assert!(e.to_string().contains("settings: as it was told"), "{e}");
}
