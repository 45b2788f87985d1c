//! What other people's tools install, held against these very tools: `cargo xtask deploy`.
//!
//! The chart is rendered by Helm for each file of values in its folder `ci`, and what comes out is checked by `chart.py`; the plain
//! manifests are what the chart renders; Ansible and its linter read the role, cloud-init its file, mdBook the book, Docker
//! the images. A tool that is missing skips its check by name.

mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use self::tools::Tools;
use crate::{build, command};

#[derive(clap::Args)]
pub struct Args {
    /// Which checks; none: all.
    names: Vec<String>,
    /// Write packaging/kubernetes from the chart, instead of comparing it.
    #[arg(long)]
    write: bool,
    /// Where the programs are that judge the configurations. Default: target/debug.
    #[arg(long, value_name = "FOLDER")]
    bin: Option<PathBuf>,
    /// Where the plugins are. Default: target/plugins.
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
}

/// How a check ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// What the checks work with.
struct Place<'a> {
    root: &'a Path,
    tools: Tools,
    bin: Option<PathBuf>,
    plugins: PathBuf,
    /// For what is rendered.
    scratch: PathBuf,
}

type Check = fn(&Place<'_>) -> Result<Outcome>;

const CHECKS: &[(&str, Check)] = &[
    ("chart", chart),
    ("chart-refusals", chart_refusals),
    ("manifests", manifests),
    ("ansible", ansible),
    ("cloud-init", cloud_init),
    ("book", book),
    ("image", image),
];

const CHART: &str = "packaging/helm/picket";
const MANIFESTS: &str = "packaging/kubernetes/picket.yaml";
const NAMESPACE: &str = "picket";

/// The command.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    if let Some(unknown) = args.names.iter().find(|name| !CHECKS.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = CHECKS.iter().map(|(name, _)| *name).collect();
        bail!("there is no check {unknown}; there are {}", known.join(", "));
    }
    let place = place(root, args.bin.clone(), args.plugins.clone())?;
    if args.write {
        let Some(text) = plain_manifests(&place)? else { bail!("Helm is missing") };
        let file = root.join(MANIFESTS);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        return Ok(true);
    }
    let mut well = true;
    for (name, outcome) in carry_out(&place, &args.names) {
        match outcome {
            Outcome::Passed => println!("passed: {name}"),
            Outcome::Skipped(why) => println!("skipped: {name}: {why}"),
            Outcome::Failed(why) => {
                println!("failed: {name}\n{why}");
                well = false;
            }
        }
    }
    Ok(well)
}

/// All checks, with what the tests were built with.
pub fn all(root: &Path) -> Result<Vec<(&'static str, Outcome)>> {
    Ok(carry_out(&place(root, None, None)?, &[]))
}

fn place(root: &Path, bin: Option<PathBuf>, plugins: Option<PathBuf>) -> Result<Place<'_>> {
    let target = build::target(root)?;
    let scratch = target.join("tmp/deploy");
    let _ = std::fs::remove_dir_all(&scratch);
    std::fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    let bin = bin
        .or_else(|| Some(target.join("debug")))
        .filter(|bin| command::is_program(&bin.join("picket-agent")));
    let plugins = plugins.unwrap_or_else(|| target.join("plugins"));
    Ok(Place { root, tools: Tools::fetch(&target), bin, plugins, scratch })
}

fn carry_out(place: &Place<'_>, names: &[String]) -> Vec<(&'static str, Outcome)> {
    let wanted = CHECKS.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|n| n == name));
    wanted
        .map(|(name, check)| (*name, check(place).unwrap_or_else(|e| Outcome::Failed(format!("{e:#}")))))
        .collect()
}

/// Runs a tool; what it said is the reason where it fails.
fn judge(command: &mut Command) -> Result<Outcome> {
    let output =
        command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(Outcome::Passed);
    }
    let said = [output.stdout, output.stderr].concat();
    Ok(Outcome::Failed(String::from_utf8_lossy(&said).into_owned()))
}

fn skipped(what: &str) -> Result<Outcome> {
    Ok(Outcome::Skipped(what.to_owned()))
}

fn values(root: &Path) -> Result<Vec<PathBuf>> {
    build::listed(&root.join(CHART).join("ci"), "yaml")
}

fn template(helm: &Path, root: &Path) -> Command {
    let mut command = Command::new(helm);
    command.args(["template", "picket"]).arg(root.join(CHART)).args(["--namespace", NAMESPACE]);
    command
}

