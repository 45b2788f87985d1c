use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::grants::Granted;

struct Desk {
    commands: Commands,
    limits: ServiceLimits,
}

impl Desk {
    fn new(rules: serde_json::Value) -> Self {
        let scope: Scope = serde_json::from_value(json!({ "commands": rules })).unwrap();
        Self { commands: Scope::compile(&[&scope]).unwrap(), limits: ServiceLimits::default() }
    }

    /// A shell script, as an operator could name one: the shell is his choice, not ours.
    fn script(text: &str, more: serde_json::Value) -> Self {
        let mut rule = json!({ "name": "c", "program": "/bin/sh", "arguments": ["-c", text] });
        for (key, value) in more.as_object().unwrap() {
            rule[key] = value.clone();
        }
        Self::new(json!([rule]))
    }

    async fn call(&self, request: Request) -> Result<Answer, Error> {
        call(&self.commands, &self.limits, request).await
    }

    async fn start(&self, name: &str, slots: &[(&str, &str)]) -> Result<u32, Error> {
        let slots = slots.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        match self.call(Request::Start { command: name.to_owned(), slots }).await? {
            Answer::Started(run) => Ok(run),
            other => panic!("{other:?}"),
        }
    }

    async fn read(&self, run: u32, most: u32) -> Result<Vec<u8>, Error> {
        match self.call(Request::Read { run, most }).await? {
            Answer::Output(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    async fn end(&self, run: u32) -> Result<Outcome, Error> {
        match self.call(Request::End { run }).await? {
            Answer::Ended(outcome) => Ok(outcome),
            other => panic!("{other:?}"),
        }
    }

    async fn all(&self, run: u32) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        loop {
            let bytes = self.read(run, 100_000).await?;
            if bytes.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&bytes);
        }
    }

    async fn run(&self, name: &str, slots: &[(&str, &str)]) -> Result<(String, Outcome), Error> {
        let run = self.start(name, slots).await?;
        let output = String::from_utf8(self.all(run).await?).unwrap();
        Ok((output, self.end(run).await?))
    }
}

/// A process that is a zombie is there, and not alive.
fn state_of(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

async fn gone(pid: u32) {
    let until = Instant::now() + Duration::from_secs(5);
    // A child that lost its parent is waited for by init, which takes its own time: dead is enough there.
    while matches!(state_of(pid), Some(state) if state != 'Z') {
        assert!(Instant::now() < until, "process {pid} is still alive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn zombies_of_ours() -> Vec<u32> {
    let own = std::process::id().to_string();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let mut words = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
            words.next() == Some("Z") && words.next() == Some(own.as_str())
        })
        .collect()
}

#[tokio::test]
async fn output_status_and_errors() {
    let desk = Desk::script("echo out; echo err >&2; exit 3", json!({}));
    let (output, outcome) = desk.run("c", &[]).await.unwrap();
    assert_eq!((output.as_str(), outcome.status, outcome.stderr.as_str()), ("out\n", 3, "err\n"));
    let desk = Desk::script("kill -TERM $$", json!({}));
    let (output, outcome) = desk.run("c", &[]).await.unwrap();
    assert_eq!((output.as_str(), outcome.status), ("", -15));
}

#[tokio::test]
async fn what_a_command_gets() {
    let desk = Desk::new(json!([
        { "name": "env", "program": "/usr/bin/env", "environment": { "SLURM_CONF": "/etc/x y" } },
        { "name": "pwd", "program": "/bin/sh", "arguments": ["-c", "pwd; cat; ps -o pgid= -p $$; echo $$"] },
        { "name": "fds", "program": "/bin/ls", "arguments": ["/proc/self/fd"] },
    ]));
    // The shell adds variables of its own; env(1) does not.
    assert_eq!(desk.run("env", &[]).await.unwrap().0, "SLURM_CONF=/etc/x y\n");
    let (output, _) = desk.run("pwd", &[]).await.unwrap();
    let lines: Vec<&str> = output.split_whitespace().collect();
    assert_eq!((lines[0], lines[1]), ("/", lines[2]), "its folder, and a group of its own: {output}");
    let open = std::fs::File::open("/dev/null").unwrap();
    let own = std::os::fd::AsRawFd::as_raw_fd(&open).to_string();
    let output = desk.run("fds", &[]).await.unwrap().0;
    // What this test was started with is for the agent's main to mark; the fourth is the folder that ls itself reads.
    let inherited = inherited();
    let given: Vec<&str> = output.split_whitespace().collect();
    let ours: Vec<&&str> = given.iter().filter(|fd| !inherited.contains(**fd)).collect();
    assert!(given.starts_with(&["0", "1"]) && ours.len() <= 4, "{given:?}, {inherited:?}");
    assert!(!inherited.contains(&own));
}

/// Descriptors of this process that are not closed in programs it starts.
fn inherited() -> std::collections::BTreeSet<String> {
    let all = std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    all.filter(|e| {
        let info = std::fs::read_to_string(e.path()).unwrap_or_default();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap_or("0").trim();
        i64::from_str_radix(flags, 8).unwrap_or(0) & 0o2_000_000 == 0
    })
    .map(|e| e.file_name().to_str().unwrap().to_owned())
    .filter(|n| n.parse::<u32>().unwrap() > 2)
    .collect()
}

#[tokio::test]
async fn slots_are_filled_and_nothing_else() {
    let desk = Desk::new(json!([{
        "name": "show", "program": "/usr/bin/printf",
        "arguments": ["[%s]\\n", "--node={node}", "{{{n}}}", "{list}", "{state}"],
        "slots": { "node": "word", "n": "number", "list": "words", "state": "idle|down" },
    }]));
    let good = [("node", "gpu-1.a_B"), ("n", "042"), ("list", "a,b-c,_d"), ("state", "down")];
    let (output, outcome) = desk.run("show", &good).await.unwrap();
    assert_eq!((output.as_str(), outcome.status), ("[--node=gpu-1.a_B]\n[{042}]\n[a,b-c,_d]\n[down]\n", 0));
    for (slot, value) in [
        ("node", ""),
        ("node", "-x"),
        ("node", "--all"),
        ("node", "a b"),
        ("node", "a;reboot"),
        ("node", "$(reboot)"),
        ("node", "`reboot`"),
        ("node", "a\nb"),
        ("node", "a\0b"),
        ("node", ".."),
        ("node", "../x"),
        ("node", "a/b"),
        ("node", "a,b"),
        ("node", "{n}"),
        ("node", "gpu*"),
        ("node", "gpu[1-3]"),
        ("node", "ü"),
        ("node", "a=b"),
        ("n", ""),
        ("n", "-1"),
        ("n", "1e3"),
        ("n", "0x1"),
        ("n", "1 2"),
        ("list", ""),
        ("list", "a,"),
        ("list", ",a"),
        ("list", "a,-b"),
        ("list", "a, b"),
        ("state", "idl"),
        ("state", "idle|down"),
        ("state", ""),
        ("other", "x"),
        ("{node}", "x"),
    ] {
        let mut slots = good.to_vec();
        slots.retain(|(s, _)| *s != slot);
        slots.push((slot, value));
        let answer = desk.start("show", &slots).await;
        assert!(matches!(answer, Err(Error::Invalid(_))), "{slot} = {value:?}: {answer:?}");
    }
    let long = "x".repeat(5000);
    let answer = desk.start("show", &[("node", long.as_str()), good[1], good[2], good[3]]).await;
    assert!(matches!(answer, Err(Error::Invalid(_))));
    assert!(matches!(desk.start("show", &good[..3]).await, Err(Error::Invalid(_))), "one is missing");
    let twice = [good[0], good[0], good[1], good[2], good[3]];
    assert!(matches!(desk.start("show", &twice).await, Err(Error::Invalid(_))), "one is filled twice");
    for name in ["", "sh", "show ", "/usr/bin/printf"] {
        assert!(matches!(desk.start(name, &good).await, Err(Error::Denied(_))), "{name:?}");
    }
}

proptest::proptest! {
    #[test]
    fn a_value_that_passes_is_one_plain_argument(value in "\\PC{0,40}") {
        let scope: Scope = serde_json::from_value(json!({ "commands": [{
            "name": "c", "program": "/bin/true", "arguments": ["{w}"], "slots": { "w": "word" },
        }] })).unwrap();
        let commands = Scope::compile(&[&scope]).unwrap();
        if let Ok((_, arguments)) = commands.find("c", &[("w".to_owned(), value.clone())]) {
            proptest::prop_assert_eq!(&arguments, &vec![value.clone()]);
            proptest::prop_assert!(!value.starts_with(['-', '.']) && !value.contains([' ', '/', ',', '*', '$', '\'']));
        }
    }
}

#[test]
fn rules_that_make_no_sense() {
    let base = json!({ "name": "c", "program": "/bin/true" });
    for (key, value) in [
        ("program", json!("true")),
        ("program", json!("./true")),
        ("name", json!("")),
        ("arguments", json!(["{x}"])),
        ("arguments", json!(["{"])),
        ("arguments", json!(["{x"])),
        ("arguments", json!(["}"])),
        ("arguments", json!(["a\0"])),
        ("slots", json!({ "x": "word" })),
        ("slots", json!({ "x": "regex" })),
        ("slots", json!({ "x": "a|-b" })),
        ("environment", json!({ "A=B": "c" })),
        ("environment", json!({ "": "c" })),
        ("timeout_seconds", json!(0)),
        ("timeout_seconds", json!(100_000)),
        ("output_bytes", json!(0)),
    ] {
        let mut rule = base.clone();
        rule[key] = value.clone();
        let scope: Scope = serde_json::from_value(json!({ "commands": [rule] })).unwrap();
        assert!(Scope::compile(&[&scope]).is_err(), "{key} = {value}");
    }
    let twice: Scope = serde_json::from_value(json!({ "commands": [base, base] })).unwrap();
    assert!(Scope::compile(&[&twice]).is_err());
}

#[test]
fn the_lines_of_a_refusal_are_a_grant() {
    let scope: Scope = serde_json::from_value(json!({ "commands": [
        { "name": "a", "program": "/bin/a", "arguments": ["--x={s}", "\"q\""], "slots": { "s": "word" },
          "environment": { "A": "b\\c" }, "timeout_seconds": 20, "output_bytes": 5 },
        { "name": "b", "program": "/bin/b" },
    ] }))
    .unwrap();
    let again: Scope = toml::from_str(&scope.lines()).unwrap();
    assert_eq!(scope, again);
    assert_eq!(scope.uncovered(&[&again]), None);
}

#[tokio::test]
async fn programs_that_must_not_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let file = folder.path().join("program");
    std::fs::write(&file, "#!/bin/sh\necho ran\n").unwrap();
    let start = async |path: &Path| {
        let desk = Desk::new(json!([{ "name": "c", "program": path }]));
        desk.run("c", &[]).await.map(|(output, _)| output)
    };
    mode(&file, 0o755);
    assert_eq!(start(&file).await.unwrap(), "ran\n");
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert_eq!(start(&link).await.unwrap(), "ran\n", "a link to a sound program");
    mode(&file, 0o644);
    assert!(matches!(start(&file).await, Err(Error::Refused(why)) if why.contains("executable")));
    mode(&file, 0o757);
    assert!(
        matches!(start(&file).await, Err(Error::Refused(why)) if why.contains("everybody may write to it"))
    );
    assert!(matches!(start(&link).await, Err(Error::Refused(_))), "by way of a link");
    mode(&file, 0o755);
    mode(folder.path(), 0o777);
    assert!(matches!(start(&file).await, Err(Error::Refused(why)) if why.contains("folder")));
    mode(folder.path(), 0o755);
    assert!(matches!(start(folder.path()).await, Err(Error::Refused(_))), "a folder");
    assert!(matches!(start(Path::new("/nowhere/x")).await, Err(Error::NotFound(_))));
    assert!(matches!(start(Path::new("/dev/null")).await, Err(Error::Refused(_))), "a device");
}

#[tokio::test]
async fn a_hung_command_is_killed_with_its_children() {
    let script = "sleep 300 & echo $!; exec sleep 300";
    let desk = Desk::script(script, json!({ "timeout_seconds": 1 }));
    let began = Instant::now();
    let run = desk.start("c", &[]).await.unwrap();
    let child: u32 = String::from_utf8(desk.read(run, 100).await.unwrap()).unwrap().trim().parse().unwrap();
    assert!(state_of(child).is_some());
    let answer = desk.read(run, 100).await;
    assert!(matches!(answer, Err(Error::TimedOut(_))), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(matches!(desk.end(run).await, Err(Error::TimedOut(_))));
    gone(child).await;
    assert_eq!(zombies_of_ours(), Vec::<u32>::new());
}

#[tokio::test]
async fn children_do_not_outlive_the_program() {
    // The child holds both pipes, and ignores what it can.
    let script = "(trap '' TERM HUP INT; exec sleep 300) & echo $!";
    let desk = Desk::script(script, json!({}));
    let began = Instant::now();
    let (output, outcome) = desk.run("c", &[]).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(outcome.status, 0);
    gone(output.trim().parse().unwrap()).await;
}

#[tokio::test]
async fn one_that_leaves_its_group_holds_nothing_up() {
    let desk = Desk::script("setsid sleep 20 & echo out", json!({}));
    let began = Instant::now();
    let (output, outcome) = desk.run("c", &[]).await.unwrap();
    assert_eq!((output.as_str(), outcome.status), ("out\n", 0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_that_closes_its_pipes_and_stays_is_killed_in_time() {
    let desk = Desk::script("echo out; exec >&- 2>&-; sleep 300", json!({ "timeout_seconds": 1 }));
    let run = desk.start("c", &[]).await.unwrap();
    assert_eq!(desk.all(run).await.unwrap(), b"out\n");
    let began = Instant::now();
    assert!(matches!(desk.end(run).await, Err(Error::TimedOut(_))));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_flood_is_stopped_at_its_bound_and_one_within_it_is_whole() {
    let desk = Desk::script("echo $$; exec yes", json!({ "output_bytes": 1_000_000 }));
    let run = desk.start("c", &[]).await.unwrap();
    let first = desk.read(run, 100).await.unwrap();
    let pid: u32 = String::from_utf8_lossy(&first).lines().next().unwrap().parse().unwrap();
    let mut got = first.len();
    let error = loop {
        match desk.read(run, 50_000).await {
            Ok(bytes) => got += bytes.len(),
            Err(e) => break e,
        }
    };
    assert!(matches!(error, Error::TooLarge(_)), "{error:?}");
    assert!(got <= 1_000_000 && got > 800_000, "{got}");
    gone(pid).await;
    let script = "yes 0123456789 | head -c 5000000; echo wrote >&2";
    let desk = Desk::script(script, json!({ "output_bytes": 5_000_000 }));
    let (output, outcome) = desk.run("c", &[]).await.unwrap();
    assert_eq!((output.len(), outcome.status, outcome.stderr.as_str()), (5_000_000, 0, "wrote\n"));
    assert!(output.starts_with("0123456789\n0123456789\n"));
    // Standard error floods too, and is read to its end without holding it.
    let script = "yes e | head -c 3000000 >&2; echo last >&2; echo out";
    let (output, outcome) = Desk::script(script, json!({})).run("c", &[]).await.unwrap();
    assert_eq!(output, "out\n");
    assert!(
        outcome.stderr.len() <= 4096 && outcome.stderr.ends_with("e\nlast\n"),
        "{}",
        outcome.stderr.len()
    );
}

#[tokio::test]
async fn slow_output_comes_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let script = format!("echo one; while [ ! -e {0} ]; do sleep 0.02; done; echo two", go.display());
    let desk = Desk::script(&script, json!({}));
    let run = desk.start("c", &[]).await.unwrap();
    assert_eq!(desk.read(run, 100).await.unwrap(), b"one\n", "before the command ended");
    std::fs::write(&go, "").unwrap();
    assert_eq!(desk.all(run).await.unwrap(), b"two\n");
    assert_eq!(desk.end(run).await.unwrap().status, 0);
}

#[tokio::test]
async fn what_is_left_ends_with_the_call() {
    let desk = Desk::script("echo $$; exec sleep 300", json!({}));
    let mut pids = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..desk.limits.command_runs {
        let run = desk.start("c", &[]).await.unwrap();
        let text = String::from_utf8(desk.read(run, 100).await.unwrap()).unwrap();
        pids.push(text.trim().parse::<u32>().unwrap());
        runs.push(run);
    }
    assert!(matches!(desk.start("c", &[]).await, Err(Error::Busy(_))));
    desk.commands.end_all();
    for pid in pids {
        gone(pid).await;
    }
    for run in runs {
        assert!(matches!(desk.read(run, 1).await, Err(Error::Invalid(_))));
        assert!(matches!(desk.end(run).await, Err(Error::Invalid(_))));
    }
    let until = Instant::now() + Duration::from_secs(5);
    while desk.start("c", &[]).await.is_err() {
        assert!(Instant::now() < until, "the places are not given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    desk.commands.end_all();
}

#[tokio::test]
async fn an_early_end_kills() {
    let desk = Desk::script("echo $$; exec yes", json!({}));
    let run = desk.start("c", &[]).await.unwrap();
    let first = desk.read(run, 100).await.unwrap();
    let pid: u32 = String::from_utf8_lossy(&first).lines().next().unwrap().parse().unwrap();
    assert_eq!(desk.end(run).await.unwrap().status, -9);
    gone(pid).await;
    assert_eq!(state_of(pid), None, "it was not waited for");
}
