//! An operator's settings against the schema in a plugin's manifest, before anything of the plugin runs.
//!
//! The schema comes from a stranger, so only the part of JSON Schema is read that cannot make a reader loop or search:
//! `type`, `enum`, `properties`, `required`, `additionalProperties`, `items`, `minimum`, `maximum`, `minLength`,
//! `maxLength`, `minItems`, `maxItems`. No references, no patterns. What else a schema says, the plugin checks itself
//! in `configure`.

use serde_json::Value;

/// The most problems that are told.
const MAX_PROBLEMS: usize = 16;
/// How deep settings may be nested.
const MAX_DEPTH: usize = 32;

/// What is wrong, a sentence each, with the key. `null` settings count as an empty object.
pub(crate) fn problems(schema: &Value, settings: &Value) -> Vec<String> {
    let mut check = Check { found: Vec::new() };
    let empty = Value::Object(serde_json::Map::new());
    let settings = if settings.is_null() { &empty } else { settings };
    check.value(schema, settings, "settings", 0);
    check.found
}

/// As [`problems`], of any value; `at` names it in the sentences.
pub fn schema_problems(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut check = Check { found: Vec::new() };
    check.value(schema, value, at, 0);
    check.found
}

struct Check {
    found: Vec<String>,
}

impl Check {
    fn say(&mut self, problem: String) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(problem);
        }
    }

    fn value(&mut self, schema: &Value, value: &Value, at: &str, depth: usize) {
        if depth > MAX_DEPTH {
            return self.say(format!("{at}: is nested more than {MAX_DEPTH} deep"));
        }
        if schema == &Value::Bool(false) {
            return self.say(format!("{at}: is not allowed"));
        }
        let types = words(schema.get("type"));
        if !types.is_empty() && !types.iter().any(|t| is(value, t)) {
            return self.say(format!("{at}: must be {}, not {}", types.join(" or "), shown(value)));
        }
        if let Some(Value::Array(allowed)) = schema.get("enum")
            && !allowed.contains(value)
        {
            let allowed: Vec<String> = allowed.iter().map(shown).collect();
            self.say(format!("{at}: {} is not allowed; one of {} is", shown(value), allowed.join(", ")));
        }
        match value {
            Value::Object(map) => self.object(schema, map, at, depth),
            Value::Array(items) => self.array(schema, items, at, depth),
            Value::Number(number) => self.bounds(schema, ["minimum", "maximum"], number.as_f64(), "", at),
            Value::String(text) => {
                let length = text.chars().count() as f64;
                self.bounds(schema, ["minLength", "maxLength"], Some(length), " characters", at);
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Value, map: &serde_json::Map<String, Value>, at: &str, depth: usize) {
        let empty = serde_json::Map::new();
        let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        for required in words(schema.get("required")) {
            if !map.contains_key(required) {
                self.say(format!("{at}.{required}: is missing"));
            }
        }
        for (key, value) in map {
            let here = format!("{at}.{key}");
            match (known.get(key), schema.get("additionalProperties")) {
                (Some(schema), _) => self.value(schema, value, &here, depth + 1),
                (None, Some(Value::Bool(false))) => {
                    let hint = nearest(key, known.keys()).map(|k| format!("; is `{k}` meant?"));
                    self.say(format!("{here}: the plugin has no such setting{}", hint.unwrap_or_default()));
                }
                (None, Some(schema @ Value::Object(_))) => self.value(schema, value, &here, depth + 1),
                (None, _) => {}
            }
        }
    }

    fn array(&mut self, schema: &Value, items: &[Value], at: &str, depth: usize) {
        self.bounds(schema, ["minItems", "maxItems"], Some(items.len() as f64), " entries", at);
        if let Some(schema) = schema.get("items") {
            for (number, item) in items.iter().enumerate() {
                self.value(schema, item, &format!("{at}[{number}]"), depth + 1);
            }
        }
    }

    fn bounds(&mut self, schema: &Value, keys: [&str; 2], measured: Option<f64>, unit: &str, at: &str) {
        let Some(measured) = measured else { return };
        let [least, most] = keys.map(|key| schema.get(key).and_then(Value::as_f64));
        if least.is_some_and(|least| measured < least) {
            self.say(format!("{at}: {measured}{unit} is too small; at least {}", least.unwrap_or_default()));
        }
        if most.is_some_and(|most| measured > most) {
            self.say(format!("{at}: {measured}{unit} is too large; at most {}", most.unwrap_or_default()));
        }
    }
}

/// A word or a list of words.
fn words(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is(value: &Value, word: &str) -> bool {
    match word {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0),
        "null" => value.is_null(),
        // A type that this reader does not know refuses nothing.
        _ => true,
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 60 { text.chars().take(60).chain("…".chars()).collect() } else { text }
}

/// The known key that is most like this one, where one is.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    known
        .map(|k| (strsim::damerau_levenshtein(key, k), k))
        .filter(|(distance, k)| *distance <= 2.max(k.len() / 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["url"],
            "properties": {
                "url": { "type": "string", "minLength": 1 },
                "interval": { "type": ["integer", "string"], "minimum": 1, "maximum": 60 },
                "mode": { "enum": ["full", "partial"] },
                "targets": { "type": "array", "maxItems": 2, "items": { "type": "string" } },
                "labels": { "type": "object", "additionalProperties": { "type": "string" } }
            }
        })
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (settings, told) in [
            (json!({ "url": "http://x", "interval": 5, "mode": "full", "labels": { "a": "b" } }), None),
            (Value::Null, Some("settings.url: is missing")),
            (json!([]), Some("settings: must be object, not []")),
            (json!({ "url": "" }), Some("settings.url: 0 characters is too small; at least 1")),
            (json!({ "url": 1 }), Some("settings.url: must be string, not 1")),
            (json!({ "url": "x", "interval": 61 }), Some("settings.interval: 61 is too large; at most 60")),
            (json!({ "url": "x", "interval": 1.5 }), Some("must be integer or string, not 1.5")),
            (json!({ "url": "x", "mode": "half" }), Some("one of \"full\", \"partial\" is")),
            (json!({ "url": "x", "intervall": 5 }), Some("is `interval` meant?")),
            (json!({ "url": "x", "targets": ["a", 2] }), Some("settings.targets[1]: must be string")),
            (json!({ "url": "x", "targets": ["a", "b", "c"] }), Some("3 entries is too large")),
            (json!({ "url": "x", "labels": { "a": 1 } }), Some("settings.labels.a: must be string")),
        ] {
            let found = problems(&schema(), &settings);
            match told {
                None => assert!(found.is_empty(), "{settings}: {found:?}"),
                Some(told) => assert!(found.iter().any(|f| f.contains(told)), "{settings}: {found:?}"),
            }
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            "[a-z$]{0,8}".prop_map(Value::from),
        ];
        let key = prop_oneof![
            Just("type".to_owned()),
            Just("properties".to_owned()),
            Just("items".to_owned()),
            Just("additionalProperties".to_owned()),
            Just("enum".to_owned()),
            Just("required".to_owned()),
            Just("$ref".to_owned()),
            "[a-z]{1,3}",
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_schema_and_any_settings_end(schema in json_value(), settings in json_value()) {
            prop_assert!(problems(&schema, &settings).len() <= MAX_PROBLEMS);
        }
    }
}