/// Renders with every file of values, and looks at what comes out.
fn chart(place: &Place<'_>) -> Result<Outcome> {
    let (Some(helm), Some(python)) = (&place.tools.helm, &place.tools.python) else {
        return skipped("Helm or Python with kubernetes-validate is missing");
    };
    let chart = place.root.join(CHART);
    let mut rendered = Vec::new();
    for file in values(place.root)? {
        command::output(
            Command::new(helm).args(["lint", "--strict"]).arg(&chart).arg("--values").arg(&file),
        )?;
        let text = command::output(template(helm, place.root).arg("--values").arg(&file))?;
        let name = file.file_name().context("a file without a name")?;
        let out = place.scratch.join(name);
        std::fs::write(&out, text)?;
        rendered.push(out);
    }
    let script = place.scratch.join("chart.py");
    std::fs::write(&script, include_str!("deploy/chart.py"))?;
    let bin = place.bin.as_deref().unwrap_or(Path::new("-"));
    let output = Command::new(python).arg(&script).arg(bin).arg(&place.plugins).args(&rendered).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    Ok(match output.status.code() {
        Some(0) => Outcome::Passed,
        Some(3) => Outcome::Skipped(
            "the objects are well; the programs that judge their configurations are not built".to_owned(),
        ),
        _ => Outcome::Failed(format!("{said}{}", String::from_utf8_lossy(&output.stderr))),
    })
}

