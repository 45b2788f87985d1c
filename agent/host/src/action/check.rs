//! What a plugin hands over is looked at before anything else sees it: every text is bounded and on one line, every name
//! a word.

use serde_json::Value;

use super::model::{Applied, Declined, Definition, Described, Plan, Step, Verdict};

const MAX_DEFINITIONS: usize = 64;
const MAX_NAME: usize = 64;
const MAX_SUMMARY: usize = 1024;
const MAX_SCHEMA: usize = 16 << 10;
const MAX_DISTURBS: usize = 8;
const MAX_STEPS: usize = 64;
const MAX_ARGUMENTS: usize = 64 << 10;
const MAX_NOTES: usize = 16;
const MAX_SUBJECT: usize = 512;
/// What is kept for a revert.
const MAX_BEFORE: usize = 64 << 10;
/// What a step says of itself.
const MAX_MESSAGE: usize = 4 << 10;

pub(super) fn definitions(described: Vec<Described>) -> Result<Vec<Definition>, String> {
    if described.is_empty() || described.len() > MAX_DEFINITIONS {
        return Err(format!("it describes {} actions; 1 to {MAX_DEFINITIONS} are allowed", described.len()));
    }
    let mut known: Vec<Definition> = Vec::with_capacity(described.len());
    for one in described {
        let Described { name, summary, parameters, disturbs, reversible } = one;
        if !is_word(&name) {
            return Err(format!("an action's name {:?}: {WORD}", cut(&name, MAX_NAME)));
        }
        if known.iter().any(|k| k.name == name) {
            return Err(format!("it describes {name} twice"));
        }
        if parameters.len() > MAX_SCHEMA {
            return Err(format!("{name}: the schema is longer than {MAX_SCHEMA} bytes"));
        }
        let schema: Value = serde_json::from_str(&parameters)
            .map_err(|e| format!("{name}: the schema of the parameters is no JSON: {e}"))?;
        if !schema.is_object() {
            return Err(format!("{name}: the schema of the parameters is no object"));
        }
        if disturbs.len() > MAX_DISTURBS || disturbs.iter().any(|d| !is_word(d)) {
            return Err(format!("{name}: what it disturbs: at most {MAX_DISTURBS} words; {WORD}"));
        }
        known.push(Definition {
            name,
            summary: line(&summary, MAX_SUMMARY),
            parameters: schema,
            disturbs,
            reversible,
        });
    }
    Ok(known)
}

pub(super) fn plan(plan: Plan) -> Result<Plan, String> {
    let Plan { steps, notes } = plan;
    if steps.len() > MAX_STEPS {
        return Err(format!("a plan of {} steps; at most {MAX_STEPS} are allowed", steps.len()));
    }
    let steps = steps
        .into_iter()
        .map(|step| {
            let Step { summary, subject_kind, subject_id, arguments } = step;
            if summary.trim().is_empty() {
                return Err("a step without a summary".to_owned());
            }
            if !is_word(&subject_kind) {
                return Err(format!("a subject of the kind {:?}: {WORD}", cut(&subject_kind, MAX_NAME)));
            }
            if subject_id.len() > MAX_SUBJECT {
                return Err(format!("a subject's id is longer than {MAX_SUBJECT} bytes"));
            }
            if arguments.len() > MAX_ARGUMENTS {
                return Err(format!("a step's arguments are longer than {MAX_ARGUMENTS} bytes"));
            }
            // A person agrees to the whole of it: what was cut would be agreed to unseen.
            if summary.len() > MAX_SUMMARY {
                return Err(format!("a step's summary is longer than {MAX_SUMMARY} bytes"));
            }
            Ok(Step {
                summary: line(&summary, MAX_SUMMARY),
                subject_kind,
                subject_id: line(&subject_id, MAX_SUBJECT),
                arguments,
            })
        })
        .collect::<Result<_, String>>()?;
    let notes = notes.iter().take(MAX_NOTES).map(|note| line(note, MAX_SUMMARY)).collect();
    Ok(Plan { steps, notes })
}

