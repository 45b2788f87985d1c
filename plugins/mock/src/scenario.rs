//! Which load is simulated: four named scenarios, and single values that an operator sets over them.

use serde::{Deserialize, Serialize};

/// The named loads. Both spellings of `high_load` are read, the one with the underscore is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    #[default]
    Normal,
    #[serde(alias = "high-load")]
    HighLoad,
    Degraded,
    Failure,
}

/// The base values of a scenario, in percent.
pub struct Base {
    pub cpu: f64,
    pub gpu: f64,
    pub error_rate: f64,
}

impl Scenario {
    pub const NAMES: [&str; 4] = ["normal", "high_load", "degraded", "failure"];

    pub fn base(self) -> Base {
        let (cpu, gpu, error_rate) = match self {
            Self::Normal => (30.0, 60.0, 0.1),
            Self::HighLoad => (80.0, 90.0, 0.5),
            Self::Degraded => (50.0, 70.0, 5.0),
            Self::Failure => (90.0, 35.0, 25.0),
        };
        Base { cpu, gpu, error_rate }
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "normal" => Self::Normal,
            "high_load" | "high-load" => Self::HighLoad,
            "degraded" => Self::Degraded,
            "failure" => Self::Failure,
            _ => return None,
        })
    }
}

/// Single values over the scenario's; what is set is exported as it is, without pattern, noise or anomaly.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Overrides {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_load: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_utilization: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_temperature_celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_power_watts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_multiplier: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_anomalies: Option<bool>,
}

/// The numbers that may be set: name, unit, least, most.
const NUMBERS: [(&str, &str, f64, f64); 7] = [
    ("cpu_load", "percent", 0.0, 100.0),
    ("gpu_utilization", "percent", 0.0, 100.0),
    ("gpu_memory_percent", "percent", 0.0, 100.0),
    ("gpu_temperature_celsius", "°C", -50.0, 150.0),
    ("gpu_power_watts", "W", 0.0, 2000.0),
    ("error_rate", "percent", 0.0, 100.0),
    ("request_multiplier", "times", 0.0, 1000.0),
];

/// The scenario in force, as `GET /api/v1/scenario` shows it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Load {
    pub scenario: Scenario,
    pub settings: Overrides,
}

impl Load {
    /// Reads `{"scenario": …, "settings": {…}}`. What is wrong comes back as lines that say what is allowed.
    pub fn parse(json: &str) -> Result<Self, Vec<String>> {
        let value: serde_json::Value =
            serde_json::from_str(json).map_err(|e| vec![format!("not JSON: {e}"), Self::allowed()])?;
        let Some(object) = value.as_object() else {
            return Err(vec![format!("not a JSON object: {value}"), Self::allowed()]);
        };
        let mut load = Self::default();
        let mut wrong = Vec::new();
        match object.get("scenario") {
            Some(serde_json::Value::String(name)) => match Scenario::parse(name) {
                Some(scenario) => load.scenario = scenario,
                None => wrong.push(format!("scenario {name:?} is none of {}", Scenario::NAMES.join(", "))),
            },
            Some(other) => {
                wrong.push(format!("scenario is {other}, one of {} is wanted", Scenario::NAMES.join(", ")))
            }
            None => wrong.push(format!("scenario is missing: one of {}", Scenario::NAMES.join(", "))),
        }
        match object.get("settings") {
            None | Some(serde_json::Value::Null) => {}
            Some(serde_json::Value::Object(settings)) => {
                for (key, value) in settings {
                    if let Err(line) = load.settings.put(key, value) {
                        wrong.push(line);
                    }
                }
            }
            Some(other) => wrong.push(format!("settings is {other}, an object is wanted")),
        }
        for key in object.keys().filter(|k| !matches!(k.as_str(), "scenario" | "settings")) {
            wrong.push(format!("{key:?} is unknown: scenario and settings are allowed"));
        }
        if wrong.is_empty() {
            Ok(load)
        } else {
            wrong.push(Self::allowed());
            Err(wrong)
        }
    }