/// Values that make no sense are refused, and by the reason that is theirs.
fn chart_refusals(place: &Place<'_>) -> Result<Outcome> {
    let Some(helm) = &place.tools.helm else { return skipped("Helm is missing") };
    let cases = [
        ("agent.privilege=some", "agent/privilege"),
        ("agent.plugin.node=true", "plugin"),
        ("aggregator.replicas=3", "replicas"),
        ("aggregator.image.digest=latest", "digest"),
        ("aggregator.persistence.size=much", "size"),
        ("agent.extraPlugins.Not_A_Name=x", "Not_A_Name"),
        ("agent.plugins.logs=true", "set agent.privilege to root"),
        ("agent.plugins.logs=true,agent.privilege=root,agent.hostRoot=false", "set agent.hostRoot to true"),
        ("agent.gpu.enabled=true,agent.gpu.runtimeClassName=", "agent.gpu.privilege=privileged"),
        ("agent.trust.imageKey=false", "no plugin would run"),
    ];
    let mut wrong = Vec::new();
    for (set, reason) in cases {
        let output = template(helm, place.root).args(["--set", set]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() || !said.contains(reason) {
            wrong
                .push(format!("--set {set}: wanted a refusal with {reason:?}, got {} {said}", output.status));
        }
    }
    Ok(if wrong.is_empty() { Outcome::Passed } else { Outcome::Failed(wrong.join("\n")) })
}

/// What the chart renders by itself, without the marks of Helm.
fn plain_manifests(place: &Place<'_>) -> Result<Option<String>> {
    let Some(helm) = &place.tools.helm else { return Ok(None) };
    let rendered = command::output(&mut template(helm, place.root))?;
    let of_helm = ["# Source:", "helm.sh/chart:", "app.kubernetes.io/managed-by:"];
    let mut text =
        "# Made by `cargo xtask deploy --write` from packaging/helm/picket with its default values.\n"
            .to_owned();
    for line in
        rendered.lines().filter(|line| !of_helm.iter().any(|mark| line.trim_start().starts_with(mark)))
    {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    Ok(Some(text))
}

fn manifests(place: &Place<'_>) -> Result<Outcome> {
    let Some(text) = plain_manifests(place)? else { return skipped("Helm is missing") };
    let file = place.root.join(MANIFESTS);
    let there = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if there != text {
        let why = format!("{MANIFESTS} is not what the chart renders: cargo xtask deploy --write");
        return Ok(Outcome::Failed(why));
    }
    let Some(kubectl) = &place.tools.kubectl else { return skipped("kubectl is missing") };
    judge(Command::new(kubectl).arg("kustomize").arg(place.root.join("packaging/kubernetes")))
}

fn ansible(place: &Place<'_>) -> Result<Outcome> {
    let (Some(playbook), Some(lint)) =
        (place.tools.beside_python("ansible-playbook"), place.tools.beside_python("ansible-lint"))
    else {
        return skipped("ansible-core or ansible-lint is missing");
    };
    let folder = place.root.join("packaging/ansible");
    let inventory = place.scratch.join("inventory");
    std::fs::write(
        &inventory,
        "[aggregators]\nlocalhost ansible_connection=local\n[gpu_nodes]\nlocalhost ansible_connection=local\n",
    )?;
    let set_up = |command: &mut Command| {
        command
            .current_dir(&folder)
            .env("ANSIBLE_ROLES_PATH", folder.join("roles"))
            .env("ANSIBLE_HOME", place.scratch.join("ansible"))
            .env("PATH", place.tools.path());
    };
    let mut syntax = Command::new(playbook);
    set_up(syntax.arg("--syntax-check").arg("--inventory").arg(&inventory).arg("site.yml"));
    match judge(&mut syntax)? {
        Outcome::Passed => {}
        other => return Ok(other),
    }
    let mut linter = Command::new(lint);
    set_up(linter.args(["--offline", "--nocolor", "--profile", "production", "."]));
    judge(&mut linter)
}

fn cloud_init(place: &Place<'_>) -> Result<Outcome> {
    let (Some(python), Some(module)) = (&place.tools.python, &place.tools.cloud_init) else {
        return skipped("cloud-init is missing");
    };
    let schema = |file: &Path| {
        let mut command = Command::new(python);
        command
            .args(["-m", "cloudinit.cmd.main", "schema", "--config-file"])
            .arg(file)
            .env("PYTHONPATH", module);
        judge(&mut command)
    };
    let file = place.root.join("packaging/cloud-init/agent.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let broken = place.scratch.join("broken.yaml");
    std::fs::write(&broken, text.replace("defer: true", "defer: perhaps"))?;
    if schema(&broken)? == Outcome::Passed {
        return Ok(Outcome::Failed("cloud-init takes `defer: perhaps`: it checks nothing".to_owned()));
    }
    schema(&file)
}

fn book(place: &Place<'_>) -> Result<Outcome> {
    let Some(mdbook) = place.tools.beside_python("mdbook") else { return skipped("mdbook is missing") };
    let out = place.scratch.join("book");
    let output = Command::new(mdbook)
        .arg("build")
        .arg(place.root.join("docs"))
        .arg("--dest-dir")
        .arg(&out)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || said.contains("WARN") || said.contains("ERROR") {
        return Ok(Outcome::Failed(said));
    }
    let first = std::fs::read_to_string(out.join("index.html")).context("the book has no first page")?;
    Ok(if first.contains("Picket") {
        Outcome::Passed
    } else {
        Outcome::Failed("the first page is empty".to_owned())
    })
}

/// Real images, loaded by a real Docker Engine, run without a right and on a root that cannot be written.
fn image(place: &Place<'_>) -> Result<Outcome> {
    let Some(bin) = &place.bin else { return skipped("the programs are not built") };
    let Some(engine) = tools::Engine::start(place.root, &place.scratch)? else {
        return skipped("a Docker Engine needs root and the parts dockerd, containerd and runc");
    };
    let args = crate::image::Args::of(bin, &place.plugins, &place.scratch.join("images"));
    crate::image::run(place.root, &args)?;
    // The helpers too: each needs its own libraries.
    let programs = [
        ("picket-agent", &["picket-agent", "picket-worker", "picket-compile", "picket-nvml"][..]),
        ("picket-aggregator", &["picket-aggregator", "picket"]),
    ];
    for (name, programs) in programs {
        let archive = place.scratch.join("images").join(format!("{name}.tar"));
        engine.docker(&["load", "--input"], Some(&archive))?;
        let tag = format!("{name}:{}", env!("CARGO_PKG_VERSION"));
        let user = engine.docker(&["inspect", "--format", "{{.Config.User}}", &tag], None)?;
        if user.trim() != "65532:65532" {
            return Ok(Outcome::Failed(format!("{name} runs as {user}")));
        }
        let closed = [
            "run",
            "--rm",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
        ];
        for program in programs {
            // A helper knows no --version and ends with a complaint of its own; one that does not start, with the loader's.
            let entry = format!("--entrypoint=/usr/bin/{program}");
            let said = engine.docker_says(&[&closed[..], &[&entry, &tag, "--version"]].concat())?;
            let loader = ["error while loading", "not found", "no such file", "exec format"];
            if let Some(complaint) = loader.iter().find(|complaint| said.to_lowercase().contains(**complaint))
            {
                return Ok(Outcome::Failed(format!("{program} in {name}: {complaint}: {said}")));
            }
        }
        let said = engine.docker(&[&closed[..], &[&tag, "--version"]].concat(), None)?;
        if !said.contains(name) {
            return Ok(Outcome::Failed(format!("{name} --version says {said:?}")));
        }
    }
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_charts_version_is_the_workspaces() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(super::CHART).join("Chart.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        for line in [format!("version: {version}"), format!("appVersion: \"{version}\"")] {
            assert!(text.lines().any(|there| there == line), "Chart.yaml has no line {line:?}");
        }
    }

    #[test]
    fn every_file_of_values_is_one() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let files = super::values(&root).unwrap();
        assert!(files.len() >= 6, "{files:?}");
        assert!(files.iter().all(|file| file.to_string_lossy().ends_with("-values.yaml")), "{files:?}");
    }
}