pub(super) fn applied(applied: Applied) -> Applied {
    let Applied { before, message } = applied;
    // Cut it would be another state: none is better.
    let before = if before.len() > MAX_BEFORE { String::new() } else { before };
    Applied { before, message: line(&message, MAX_MESSAGE) }
}

pub(super) fn declined(declined: Declined) -> Declined {
    let Declined { reason, message } = declined;
    let reason = if is_word(&reason) { reason } else { "other".to_owned() };
    Declined { reason, message: line(&message, MAX_MESSAGE) }
}

pub(super) fn verdict(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Done(text) => Verdict::Done(message(&text)),
        Verdict::NotDone(text) => Verdict::NotDone(message(&text)),
        Verdict::CannotTell(text) => Verdict::CannotTell(message(&text)),
    }
}

pub(super) fn message(text: &str) -> String {
    line(text, MAX_MESSAGE)
}

const WORD: &str = "a word of lower-case letters, digits and -, with a letter first";

fn is_word(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or_default()
}

fn line(text: &str, most: usize) -> String {
    cut(text, most).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn described(name: &str) -> Described {
        Described {
            name: name.to_owned(),
            summary: "does".to_owned(),
            parameters: "{}".to_owned(),
            disturbs: vec!["container".to_owned()],
            reversible: true,
        }
    }

    fn step() -> Step {
        Step {
            summary: "restart\nit".to_owned(),
            subject_kind: "container".to_owned(),
            subject_id: "a".to_owned(),
            arguments: "{}".to_owned(),
        }
    }

    #[test]
    fn definitions_are_checked() {
        let good = definitions(vec![described("restart"), described("stop")]).unwrap();
        assert_eq!(good.len(), 2);
        for bad in [
            vec![],
            vec![described("Restart")],
            vec![described("re start")],
            vec![described("")],
            vec![described("a"), described("a")],
            vec![Described { parameters: "[]".to_owned(), ..described("a") }],
            vec![Described { parameters: "{".to_owned(), ..described("a") }],
            vec![Described { disturbs: vec!["x y".to_owned()], ..described("a") }],
            (0..65).map(|n| described(&format!("a{n}"))).collect(),
        ] {
            assert!(definitions(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plans_are_checked() {
        let good = plan(Plan { steps: vec![step()], notes: vec!["a\u{1b}b".to_owned()] }).unwrap();
        assert_eq!(good.steps[0].summary, "restart it");
        assert_eq!(good.notes, ["a b"]);
        for bad in [
            Step { summary: " ".to_owned(), ..step() },
            Step { subject_kind: "A".to_owned(), ..step() },
            Step { subject_id: "x".repeat(600), ..step() },
            Step { arguments: "x".repeat(70_000), ..step() },
            Step { summary: "x".repeat(2000), ..step() },
        ] {
            assert!(plan(Plan { steps: vec![bad], notes: vec![] }).is_err());
        }
        assert!(plan(Plan { steps: vec![step(); 65], notes: vec![] }).is_err());
    }

    #[test]
    fn what_needs_a_second_person() {
        let of = |disturbs: &[&str], reversible| Definition {
            name: "x".to_owned(),
            summary: String::new(),
            parameters: Value::Null,
            disturbs: disturbs.iter().map(|d| (*d).to_owned()).collect(),
            reversible,
        };
        for (definition, dangerous) in [
            (of(&["container"], false), false),
            (of(&["process", "service"], false), false),
            (of(&["gpu"], false), true),
            (of(&["gpu"], true), false),
            (of(&["container", "data"], false), true),
            (of(&["universe"], false), true),
            (of(&[], false), false),
        ] {
            assert_eq!(definition.is_dangerous(), dangerous, "{definition:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_gets_through_unbounded(text in "\\PC{0,200}|[\u{0}-\u{20}]{0,64}", many in 0usize..40) {
            let long = text.repeat(many);
            let said = applied(Applied { before: long.clone(), message: long.clone() });
            prop_assert!(said.before.len() <= MAX_BEFORE && said.message.len() <= MAX_MESSAGE);
            prop_assert!(!said.message.chars().any(char::is_control));
            let no = declined(Declined { reason: long.clone(), message: long });
            prop_assert!(is_word(&no.reason));
        }
    }
}
