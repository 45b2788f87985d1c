//! What is gathered on this machine, for configurations that are good, broken and absent.

use std::path::PathBuf;

use super::*;

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let text = format!(
            "state_dir = '{path}/state'\ncache_dir = '{path}/cache'\nplugin_dir = '{path}/plugins'\n\
             [http]\nlisten = '127.0.0.1:1'\n{config}"
        );
        std::fs::create_dir(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join("agent.toml"), text).unwrap();
        Self { dir }
    }

    async fn bundle(&self, anonymous: bool) -> Bundle {
        let file = self.dir.path().join("agent.toml");
        let sources = Sources { file, environment: Vec::new() };
        Bundle::gather(Options { sources, anonymous, all_metrics: false }).await
    }
}

fn entry<'a>(bundle: &'a Bundle, name: &str) -> &'a Entry {
    let found = bundle.entries.iter().find(|entry| entry.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {}", bundle.table()))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_agent_the_list_says_so() {
    let secret = "a value that is nobody's business";
    let node = Node::new(&format!(
        "[plugins.a]\nfile = 'a.wasm'\n[plugins.a.settings]\napi_key = \"{secret}\"\nname = \"kept\"\n\
         [[plugins.a.grants]]\ncapability = 'http'\n\
         urls = [{{ host = 'h.example', secret = {{ name = 'api', file = '/etc/picket/no-such-key' }} }}]\n"
    ));
    let bundle = node.bundle(false).await;
    for missing in ["api/readyz.json", "api/metrics.txt", "processes/picket-agent.txt", "certificates.txt"] {
        assert!(entry(&bundle, missing).missing.is_some(), "{}", bundle.table());
    }
    let effective = &entry(&bundle, "config/effective.toml").content;
    assert!(effective.contains("name = \"kept\"") && effective.contains("no-such-key"), "{effective}");
    assert!(entry(&bundle, "config/effective.toml").redacted > 0);
    for there in
        ["version.txt", "system.txt", "config/check.txt", "config/detected.toml", "plugins/files.txt"]
    {
        assert!(entry(&bundle, there).bytes > 0, "{}", bundle.table());
    }
    assert!(bundle.entries.iter().all(|entry| !entry.content.contains(secret)));
    assert!(!bundle.table().contains(secret));
    assert!(bundle.name.starts_with("picket-support-"), "{}", bundle.name);
    assert!(!bundle.pack().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_what_is_reported() {
    let node = Node::new("[spool]\nmax_sise = '1GiB'\npassword = 'hush-hush'\n");
    std::fs::create_dir(node.dir.path().join("conf.d")).unwrap();
    std::fs::write(node.dir.path().join("conf.d/50-x.toml"), "[log]\nlevel = 'hush-hush'\n").unwrap();
    let bundle = node.bundle(false).await;
    assert!(entry(&bundle, "config/error.txt").content.contains("max_sise"), "{}", bundle.table());
    assert!(entry(&bundle, "config/0-agent.toml").content.contains("max_sise"));
    assert!(bundle.entries.iter().all(|entry| !entry.content.contains("hush-hush")));

    let node = Node::new("what is this = [\npassword = \"hush-hush\n");
    let bundle = node.bundle(false).await;
    let why = entry(&bundle, "config/0-agent.toml").missing.clone().unwrap();
    assert!(why.contains("no TOML"), "{why}");
    assert!(bundle.entries.iter().all(|entry| !entry.content.contains("hush-hush")));

    let nowhere = Sources { file: PathBuf::from("/nowhere/agent.toml"), environment: Vec::new() };
    let options = Options { sources: nowhere, anonymous: false, all_metrics: false };
    let bundle = Bundle::gather(options).await;
    assert!(entry(&bundle, "config/error.txt").content.contains("/nowhere/agent.toml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous() {
    let node = Node::new(
        "[uplink]\naggregator = 'metrics.corp.example:9470'\n[node]\nlabels = { peer = '10.9.8.7' }\n",
    );
    let bundle = node.bundle(true).await;
    let own = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let effective = &entry(&bundle, "config/effective.toml").content;
    assert!(!effective.contains("metrics.corp") && !effective.contains("10.9.8.7"), "{effective}");
    assert!(effective.contains("aggregator-") && effective.contains("ip-1"), "{effective}");
    if own != "localhost" {
        assert!(bundle.name.starts_with("picket-support-node-1-"), "{}", bundle.name);
        let system = &entry(&bundle, "system.txt").content;
        assert!(system.contains("Linux node-1 "), "{system}");
    }
}

#[test]
fn times_in_names() {
    assert_eq!(compact(0), "19700101T000000Z");
}