    /// As `parse` reads it.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    fn allowed() -> String {
        let numbers: Vec<String> = NUMBERS
            .iter()
            .map(|(name, unit, low, high)| format!("{name} ({low} to {high} {unit})"))
            .collect();
        format!(
            "allowed: {{\"scenario\": {}, \"settings\": {{{}, enable_anomalies (true or false)}}}}",
            Scenario::NAMES.join(" | "),
            numbers.join(", ")
        )
    }

    /// The JSON Schema of what `parse` reads.
    pub fn schema() -> serde_json::Value {
        let mut properties: serde_json::Map<String, serde_json::Value> = NUMBERS
            .iter()
            .map(|(name, unit, low, high)| {
                let schema =
                    serde_json::json!({"type": "number", "minimum": low, "maximum": high, "description": unit});
                ((*name).to_owned(), schema)
            })
            .collect();
        properties.insert("enable_anomalies".into(), serde_json::json!({"type": "boolean"}));
        serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["scenario"],
            "additionalProperties": false,
            "properties": {
                "scenario": {"enum": Scenario::NAMES},
                "settings": {"type": "object", "additionalProperties": false, "properties": properties},
            },
        })
    }
}

impl Overrides {
    fn put(&mut self, key: &str, value: &serde_json::Value) -> Result<(), String> {
        if key == "enable_anomalies" {
            let flag = value.as_bool().ok_or_else(|| format!("{key} is {value}, true or false is wanted"))?;
            self.enable_anomalies = Some(flag);
            return Ok(());
        }
        let Some((_, unit, low, high)) = NUMBERS.iter().find(|(name, ..)| *name == key) else {
            return Err(format!("the setting {key:?} is unknown"));
        };
        let number = value
            .as_f64()
            .filter(|n| (*low..=*high).contains(n))
            .ok_or_else(|| format!("{key} is {value}, a number from {low} to {high} ({unit}) is wanted"))?;
        let slot = match key {
            "cpu_load" => &mut self.cpu_load,
            "gpu_utilization" => &mut self.gpu_utilization,
            "gpu_memory_percent" => &mut self.gpu_memory_percent,
            "gpu_temperature_celsius" => &mut self.gpu_temperature_celsius,
            "gpu_power_watts" => &mut self.gpu_power_watts,
            "error_rate" => &mut self.error_rate,
            _ => &mut self.request_multiplier,
        };
        *slot = Some(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_parses_in_both_spellings() {
        for (name, want) in [
            ("normal", Scenario::Normal),
            ("high_load", Scenario::HighLoad),
            ("high-load", Scenario::HighLoad),
            ("degraded", Scenario::Degraded),
            ("failure", Scenario::Failure),
        ] {
            let load = Load::parse(&format!(r#"{{"scenario":"{name}"}}"#)).unwrap();
            assert_eq!(load.scenario, want);
        }
    }

    #[test]
    fn refusals_name_what_is_allowed() {
        for (json, word) in [
            ("", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "scenario is missing"),
            (r#"{"scenario":"fast"}"#, "\"fast\" is none of normal, high_load"),
            (r#"{"scenario":1}"#, "one of normal"),
            (r#"{"scenario":"normal","settings":{"cpu_load":101}}"#, "a number from 0 to 100"),
            (r#"{"scenario":"normal","settings":{"cpu":1}}"#, "the setting \"cpu\" is unknown"),
            (r#"{"scenario":"normal","settings":{"enable_anomalies":1}}"#, "true or false"),
            (r#"{"scenario":"normal","speed":1}"#, "\"speed\" is unknown"),
        ] {
            let lines = Load::parse(json).unwrap_err();
            assert!(lines.iter().any(|l| l.contains(word)), "{json}: {lines:?}");
            assert!(lines.last().unwrap().starts_with("allowed: "), "{json}");
        }
    }

    #[test]
    fn a_temperature_above_the_alert_can_be_set() {
        let load =
            Load::parse(r#"{"scenario":"high_load","settings":{"gpu_temperature_celsius":87}}"#).unwrap();
        assert_eq!(load.settings.gpu_temperature_celsius, Some(87.0));
        let shown = serde_json::to_string(&load).unwrap();
        assert_eq!(shown, r#"{"scenario":"high_load","settings":{"gpu_temperature_celsius":87.0}}"#);
        assert_eq!(Load::parse(&shown).unwrap(), load);
    }
}
