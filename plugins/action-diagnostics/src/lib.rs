//! Puts together a bounded bundle of what people need to look into a node.
//!
//! A step a part: a command's output, a file (what a command wrote), or a page of the agent's own. A part that can't be had is
//! left out and the step says why; the rest goes on. To collect again under the same name replaces what was there, so a
//! step that was cut off is no harm done twice.

use std::io::Read as _;

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::{Failure, command, files, files_write, http};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Bytes that are handed on at once.
const PIECE: usize = 256 << 10;
/// Bytes of one part; the grant bounds the bundle.
const PART: u64 = 32 << 20;

/// The bundle.
pub struct Diagnostics {
    settings: Settings,
}

/// The operator's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    agent: String,
    parts: Vec<Part>,
}

impl Default for Settings {
    fn default() -> Self {
        let of_command = |file: &str, command: &str| Part {
            file: file.to_owned(),
            command: Some(command.to_owned()),
            ..Part::default()
        };
        let of_page = |file: &str, page: &str| Part {
            file: file.to_owned(),
            page: Some(page.to_owned()),
            ..Part::default()
        };
        Self {
            agent: "http://127.0.0.1:9460".to_owned(),
            parts: vec![
                of_command("dmesg.txt", "diag-dmesg"),
                of_command("journal.txt", "diag-journal"),
                of_command("nvidia-smi.txt", "diag-nvidia-smi"),
                Part {
                    read: Some("/var/lib/picket-agent/bundles/nvidia-bug-report.gz".to_owned()),
                    ..of_command("nvidia-bug-report.log.gz", "diag-nvidia-bug-report")
                },
                of_page("plugins.json", "/api/v1/plugins"),
                of_page("readyz.json", "/readyz"),
            ],
        }
    }
}

/// One file of the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Part {
    file: String,
    /// Its output, or with `read` what it is to write.
    command: Option<String>,
    /// This file's content.
    read: Option<String>,
    /// A page of the agent's.
    page: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    name: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Target {
    bundle: String,
    part: Part,
}

impl Action for Diagnostics {
    type Settings = Settings;

    fn describe() -> Vec<Definition> {
        vec![Definition::new("collect", "Puts together a bundle for people to look at").parameters(json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "properties": { "name": { "type": "string", "minLength": 1, "maxLength": 64,
                "description": "the bundle's: xid79-gpu3. One of this name is replaced" } }
        }))]
    }

    fn new(settings: Settings) -> Result<Self, Failure> {
        if let Some(part) =
            settings.parts.iter().find(|p| p.command.is_none() && p.read.is_none() && p.page.is_none())
        {
            let message = format!("parts: {} has neither command, read nor page", part.file);
            return Err(Failure::new("settings", message));
        }
        Ok(Self { settings })
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        if name != "collect" {
            return Err(Failure::new("parameters", format!("there is no action {name}")));
        }
        let wish: Wish = parameters.read()?;
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !wish.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !wish.name.chars().all(good) {
            return Err(Failure::new("parameters", "a bundle's name has letters, digits, . - and _ alone"));
        }
        let mut steps = Vec::new();
        for part in &self.settings.parts {
            let from = match (&part.command, &part.read, &part.page) {
                (Some(command), Some(read), _) => format!("what the command {command} writes to {read}"),
                (Some(command), None, _) => format!("what the command {command} prints"),
                (None, Some(read), _) => format!("the file {read}"),
                (None, None, page) => format!("the agent's page {}", page.as_deref().unwrap_or_default()),
            };
            let summary = format!("put {from} into the bundle {} as {}", wish.name, part.file);
            let target = Target { bundle: wish.name.clone(), part: part.clone() };
            steps.push(Step::new(summary, ("bundle", &wish.name), &target)?);
        }
        Ok(Plan::of(steps))
    }

    fn apply(&mut self, _: &str, step: &Step) -> Result<Applied, Failure> {
        let Target { bundle, part } = step.arguments()?;
        let mut file = File { bundle: &bundle, name: &part.file, bytes: 0, path: String::new() };
        match self.fill(&part, &mut file) {
            Ok(()) => Ok(Applied::new(format!("{} bytes in {}", file.bytes, file.path))),
            // What is not there is not there: the bundle is of use without it.
            Err(failure) if file.bytes == 0 => {
                Ok(Applied::new(format!("{} is left out: {failure}", part.file)))
            }
            Err(failure) => Ok(Applied::new(format!(
                "{} bytes in {}, then it broke off: {failure}",
                file.bytes, file.path
            ))),
        }
    }

    fn probe(&mut self, _: &str, _: &Step) -> Verdict {
        // Nothing but the bundle is changed, and to write it again gives the same.
        Verdict::NotDone("it can be put together again".to_owned())
    }
}

struct File<'a> {
    bundle: &'a str,
    name: &'a str,
    bytes: u64,
    path: String,
}

impl File<'_> {
    fn put(&mut self, content: &[u8]) -> Result<(), Failure> {
        let first = self.path.is_empty();
        self.path = files_write::put(self.bundle, self.name, content, first)?;
        self.bytes += content.len() as u64;
        if self.bytes > PART {
            return Err(Failure::new("too-large", format!("a part has {PART} bytes at most")));
        }
        Ok(())
    }
}

impl Diagnostics {
    fn fill(&self, part: &Part, file: &mut File<'_>) -> Result<(), Failure> {
        if let Some(name) = &part.command {
            let mut stream = command::stream(name, &[])?;
            let mut piece = vec![0; PIECE];
            loop {
                let got = stream.read(&mut piece).map_err(|e| {
                    stream.failure().unwrap_or_else(|| Failure::new("command", format!("{name}: {e}")))
                })?;
                if got == 0 {
                    break;
                }
                if part.read.is_none() {
                    file.put(piece.get(..got).unwrap_or_default())?;
                }
            }
            let outcome = stream.finish()?;
            if outcome.status != 0 {
                let said: String = outcome.stderr.trim().chars().take(300).collect();
                return Err(Failure::new("status", format!("{name} ended with {}: {said}", outcome.status)));
            }
        }
        if let Some(path) = &part.read {
            for piece in files::read(path)?.chunks(PIECE) {
                file.put(piece)?;
            }
        }
        if let Some(page) = &part.page {
            let response = http::send(&http::Request::get(format!("{}{page}", self.settings.agent)))?;
            // `/readyz` of an agent that is not ready is what is looked for.
            for piece in response.body.chunks(PIECE) {
                file.put(piece)?;
            }
        }
        Ok(())
    }
}

picket_sdk::export_action!(Diagnostics);
