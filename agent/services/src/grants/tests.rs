use super::*;

fn id() -> PluginId {
    PluginId::new("node").unwrap()
}

fn files(read: &[&str]) -> Scope {
    Scope::Files { read: read.iter().map(|s| (*s).to_owned()).collect(), filesystems: Vec::new() }
}

fn need(scope: Scope) -> Need {
    Need { scope, why: "to read it".to_owned() }
}

#[test]
fn nothing_is_granted_by_default() {
    for capability in Capability::ALL {
        let refusal = admit(&id(), None, &BTreeSet::from([capability]), &[]).unwrap_err();
        assert!(refusal.to_string().contains("[[plugins.node.grants]]"), "{refusal}");
        assert!(refusal.to_string().contains(&format!("capability = \"{capability}\"")), "{refusal}");
    }
    assert_eq!(admit(&id(), None, &BTreeSet::new(), &[]).unwrap().capabilities().count(), 0);
}

#[test]
fn a_refusal_holds_the_lines_that_grant_it() {
    let needs = [
        need(Scope::Files {
            read: vec!["/proc/stat".to_owned(), "/sys/\"x".to_owned()],
            filesystems: vec!["/**".to_owned()],
        }),
        need(Scope::System {}),
    ];
    let imports = BTreeSet::from([Capability::Files, Capability::System]);
    let mut grants = vec![files(&["/proc/*"])];
    // Adding what each refusal says leads to admission.
    for _ in 0..4 {
        match admit(&id(), Some(&needs), &imports, &grants) {
            Ok(admission) => {
                assert_eq!(admission.capabilities().count(), 2);
                return;
            }
            Err(Refusal::NotGranted { lines, .. }) => {
                let config: serde_json::Value = toml::from_str(&lines).unwrap();
                let added: Vec<Scope> =
                    serde_json::from_value(config["plugins"]["node"]["grants"].clone()).unwrap();
                grants.extend(added);
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the lines did not lead to admission: {grants:?}");
}

#[test]
fn only_what_is_imported_is_handed_out() {
    let grants = [Scope::System {}, Scope::Store { bytes: 10 }];
    let admission = admit(&id(), None, &BTreeSet::from([Capability::System]), &grants).unwrap();
    assert!(admission.grant(Capability::System).is_some());
    assert!(admission.grant(Capability::Store).is_none());
}

#[test]
fn an_import_that_the_manifest_does_not_name_is_refused() {
    let refusal =
        admit(&id(), Some(&[]), &BTreeSet::from([Capability::Http]), &[Scope::System {}]).unwrap_err();
    assert!(matches!(refusal, Refusal::NotNamed { capability: Capability::Http }));
}

#[test]
fn unknown_words_are_errors() {
    for bad in [
        r#"{"capability":"files","reads":[]}"#,
        r#"{"capability":"shell"}"#,
        r#"{"capability":"system","x":1}"#,
        r#"{"capability":"http","urls":[{"host":"a","prot":1}]}"#,
        r#"{"read":[]}"#,
    ] {
        assert!(serde_json::from_str::<Scope>(bad).is_err(), "{bad}");
    }
    assert!(serde_json::from_str::<Need>(r#"{"capability":"system"}"#).is_err());
    assert!(serde_json::from_str::<Need>(r#"{"capability":"system","why":"so"}"#).is_ok());
}

#[test]
fn malformed_scopes_name_their_place() {
    let refusal = admit(&id(), None, &BTreeSet::new(), &[files(&["relative"])]).unwrap_err();
    assert!(refusal.to_string().contains("operator's grants"), "{refusal}");
    let needs = [need(files(&["/a/../b"]))];
    let refusal = admit(&id(), Some(&needs), &BTreeSet::new(), &[]).unwrap_err();
    assert!(refusal.to_string().contains("manifest's needs"), "{refusal}");
}

#[test]
fn a_grant_of_no_url_lets_a_plugin_load_that_can_do_without() {
    let nothing = Scope::Http { urls: Vec::new() };
    let imports = BTreeSet::from([Capability::Http]);
    let needs = [need(nothing.clone())];
    assert!(matches!(admit(&id(), Some(&needs), &imports, &[]), Err(Refusal::NotGranted { .. })));
    let admission = admit(&id(), Some(&needs), &imports, &[nothing]).unwrap();
    assert!(admission.grant(Capability::Http).is_some());
}
