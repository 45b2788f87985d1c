//! What is exported of a model.

use picket_sdk::{Describe, GaugeFamily, InfoFamily, StateSetFamily};

use crate::hub::{Known, STATES};
use crate::models::{Kind, Model, Status};
use crate::rates::Minute;

/// The families.
pub struct Exports {
    requests: GaugeFamily<2>,
    input: GaugeFamily<2>,
    output: GaugeFamily<2>,
    latency: GaugeFamily<2>,
    errors: GaugeFamily<2>,
    info: InfoFamily<8>,
    state: StateSetFamily<2>,
    size: GaugeFamily<1>,
    downloads: GaugeFamily<1>,
    parameters: GaugeFamily<1>,
    age: GaugeFamily<1>,
    pub hub_state: StateSetFamily,
    pub hub_budget: GaugeFamily,
}

impl Exports {
    pub fn declare(d: &mut Describe) -> Self {
        let mut rate = |name: &str, help: &str| d.gauge(name, help).labels(&["model", "type"]);
        Self {
            requests: rate("llm_model_requests_per_minute", "Requests to the model, a minute."),
            input: rate("llm_model_tokens_input_per_minute", "Input tokens, a minute."),
            output: rate("llm_model_tokens_output_per_minute", "Output tokens, a minute."),
            latency: rate("llm_model_latency_ms", "Mean latency of a request in ms."),
            errors: rate("llm_model_errors_per_minute", "Failed requests, a minute."),
            info: d
                .info("picket_model_info", "A model, as the gateway and the Hugging Face hub describe it.")
                .labels(&[
                    "model",
                    "type",
                    "endpoint",
                    "hub_id",
                    "license",
                    "quantization",
                    "access",
                    "size_source",
                ]),
            state: d
                .state_set("picket_model_state", "Whether the model can be had.", "state", &Status::ALL)
                .labels(&["model", "endpoint"]),
            size: d
                .gauge("picket_model_size_bytes", "The size of the model's weights, by the hub.")
                .unit("bytes")
                .labels(&["model"]),
            downloads: d
                .gauge("picket_model_downloads", "Downloads of the model in the last 30 days, by the hub.")
                .labels(&["model"]),
            parameters: d
                .gauge("picket_model_parameters", "The model's parameters, by the hub.")
                .labels(&["model"]),
            age: d
                .gauge("picket_model_metadata_age_seconds", "How long ago the hub was asked for the model.")
                .unit("seconds")
                .labels(&["model"]),
            hub_state: d.state_set(
                "picket_model_hub_state",
                "Whether the Hugging Face hub answers, and why not.",
                "state",
                &STATES,
            ),
            hub_budget: d
                .gauge("picket_model_hub_requests_left", "Requests to the hub that this hour has left."),
        }
    }

    pub fn rates(&self, model: &str, kind: Kind, rates: &Minute) {
        let labels = [model, kind];
        self.requests.with(&labels).set(rates.requests);
        self.input.with(&labels).set(rates.input);
        self.output.with(&labels).set(rates.output);
        self.errors.with(&labels).set(rates.errors);
        if let Some(latency) = rates.latency_ms {
            self.latency.with(&labels).set(latency);
        }
    }

    pub fn model(
        &self,
        model: &Model,
        status: Status,
        proxy: &str,
        hub_id: Option<&str>,
        known: Option<&Known>,
    ) {
        let endpoint = if model.api_base.is_empty() { proxy } else { &model.api_base };
        let name = model.name.as_str();
        self.state.with(&[name, endpoint]).set(status.as_str());
        let facts = known.map(|k| &k.facts);
        let text = |of: Option<&String>| of.map_or("", String::as_str).to_owned();
        let license = text(facts.and_then(|f| f.license.as_ref()));
        let quantization = text(facts.and_then(|f| f.quantization.as_ref()));
        let source = facts.and_then(|f| f.size).map_or("", |size| size.source());
        let access = known.map_or("", |k| k.access.as_str());
        let labels =
            [name, model.kind, endpoint, hub_id.unwrap_or(""), &license, &quantization, access, source];
        self.info.with(&labels).set();
        let Some(known) = known else { return };
        self.age.with(&[name]).set(known.age_seconds);
        let facts = &known.facts;
        let set = |family: &GaugeFamily<1>, value: Option<f64>| {
            if let Some(value) = value {
                family.with(&[name]).set(value);
            }
        };
        set(&self.size, facts.size.map(|size| size.bytes() as f64));
        set(&self.downloads, facts.downloads.map(|n| n as f64));
        set(&self.parameters, facts.parameters.map(|n| n as f64));
    }
}
