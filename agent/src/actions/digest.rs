//! The digest of a plan: what a person agrees to, as one number. It covers every word of the plan, what it is of, and the
//! plugin's own bytes, so that nothing that was not shown can be done by it.

use picket_agent_host::ActionPlan;
use ring::digest::{SHA256, digest as hash};
use serde_json::Value;

/// What the plan is of.
#[derive(Debug, Clone, Copy)]
pub struct Of<'a> {
    pub plugin: &'a str,
    /// Of the component file.
    pub plugin_digest: &'a str,
    pub action: &'a str,
    pub parameters: &'a str,
}

/// SHA-256, hex.
pub fn digest(of: Of<'_>, plan: &ActionPlan) -> String {
    let mut bytes = b"picket plan 1\n".to_vec();
    let mut put = |text: &str| {
        // With its length before it, no text can be taken for two others.
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    };
    for text in [of.plugin, of.plugin_digest, of.action, of.parameters] {
        put(text);
    }
    put(&plan.steps.len().to_string());
    for step in &plan.steps {
        for text in [&step.summary, &step.subject_kind, &step.subject_id, &step.arguments] {
            put(text);
        }
    }
    put(&plan.notes.len().to_string());
    plan.notes.iter().for_each(|note| put(note));
    hash(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Parameters as they are handed on and digested: an object with its keys in order, and nothing between them.
///
/// # Errors
/// For whoever sent them.
pub fn canonical(parameters: &str) -> Result<String, String> {
    const MOST: usize = 16 << 10;
    if parameters.len() > MOST {
        return Err(format!("the parameters are longer than {MOST} bytes"));
    }
    let text = if parameters.trim().is_empty() { "{}" } else { parameters };
    match serde_json::from_str::<Value>(text) {
        // `serde_json`'s maps are in order of their keys.
        Ok(value @ Value::Object(_)) => Ok(value.to_string()),
        Ok(_) => Err("the parameters are no JSON object".to_owned()),
        Err(error) => Err(format!("the parameters are no JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use picket_agent_host::Step;
    use proptest::prelude::*;

    use super::*;

    fn of() -> Of<'static> {
        Of { plugin: "p", plugin_digest: "d", action: "a", parameters: "{}" }
    }

    fn step() -> impl Strategy<Value = Step> {
        ("[a-c]{0,3}", "[a-c]{0,3}", "[a-c]{0,3}", "[a-c]{0,3}").prop_map(
            |(summary, subject_kind, subject_id, arguments)| Step {
                summary,
                subject_kind,
                subject_id,
                arguments,
            },
        )
    }

    fn plan() -> impl Strategy<Value = ActionPlan> {
        (prop::collection::vec(step(), 0..3), prop::collection::vec("[a-c]{0,3}", 0..3))
            .prop_map(|(steps, notes)| ActionPlan { steps, notes })
    }

    proptest! {
        #[test]
        fn two_plans_have_one_digest_only_if_they_are_one(a in plan(), b in plan()) {
            prop_assert_eq!(digest(of(), &a) == digest(of(), &b), a == b);
        }

        #[test]
        fn canonical_is_the_same_again(keys in prop::collection::btree_map("[a-z]{1,3}", any::<i32>(), 0..5)) {
            let text = serde_json::to_string_pretty(&keys).unwrap();
            let once = canonical(&text).unwrap();
            prop_assert_eq!(canonical(&once).unwrap(), once);
        }
    }

    #[test]
    fn what_it_is_of_is_in_it() {
        let plan = ActionPlan { steps: Vec::new(), notes: Vec::new() };
        let one = digest(of(), &plan);
        assert_eq!(one.len(), 64);
        for other in [
            Of { plugin: "q", ..of() },
            Of { plugin_digest: "e", ..of() },
            Of { action: "b", ..of() },
            Of { parameters: "{\"a\":1}", ..of() },
            Of { plugin: "pd", plugin_digest: "", ..of() },
        ] {
            assert_ne!(digest(other, &plan), one, "{other:?}");
        }
    }

    #[test]
    fn parameters() {
        assert_eq!(canonical("").unwrap(), "{}");
        assert_eq!(canonical(" { \"b\" : 1, \"a\" : [ ] } ").unwrap(), "{\"a\":[],\"b\":1}");
        for bad in ["[]", "1", "{", "null"] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
        assert!(canonical(&format!("{{\"a\":\"{}\"}}", "x".repeat(20_000))).is_err());
    }
}
