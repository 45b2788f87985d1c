//! Deletes files by rule.
//!
//! A plan names each file, a step of fifty at most, as it was found: with its inode, size and time. What was changed since
//! is left alone. What is deleted stays deleted, so this is an action that a second person has to agree to.

use picket_sdk::action::{Action, Applied, Definition, Parameters, Plan, Step, Verdict};
use picket_sdk::files_write::{self, End, FilesWriteError, Found, Rule};
use picket_sdk::{Failure, NoSettings, serde_json};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Files of one step: its arguments have to fit.
const PER_STEP: usize = 50;
/// Files of one plan.
const MOST: u32 = 1_000;

/// Files.
pub struct Files;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    pattern: String,
    #[serde(default)]
    older_than_hours: u64,
    #[serde(default)]
    at_least_bytes: u64,
    #[serde(default = "most")]
    most: u32,
}

const fn most() -> u32 {
    100
}

#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    files: Vec<Found>,
}

impl Action for Files {
    type Settings = NoSettings;

    fn describe() -> Vec<Definition> {
        let parameters = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["pattern"],
            "properties": {
                "pattern": { "type": "string", "minLength": 2, "maxLength": 1024,
                    "description": "within a granted one: /var/tmp/cores/**/*.core" },
                "older_than_hours": { "type": "integer", "minimum": 0, "default": 0,
                    "description": "not changed for so long" },
                "at_least_bytes": { "type": "integer", "minimum": 0, "default": 0 },
                "most": { "type": "integer", "minimum": 1, "maximum": MOST, "default": most(),
                    "description": "the oldest so many" }
            }
        });
        vec![
            Definition::new("clean-up", "Deletes the files that fit a rule")
                .parameters(parameters)
                .disturbs(&["data"]),
        ]
    }

    fn new(_: NoSettings) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn plan(&mut self, name: &str, parameters: &Parameters) -> Result<Plan, Failure> {
        if name != "clean-up" {
            return Err(unknown(name));
        }
        let wish: Wish = parameters.read()?;
        let rule = Rule {
            pattern: wish.pattern.clone(),
            older_than: wish.older_than_hours.saturating_mul(3600),
            at_least: wish.at_least_bytes,
            most: wish.most.clamp(1, MOST),
        };
        let found = files_write::find(&rule)?;
        if found.files.is_empty() {
            return Ok(Plan::nothing(format!("no file fits {}", wish.pattern)));
        }
        let total: u64 = found.files.iter().map(|f| f.bytes).sum();
        let mut plan = Plan::default().note(format!("{} files, {}", found.files.len(), size(total)));
        if found.more {
            plan = plan.note("there are more that fit; these are the oldest");
        }
        for files in found.files.chunks(PER_STEP) {
            let batch = Batch { files: files.to_vec() };
            plan.steps.push(Step::new(summary(files), ("files", &wish.pattern), &batch)?);
        }
        Ok(plan)
    }

    fn apply(&mut self, name: &str, step: &Step) -> Result<Applied, Failure> {
        if name != "clean-up" {
            return Err(unknown(name));
        }
        let batch: Batch = step.arguments()?;
        let (mut deleted, mut bytes, mut left) = (0u64, 0u64, Vec::new());
        for file in &batch.files {
            match files_write::delete(file) {
                Ok(End::Deleted) => {
                    deleted += 1;
                    bytes += file.bytes;
                }
                Ok(End::Gone) => {}
                Err(error @ FilesWriteError::Denied(_)) if deleted == 0 && left.is_empty() => {
                    return Err(error.into());
                }
                Err(error) => left.push(error.to_string()),
            }
        }
        let mut message = format!("{deleted} of {} files deleted, {} freed", batch.files.len(), size(bytes));
        if let Some(why) = left.first() {
            message.push_str(&format!("; {} left alone: {why}", left.len()));
        }
        Ok(Applied::new(message))
    }

    fn probe(&mut self, _: &str, step: &Step) -> Verdict {
        let batch: Batch = match step.arguments() {
            Ok(batch) => batch,
            Err(failure) => return Verdict::CannotTell(failure.message),
        };
        let mut there = 0;
        for file in &batch.files {
            let rule = Rule { pattern: file.path.clone(), most: 1, ..Rule::default() };
            match files_write::find(&rule) {
                Ok(found) => there += usize::from(found.files.contains(file)),
                Err(error) => return Verdict::CannotTell(error.to_string()),
            }
        }
        if there == 0 {
            Verdict::Done("none of the files is there any more".to_owned())
        } else {
            // To delete the rest is no repetition: each is deleted once, or found gone.
            Verdict::NotDone(format!("{there} of {} files are there still", batch.files.len()))
        }
    }
}

fn summary(files: &[Found]) -> String {
    let bytes: u64 = files.iter().map(|f| f.bytes).sum();
    let named: Vec<&str> = files.iter().take(5).map(|f| f.path.as_str()).collect();
    let more = files.len().saturating_sub(named.len());
    let rest =
        if more > 0 { format!(" and {more} more (all in the step's arguments)") } else { String::new() };
    let text = format!("delete {} files, {}: {}{rest}", files.len(), size(bytes), named.join(", "));
    let end = text.floor_char_boundary(1000);
    text.get(..end).unwrap_or_default().to_owned()
}

fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let bytes_f = bytes as f64;
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{:.1} KiB", bytes_f / 1_024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes_f / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes_f / 1_073_741_824.0),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::new("parameters", format!("there is no action {name}"))
}

picket_sdk::export_action!(Files);
