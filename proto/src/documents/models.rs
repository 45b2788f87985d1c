//! `GET /api/v1/models`: the models that can be asked, through a gateway or at their servers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Reading;

/// The series that the document is made of.
pub const MODEL_SERIES: [&str; 12] =
    [INFO, STATE, SIZE, DOWNLOADS, PARAMETERS, RPM, ERRORS, INPUT, OUTPUT, LATENCY, SERVER, SERVER_STATE];
const INFO: &str = "picket_model_info";
const STATE: &str = "picket_model_state";
const SIZE: &str = "picket_model_size_bytes";
const DOWNLOADS: &str = "picket_model_downloads";
const PARAMETERS: &str = "picket_model_parameters";
const RPM: &str = "llm_model_requests_per_minute";
const ERRORS: &str = "llm_model_errors_per_minute";
const INPUT: &str = "llm_model_tokens_input_per_minute";
const OUTPUT: &str = "llm_model_tokens_output_per_minute";
const LATENCY: &str = "llm_model_latency_ms";
const SERVER: &str = "picket_vllm_container_info";
const SERVER_STATE: &str = "picket_vllm_engine_state";

/// A model at an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The Hugging Face hub's name of it, or else the one that it is asked by.
    pub model_id: String,
    pub model_name: String,
    /// `llm`, `embedding`, `reranker`, or what else the gateway says.
    pub model_type: String,
    /// `available`, `loading` or `error`.
    pub status: &'static str,
    /// Empty where nothing tells of it.
    pub endpoint: String,
    pub current_rpm: Option<f64>,
    /// Failed requests, in percent of all in the last minute.
    pub error_rate: Option<f64>,
    pub tokens_input_per_minute: Option<f64>,
    pub tokens_output_per_minute: Option<f64>,
    pub latency_ms: Option<f64>,
    pub size_bytes: Option<f64>,
    pub parameters: Option<f64>,
    pub downloads: Option<f64>,
    pub license: Option<String>,
    pub quantization: Option<String>,
    /// Whether the hub lets anybody have it: `public`, `gated`, `private`, `restricted`, `absent`.
    pub access: Option<String>,
}

/// All models of the readings, in order of node, name and endpoint.
pub fn models(readings: &[Reading]) -> Vec<Model> {
    let mut of_node: BTreeMap<Option<&str>, Vec<&Reading>> = BTreeMap::new();
    for reading in readings {
        of_node.entry(reading.node.as_deref()).or_default().push(reading);
    }
    let mut all: Vec<Model> = of_node.values().flat_map(|readings| on_node(readings)).collect();
    all.sort_by(|a, b| (&a.node, &a.model_name, &a.endpoint).cmp(&(&b.node, &b.model_name, &b.endpoint)));
    all
}

fn on_node(readings: &[&Reading]) -> Vec<Model> {
    let of = |family: &'static str| readings.iter().filter(move |r| r.name == family);
    let mut list: Vec<Model> = of(INFO).map(|info| told(info, readings)).collect();
    for server in of(SERVER) {
        let (container, url) = (server.label("container"), server.label("url"));
        let on = of(SERVER_STATE).find(|r| r.value == 1.0 && r.label("container") == container);
        let status = match on.map(|r| r.label("state")) {
            Some("running") => "available",
            Some("loading") => "loading",
            _ => "error",
        };
        // A gateway's model that is served there is the same one, and its server knows better whether it loads.
        let mut through_gateway = false;
        for model in list.iter_mut().filter(|m| !url.is_empty() && is_below(&m.endpoint, url)) {
            through_gateway = true;
            if status == "loading" {
                model.status = "loading";
            }
        }
        if !through_gateway && !server.label("model").is_empty() {
            let mut model = blank(server, server.label("model"), "llm");
            model.status = status;
            url.clone_into(&mut model.endpoint);
            list.push(with_numbers(model, readings));
        }
    }
    for rate in of(RPM) {
        let name = rate.label("model");
        if !list.iter().any(|m| m.model_name == name) {
            list.push(with_numbers(blank(rate, name, rate.label("type")), readings));
        }
    }
    list
}

