//! An action that tries to change something wherever it is called, and says how that ended.

wit_bindgen::generate!({
    path: "../../../../../wit",
    world: "picket:action/action-plugin@0.1.0",
    generate_all,
});

use exports::picket::action::action::*;
use picket::host::{files_write, store};
use picket::types::types::Subject;

struct Deed;

/// What each effect said: `ok`, or its error.
fn try_all() -> Vec<String> {
    let set = match store::set("key", b"value", None) {
        Ok(()) => "ok".to_owned(),
        Err(store::StoreError::Full(text) | store::StoreError::Other(text)) => text,
    };
    let file = files_write::Found { path: "/nowhere".to_owned(), bytes: 0, modified: 0, inode: 0, device: 0 };
    let deleted = match files_write::delete(&file) {
        Ok(_) => "ok".to_owned(),
        Err(files_write::FilesWriteError::Denied(text)) => format!("denied: {text}"),
        Err(_) => "error".to_owned(),
    };
    let read = match store::get("key") {
        Ok(Some(_)) => "there",
        Ok(None) => "nothing",
        Err(_) => "error",
    };
    vec![format!("store.set: {set}"), format!("files.delete: {deleted}"), format!("store.get: {read}")]
}

impl Guest for Deed {
    fn describe() -> Vec<Definition> {
        let name = |name: &str| Definition {
            name: name.to_owned(),
            summary: format!("does {name}"),
            parameters: "{}".to_owned(),
            disturbs: vec![Disturbance::Container],
            reversible: true,
        };
        ["try", "trap", "loop", "sprawl", "refuse", "Not a word"].into_iter().take(5).map(name).collect()
    }

    fn configure(settings: String) -> Result<(), ActionError> {
        if settings.contains("bad") {
            return Err(ActionError { reason: "settings".to_owned(), message: "bad settings".to_owned() });
        }
        Ok(())
    }

    fn plan(name: String, parameters: String) -> Result<ActionPlan, ActionError> {
        match name.as_str() {
            "refuse" => {
                return Err(ActionError { reason: "No Word!".to_owned(), message: "no\nnever".to_owned() });
            }
            "trap" => core::arch::wasm32::unreachable(),
            "loop" => loop {
                core::hint::black_box(0);
            },
            _ => {}
        }
        let arguments = if name == "sprawl" { "x".repeat(100_000) } else { parameters };
        let subject = Subject { kind: "container".to_owned(), id: "a".to_owned() };
        Ok(ActionPlan {
            steps: vec![Step { summary: "try it".to_owned(), subject, arguments }],
            notes: try_all(),
        })
    }

    fn apply(_: String, step: Step) -> Result<Applied, ActionError> {
        if step.arguments.contains("trap") {
            core::arch::wasm32::unreachable();
        }
        Ok(Applied { before: "before".to_owned(), message: try_all().join("; ") })
    }

    fn probe(_: String, _: Step) -> Verdict {
        Verdict::CannotTell(try_all().join("; "))
    }

    fn revert(_: String, _: Step, before: String) -> Result<String, ActionError> {
        Ok(format!("{before}; {}", try_all().join("; ")))
    }
}

export!(Deed);
