use std::path::Path;

use super::*;

/// Files of a configuration folder, and the environment.
fn load_from(files: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    load(&Sources {
        file: dir.path().join("agent.toml"),
        environment: environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    })
}

/// Each of `expected` must stand in a line of its own among the mistakes, in that order.
fn check_refused(files: &[(&str, &str)], environment: &[(&str, &str)], expected: &[&[&str]]) {
    let error = load_from(files, environment).expect_err("must be refused");
    let lines: Vec<String> = error.problems.iter().map(ToString::to_string).collect();
    for words in expected {
        assert!(
            lines.iter().any(|line| words.iter().all(|word| line.contains(word))),
            "no mistake says {words:?}:\n{error}"
        );
    }
    assert_eq!(lines.len(), expected.len(), "{error}");
}

#[test]
fn empty_is_the_defaults() {
    let config = load_from(&[("agent.toml", "")], &[]).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9460");
    assert_eq!(config.spool.max_size.to_string(), "256MiB");
    assert_eq!(config.spool.max_age, Duration::from_secs(3 * 86_400));
    assert_eq!(config.uplink.aggregator, None);
    assert!(config.plugins.is_empty());
}

#[test]
fn later_sources_win_and_lists_replace() {
    let config = load_from(
        &[
            (
                "agent.toml",
                "[plugins.a]\nfile = 'a.wasm'\ninterval = '10s'\n\
                 [[plugins.a.grants]]\ncapability = 'system'\n[[plugins.a.grants]]\ncapability = 'store'\nbytes = 5\n\
                 [plugins.a.settings]\nx = 1\ny = [1, 2]\n",
            ),
            ("conf.d/10.toml", "[plugins.a]\ninterval = '20s'\n[plugins.a.settings]\ny = [3]\n[http]\nlisten = '127.0.0.1:1'"),
            ("conf.d/20.toml", "[[plugins.a.grants]]\ncapability = 'system'\n[http]\nlisten = '127.0.0.1:2'"),
            ("conf.d/.hidden.toml", "broken"),
            ("conf.d/notes.txt", "broken"),
        ],
        &[("PICKET_HTTP__LISTEN", "127.0.0.1:3"), ("PICKET_PLUGINS__A__INTERVAL", "30s"), ("PICKET_STATE_DIR", "/s")],
    )
    .unwrap();
    let plugin = config.plugins.values().next().unwrap();
    assert_eq!(plugin.interval, Duration::from_secs(30));
    assert_eq!(plugin.grants, [Scope::System {}]);
    assert_eq!(plugin.settings, serde_json::json!({ "x": 1, "y": [3] }));
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.state_dir, Path::new("/s"));
}

#[test]
fn all_mistakes_are_told_at_once_with_file_and_key() {
    check_refused(
        &[
            (
                "agent.toml",
                "stat_dir = '/x'\n[http]\nlisten = 'nowhere'\n[spool]\nmax_size = '3 bananas'\nmax_age = 15\n\
                 [log]\nformat = 'jsn'\nlevel = 'info=loud=1'\n[uplink]\naggregator = 'no-port'\nkey = '/k'\n",
            ),
            (
                "conf.d/p.toml",
                "[plugins.a]\nintervall = '1s'\ninterval = '1ms'\nenabled = 'yes'\n\
                 [plugins.'b c']\nfile = 'b.wasm'\n[plugins.picket-agent]\nfile = 'x.wasm'\n\
                 [plugins.c]\nfile = 'c.wasm'\nlimits = { memroy = '1MiB' }\nsettings = 3\n\
                 [[plugins.c.grants]]\ncapability = 'fils'\n[[plugins.c.grants]]\ncapability = 'store'\n",
            ),
        ],
        &[("PICKET_SPOL__MAX_SIZE", "1GiB")],
        &[
            &["agent.toml", "stat_dir", "did you mean \"state_dir\""],
            &["agent.toml", "http.listen", "nowhere", "127.0.0.1:9460"],
            &["agent.toml", "spool.max_size", "3 bananas", "256MiB"],
            &["agent.toml", "spool.max_age", "15s"],
            &["agent.toml", "log.format", "jsn", "did you mean \"json\""],
            &["agent.toml", "log.level", "info=loud=1"],
            &["agent.toml", "uplink.aggregator", "no-port", "HOST:PORT"],
            &["uplink.certificate", "is missing"],
            &["uplink.authorities", "is missing"],
            &["p.toml", "plugins.a.intervall", "did you mean \"interval\""],
            &["p.toml", "plugins.a.interval:", "1ms", "100ms"],
            &["p.toml", "plugins.a.enabled", "true or false"],
            &["p.toml", "plugins.b c", "the plugin id"],
            &["p.toml", "plugins.picket-agent", "own metrics"],
            &["p.toml", "plugins.c.limits", "memroy", "did you mean \"memory\""],
            &["p.toml", "plugins.c.settings", "must be a table"],
            &["p.toml", "plugins.c.grants.0", "fils", "did you mean \"files\""],
            &["p.toml", "plugins.c.grants.1", "bytes", "missing"],
            &["PICKET_SPOL", "spol", "did you mean \"spool\""],
        ],
    );
}

