//! `check` and `test`: whether a node would take the plugin, and whether it then does as the contract says.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::project::{Project, component_of};
use super::trial::{Trial, Wish, failure};
use super::{AuthorError, TrialArguments};
use crate::Error;
use crate::arguments::Output;
use crate::output;
use crate::plugin::file::Component;
use crate::plugin::inspect::outline;

/// Larger ones take a node so long to compile that its operator should know.
const LARGE: usize = 4 << 20;
/// The host's own words for what it did not take.
const NOT_TAKEN: [&str; 6] = ["refused", "quota", "invalid", "duplicate", "unknown-id", "timestamp"];
/// A call that costs more of its limit than this is close to it.
const NEAR: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// A node refuses it.
    Refused,
    /// It runs, and somebody should look at it.
    Look,
    Good,
}

struct Finding {
    weight: Weight,
    text: String,
}

impl Weight {
    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Look => "look",
            Self::Good => "good",
        }
    }
}

pub async fn check(format: Output, arguments: &TrialArguments) -> Result<(), Error> {
    let file = component_of(&arguments.plugin)?;
    let mut findings = Vec::new();
    // What is no component has its code and its advice from the agent.
    let component = Component::read(&file).ok();
    let mut secrets = arguments.secrets.clone();
    if let Some(component) = &component {
        look(component, &mut findings);
        secrets.extend(placeholders(component, &arguments.secrets));
    }
    let wish = Wish {
        with: arguments.with.as_deref(),
        secrets,
        grant_needs: true,
        collects: Some(0),
        interval: Duration::from_secs(1),
    };
    let mut trial = Trial::start(arguments.agent.as_deref(), &file, &wish)?;
    while let Some(said) = trial.next().await? {
        if let Some(error) = said.get("refused") {
            findings.push(Finding { weight: Weight::Refused, text: failure(error) });
        }
        if let Some(loaded) = said.get("loaded") {
            let text = format!(
                "read, compiled, linked, described and configured in {} ms: {} families",
                loaded["load_ms"],
                loaded["families"].as_array().map_or(0, Vec::len)
            );
            findings.push(Finding { weight: Weight::Good, text });
        }
    }
    trial.end().await?;
    show(format, &findings)?;
    if findings.iter().any(|f| f.weight == Weight::Refused) {
        return Err(AuthorError::Refused.into());
    }
    Ok(())
}

/// What can be told from the file alone, beside what the host refuses.
fn look(component: &Component, findings: &mut Vec<Finding>) {
    let mut look = |text: String| findings.push(Finding { weight: Weight::Look, text });
    let (imports, _) = outline(&component.bytes);
    let imported = |capability: &str| {
        imports
            .iter()
            .any(|i| i.strip_prefix("picket:host/").and_then(|i| i.split('@').next()) == Some(capability))
    };
    if imports.iter().any(|import| import.starts_with("wasi:")) {
        look("it imports WASI, as the runtimes of some languages do: a node links it to nothing (no files, no sockets, no \
              environment; the clock, random bytes and standard output work)".to_owned());
    }
    if component.bytes.len() > LARGE {
        look(format!(
            "it is {:.1} MB large: a node compiles it once, for a second a megabyte and more, and keeps about twice that \
             on disk",
            component.bytes.len() as f64 / 1e6
        ));
    }
    let Some(manifest) = &component.manifest else {
        look("it has no manifest, so its operator has to guess what it needs: add plugin.toml and build it again".to_owned());
        return;
    };
    for need in manifest.needs.iter().filter(|need| !imported(&need.capability)) {
        look(format!(
            "the manifest needs `{0}`, and the component does not import picket:host/{0}: leave the need out, or use it",
            need.capability
        ));
    }
}

/// Whether the plugin loads does not hang on what its secrets are.
fn placeholders(component: &Component, given: &[String]) -> Vec<String> {
    let needs = component.manifest.iter().flat_map(|manifest| &manifest.needs);
    // Those of the capabilities http and unix-http.
    let rules = needs
        .flat_map(|need| ["urls", "sockets"].map(|list| need.scope.get(list)))
        .filter_map(|list| list?.as_array())
        .flatten();
    let names = rules.filter_map(|rule| rule.get("secret")?.get("name")?.as_str());
    names
        .filter(|name| !given.iter().any(|g| g.starts_with(&format!("{name}="))))
        .map(|name| format!("{name}=/dev/null"))
        .collect()
}

/// The plugin in the node's host: loaded, read with twice, held to its limits and to `expect` of `tests/contract.toml`.
pub async fn test(format: Output, project: &Project, file: &Path, agent: Option<&Path>) -> Result<(), Error> {
    let with = Some(project.folder.join("tests/contract.toml")).filter(|with| with.is_file());
    let expected = with.as_deref().map(expected).transpose()?.unwrap_or_default();
    let component = Component::read(file)?;
    let wish = Wish {
        with: with.as_deref(),
        secrets: placeholders(&component, &[]),
        grant_needs: true,
        collects: Some(2),
        interval: Duration::from_millis(200),
    };
    let mut findings = Vec::new();
    let (mut limits, mut readings, mut page) = (Value::Null, 0, String::new());
    let mut trial = Trial::start(agent, file, &wish)?;
    while let Some(said) = trial.next().await? {
        if let Some(error) = said.get("refused") {
            findings.push(Finding { weight: Weight::Refused, text: failure(error) });
        }
        if let Some(loaded) = said.get("loaded") {
            limits = loaded["limits"].clone();
        }
        if let Some(collected) = said.get("collected") {
            readings += 1;
            page = collected["page"].as_str().unwrap_or_default().to_owned();
            judge(collected, &limits, &mut findings);
        }
    }
    trial.end().await?;
    for name in expected.iter().filter(|name| !has(&page, name)) {
        let text = format!("tests/contract.toml expects {name}, and the last reading has no sample of it");
        findings.push(Finding { weight: Weight::Refused, text });
    }
    let bad = findings.iter().filter(|f| f.weight == Weight::Refused).count();
    if bad == 0 {
        let text = format!("{readings} readings in the node's host, within the limits");
        findings.push(Finding { weight: Weight::Good, text });
    }
    show(format, &findings)?;
    if bad > 0 { Err(AuthorError::Contract(bad).into()) } else { Ok(()) }
}