fn is_below(endpoint: &str, url: &str) -> bool {
    let rest = endpoint.strip_prefix(url.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn blank(reading: &Reading, name: &str, model_type: &str) -> Model {
    Model {
        node: reading.node.clone(),
        model_id: name.to_owned(),
        model_name: name.to_owned(),
        model_type: if model_type.is_empty() { "llm".to_owned() } else { model_type.to_owned() },
        status: "available",
        endpoint: String::new(),
        current_rpm: None,
        error_rate: None,
        tokens_input_per_minute: None,
        tokens_output_per_minute: None,
        latency_ms: None,
        size_bytes: None,
        parameters: None,
        downloads: None,
        license: None,
        quantization: None,
        access: None,
    }
}

fn told(info: &Reading, readings: &[&Reading]) -> Model {
    let said = |label: &str| Some(info.label(label)).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut model = blank(info, info.label("model"), info.label("type"));
    info.label("endpoint").clone_into(&mut model.endpoint);
    if let Some(id) = said("hub_id") {
        model.model_id = id;
    }
    model.license = said("license");
    model.quantization = said("quantization");
    model.access = said("access");
    let state = readings.iter().find(|r| {
        r.name == STATE
            && r.value == 1.0
            && r.label("model") == model.model_name
            && r.label("endpoint") == model.endpoint
    });
    model.status = match state.map(|r| r.label("state")) {
        Some("available") => "available",
        Some("loading") => "loading",
        _ => "error",
    };
    with_numbers(model, readings)
}

fn with_numbers(mut model: Model, readings: &[&Reading]) -> Model {
    let value = |family: &str| {
        let own = |r: &&&Reading| r.name == family && r.label("model") == model.model_name;
        readings.iter().find(own).map(|r| r.value)
    };
    let (rpm, errors) = (value(RPM), value(ERRORS));
    let error_rate = rpm.zip(errors).filter(|(rpm, _)| *rpm > 0.0).map(|(rpm, errors)| errors / rpm * 100.0);
    let (input, output, latency) = (value(INPUT), value(OUTPUT), value(LATENCY));
    let (size, parameters, downloads) = (value(SIZE), value(PARAMETERS), value(DOWNLOADS));
    model.current_rpm = rpm;
    model.error_rate = error_rate;
    model.tokens_input_per_minute = input;
    model.tokens_output_per_minute = output;
    model.latency_ms = latency;
    model.size_bytes = size;
    model.parameters = parameters;
    model.downloads = downloads;
    model
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(node: &str, name: &str, labels: &[(&str, &str)], value: f64) -> Reading {
        let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Reading { node: Some(node.to_owned()), name: name.to_owned(), labels, value }
    }

    #[test]
    fn a_model_with_all_that_is_known() {
        let key = [("model", "llama"), ("endpoint", "http://h:8000/v1")];
        let info = [
            ("model", "llama"),
            ("type", "llm"),
            ("endpoint", "http://h:8000/v1"),
            ("hub_id", "org/Llama"),
            ("license", "mit"),
            ("quantization", "fp8"),
            ("access", "gated"),
        ];
        let with = |state: &'static str| {
            let mut labels = key.to_vec();
            labels.push(("state", state));
            labels
        };
        let rate = [("model", "llama"), ("type", "llm")];
        let mut readings = vec![
            reading("a", INFO, &info, 1.0),
            reading("a", STATE, &with("available"), 1.0),
            reading("a", STATE, &with("error"), 0.0),
            reading("a", RPM, &rate, 40.0),
            reading("a", ERRORS, &rate, 2.0),
            reading("a", SIZE, &rate[..1], 16e9),
            // Another node's.
            reading("b", RPM, &rate, 7.0),
        ];
        let list = models(&readings);
        let [a, b] = list.as_slice() else { panic!("{list:?}") };
        assert_eq!(
            (a.model_id.as_str(), a.model_name.as_str(), a.status),
            ("org/Llama", "llama", "available")
        );
        assert_eq!((a.current_rpm, a.error_rate, a.size_bytes), (Some(40.0), Some(5.0), Some(16e9)));
        assert_eq!((b.current_rpm, b.error_rate, b.endpoint.as_str()), (Some(7.0), None, ""));
        let json = serde_json::to_value(a).unwrap();
        for field in [
            "model_id",
            "model_name",
            "model_type",
            "status",
            "endpoint",
            "current_rpm",
            "error_rate",
            "license",
        ] {
            assert!(!json[field].is_null(), "{field}");
        }
        // Its server loads it: the gateway does not know.
        readings.push(reading(
            "a",
            SERVER,
            &[("container", "c"), ("model", "org/Llama"), ("url", "http://h:8000")],
            1.0,
        ));
        readings.push(reading("a", SERVER_STATE, &[("container", "c"), ("state", "loading")], 1.0));
        let list = models(&readings);
        assert_eq!((list.len(), list[0].status), (2, "loading"));
    }

    #[test]
    fn a_server_without_a_gateway_is_a_model_too() {
        let server = [("container", "c"), ("model", "org/x"), ("url", "http://h:8000")];
        for (state, status) in
            [("running", "available"), ("loading", "loading"), ("stuck", "error"), ("down", "error")]
        {
            let readings = [
                reading("a", SERVER, &server, 1.0),
                reading("a", SERVER_STATE, &[("container", "c"), ("state", state)], 1.0),
            ];
            let list = models(&readings);
            assert_eq!((list[0].model_name.as_str(), list[0].status), ("org/x", status));
        }
        assert_eq!(models(&[]), []);
    }

    #[test]
    fn endpoints() {
        assert!(is_below("http://h:8000/v1", "http://h:8000"));
        assert!(is_below("http://h:8000", "http://h:8000/"));
        assert!(!is_below("http://h:80001/v1", "http://h:8000"));
    }
}