#[test]
fn broken_files_are_named() {
    check_refused(
        &[("agent.toml", "[http\n"), ("conf.d/a.toml", "x = 1\nx = 2\n")],
        &[],
        &[&["agent.toml", "not valid TOML"], &["a.toml", "not valid TOML", "duplicate"]],
    );
    check_refused(&[], &[], &[&["agent.toml", "cannot be read"]]);
    check_refused(
        &[("agent.toml", "[plugins.a]\nfile = 'a'\n[plugins.a]\nfile = 'b'\n")],
        &[],
        &[&["agent.toml", "not valid TOML", "duplicate"]],
    );
    check_refused(
        &[("agent.toml", "http = 3\nplugins = []\n")],
        &[],
        &[&["http", "table"], &["plugins", "table"]],
    );
}

#[test]
fn what_is_printed_reads_back() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.toml");
    let config = load(&Sources { file, environment: Vec::new() }).unwrap();
    let text = toml::to_string_pretty(&config).unwrap();
    assert_eq!(load_from(&[("agent.toml", &text)], &[]).unwrap(), config);
}

/// The shipped file, with every comment that holds a key made a line of its own.
#[test]
fn the_shipped_file_names_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let shipped = load(&Sources { file: path, environment: Vec::new() }).unwrap();
    let mut uncommented = String::new();
    let mut optional = false;
    for line in text.lines() {
        let key = line.strip_prefix("# ").unwrap_or(line);
        let is_key = key.split_once(" = ").is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        });
        // The other plugins, which a site switches on whole.
        optional = line.starts_with("# [") || optional && !line.starts_with('[');
        if optional {
            continue;
        }
        uncommented.push_str(if is_key { key } else { line });
        uncommented.push('\n');
    }
    let mut whole = load_from(&[("agent.toml", &uncommented)], &[]).unwrap();
    let printed = toml::Value::try_from(&whole).unwrap();
    for (table, keys) in printed.as_table().unwrap() {
        let keys = keys.as_table().into_iter().flatten().map(|(key, _)| key);
        for key in keys.chain([table]).filter(|_| table != "plugins") {
            assert!(text.contains(key.as_str()), "config/agent.toml says nothing of {table}.{key}");
        }
    }
    // What has no default but absence.
    assert!(whole.compiler.take().is_some());
    assert!(whole.nvml.helper.take().is_some());
    assert!(whole.nvml.library.take().is_some());
    assert!(whole.worker.program.take().is_some());
    assert!(whole.worker.user.take().is_some());
    assert!(whole.uplink.aggregator.take().is_some());
    assert!(whole.uplink.certificate.take().is_some());
    assert!(whole.uplink.key.take().is_some());
    assert!(whole.uplink.authorities.take().is_some());
    // Beside the file.
    whole.trust.policy.clone_from(&shipped.trust.policy);
    assert_eq!(whole, shipped);
}