fn judge(collected: &Value, limits: &Value, findings: &mut Vec<Finding>) {
    // The source's own word that it can't be read here: no fault of the plugin's.
    const SOURCE: &str = "PKT-0069";
    let error = &collected["error"];
    if error.is_object() {
        let weight = if error["code"] == SOURCE { Weight::Look } else { Weight::Refused };
        findings.push(Finding { weight, text: failure(error) });
    }
    for failed in collected["failures"].as_array().into_iter().flatten() {
        let (reason, message) =
            (failed["reason"].as_str().unwrap_or(""), failed["message"].as_str().unwrap_or(""));
        let weight = if NOT_TAKEN.contains(&reason) { Weight::Refused } else { Weight::Look };
        findings.push(Finding { weight, text: format!("{reason}: {}", output::plain(message)) });
    }
    let cost = &collected["cost"];
    let memory = (cost["memory"].as_f64(), limits["memory"].as_f64());
    if let (Some(used), Some(limit)) = memory
        && used > NEAR * limit
    {
        let text = format!("it holds {} of the {} bytes that limits.memory allows", used, limit);
        findings.push(Finding { weight: Weight::Look, text });
    }
}

fn has(page: &str, name: &str) -> bool {
    page.lines().any(|line| {
        line.strip_prefix(name).is_some_and(|rest| {
            rest.starts_with([' ', '{'])
                || ["_bucket", "_sum", "_count"].iter().any(|part| rest.starts_with(part))
        })
    })
}

/// What of `tests/contract.toml` is not the agent's to read.
#[derive(serde::Deserialize)]
struct Expectations {
    #[serde(default)]
    expect: Vec<String>,
}

/// The names under `expect`.
fn expected(file: &Path) -> Result<Vec<String>, AuthorError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| AuthorError::Read { path: file.to_owned(), source })?;
    let expectations: Expectations = toml::from_str(&text)
        .map_err(|source| AuthorError::Expectations { path: file.to_owned(), source: Box::new(source) })?;
    Ok(expectations.expect)
}

fn show(format: Output, findings: &[Finding]) -> Result<(), Error> {
    if format == Output::Json {
        let list: Vec<Value> =
            findings.iter().map(|f| json!({ "finding": f.weight.word(), "text": f.text })).collect();
        return Ok(output::json(&json!({ "findings": list }))?);
    }
    for finding in findings {
        output::line(format_args!("{:8} {}", finding.weight.word(), finding.text))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_family() {
        let page = "# TYPE a gauge\na 1\nb_bucket{le=\"1\"} 2\nlonger{x=\"y\"} 3\n";
        for (name, there) in [("a", true), ("b", true), ("longer", true), ("long", false), ("c", false)] {
            assert_eq!(has(page, name), there, "{name}");
        }
    }

    #[test]
    fn every_secret_has_a_value() {
        let text = "manifest = 1\nid = 'x'\nversion = '1'\nworld = 'w'\nlicense = 'l'\ndescription = 'd'\n\
                    [[needs]]\ncapability = 'http'\nwhy = 'y'\nurls = [{ host = 'a', secret = { name = 'one' } }]\n\
                    [[needs]]\ncapability = 'unix-http'\nwhy = 'y'\n\
                    sockets = [{ path = '/a' }, { path = '/b', secret = { name = 'two' } }]\n\
                    [[needs]]\ncapability = 'containers'\nwhy = 'y'\nsockets = ['/c']\n";
        let manifest = picket_artifact::Manifest::parse(text.as_bytes()).unwrap();
        let digest = picket_artifact::Digest::of(b"");
        let component = Component { bytes: Vec::new(), digest, text: None, manifest: Some(manifest) };
        assert_eq!(placeholders(&component, &[]), ["one=/dev/null", "two=/dev/null"]);
        assert_eq!(placeholders(&component, &["one=/key".to_owned()]), ["two=/dev/null"]);
    }

    #[test]
    fn expectations_are_names() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("contract.toml");
        for (text, names) in [
            ("expect = ['a', 'b']\n[settings]\nx = 1", Some(2)),
            ("[settings]", Some(0)),
            ("expect = 'a'", None),
            ("expect = [1]", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(expected(&file).ok().map(|names| names.len()), names, "{text}");
        }
    }

    #[test]
    fn readings_are_judged() {
        let judged = |collected: Value| {
            let mut findings = Vec::new();
            judge(&collected, &json!({ "memory": 100 }), &mut findings);
            findings.iter().map(|f| f.weight).collect::<Vec<_>>()
        };
        assert_eq!(judged(json!({ "error": null, "failures": [], "cost": { "memory": 10 } })), []);
        assert_eq!(judged(json!({ "cost": { "memory": 90 } })), [Weight::Look]);
        assert_eq!(judged(json!({ "error": { "code": "PKT-0069" } })), [Weight::Look]);
        assert_eq!(judged(json!({ "error": { "code": "PKT-0060" } })), [Weight::Refused]);
        assert_eq!(
            judged(json!({ "failures": [{ "reason": "refused" }, { "reason": "parse" }] })),
            [Weight::Refused, Weight::Look]
        );
        assert_eq!(judged(json!({ "failures": [{ "reason": "duplicate" }] })), [Weight::Refused]);
    }
}
