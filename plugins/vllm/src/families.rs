//! The plugin's own families.

use picket_sdk::containers::ContainersError;
use picket_sdk::{Describe, GaugeFamily, InfoFamily, StateSetFamily};

use crate::engine::{STATES, State};
use crate::loading::{PHASES, Phase};
use crate::probe::ANSWERS;
use crate::server::Server;

const SOCKET_STATES: [&str; 7] = ["ok", "absent", "unreachable", "slow", "malformed", "refusing", "denied"];

pub struct Families {
    info: InfoFamily<9>,
    models: InfoFamily<4>,
    max_len: GaugeFamily<2>,
    state: StateSetFamily<1>,
    endpoint: StateSetFamily<1>,
    start: GaugeFamily<1>,
    phase: StateSetFamily<1>,
    loading: GaugeFamily<1>,
    ratio: GaugeFamily<1>,
    load_time: GaugeFamily<1>,
    socket: StateSetFamily<1>,
}

impl Families {
    pub fn new(d: &mut Describe) -> Self {
        Self {
            info: d
                .info(
                    "picket_vllm_container_info",
                    "A vLLM server: its container and image, the version by the image's tag or else its own word, what \
                     it serves, and on which GPUs.",
                )
                .labels(&[
                    "container",
                    "container_id",
                    "image",
                    "version",
                    "engine_version",
                    "model",
                    "gpu_indices",
                    "gpu_uuids",
                    "url",
                ]),
            models: d
                .info("picket_vllm_model_info", "A model or an adapter that a server serves.")
                .labels(&["container", "model", "root", "parent"]),
            max_len: d
                .gauge("picket_vllm_model_max_len_tokens", "The longest context that a server takes for a model.")
                .labels(&["container", "model"]),
            state: d
                .state_set(
                    "picket_vllm_engine_state",
                    "What a vLLM server does. Stuck: it has requests and moves no token, whatever /health says.",
                    "state",
                    &STATES,
                )
                .labels(&["container"]),
            endpoint: d
                .state_set(
                    "picket_vllm_endpoint_state",
                    "How asking a vLLM server for /metrics ended.",
                    "state",
                    &ANSWERS,
                )
                .labels(&["container"]),
            start: d
                .gauge(
                    "picket_vllm_start_time_seconds",
                    "When a vLLM server's container or process began, since the Unix epoch.",
                )
                .unit("seconds")
                .labels(&["container"]),
            phase: d
                .state_set(
                    "picket_vllm_loading_phase",
                    "What a server that loads is at, by its log.",
                    "phase",
                    &PHASES,
                )
                .labels(&["container"]),
            loading: d
                .gauge("picket_vllm_loading_seconds", "How long a server that loads has been at it.")
                .unit("seconds")
                .labels(&["container"]),
            ratio: d
                .gauge(
                    "picket_vllm_loading_progress_ratio",
                    "How much of its phase a server that loads is done with, where its log says so.",
                )
                .labels(&["container"]),
            load_time: d
                .gauge(
                    "picket_vllm_load_duration_seconds",
                    "How long a server took from its start until it was ready, by its log.",
                )
                .unit("seconds")
                .labels(&["container"]),
            socket: d
                .state_set(
                    "picket_container_engine_state",
                    "How asking a container engine's socket for its containers ended.",
                    "state",
                    &SOCKET_STATES,
                )
                .labels(&["socket"]),
        }
    }

    pub fn engine_socket(&self, path: &str, error: Option<&ContainersError>) {
        let state = match error {
            None => "ok",
            Some(ContainersError::Absent(_)) => "absent",
            Some(ContainersError::TimedOut(_)) => "slow",
            Some(ContainersError::TooLarge(_) | ContainersError::Malformed(_)) => "malformed",
            Some(ContainersError::Refused(_) | ContainersError::NotFound(_)) => "refusing",
            Some(ContainersError::Denied(_)) => "denied",
            Some(_) => "unreachable",
        };
        self.socket.with(&[path]).set(state);
    }

    pub fn server(&self, server: &Server, state: Option<State>) {
        let name = server.name.as_str();
        let version = if server.version.is_empty() { &server.engine_version } else { &server.version };
        let url = server.url.as_deref().unwrap_or_default();
        self.info
            .with(&[
                name,
                &server.container_id,
                &server.image,
                version,
                &server.engine_version,
                server.model(),
                &server.gpus.label(),
                &server.gpus.uuid_label(),
                url,
            ])
            .set();
        let mut seen = std::collections::BTreeSet::new();
        for model in server.models.iter().filter(|m| seen.insert(m.id.as_str())) {
            let (root, parent) = (model.root.as_deref(), model.parent.as_deref());
            self.models.with(&[name, &model.id, root.unwrap_or_default(), parent.unwrap_or_default()]).set();
            if let Some(len) = model.max_model_len {
                self.max_len.with(&[name, &model.id]).set(len as f64);
            }
        }
        if let Some(state) = state {
            self.state.with(&[name]).set(state.word());
        }
        self.endpoint.with(&[name]).set(server.answer.word());
        let started = server.started.or(server.meter.started);
        if let Some(started) = started {
            self.start.with(&[name]).set(started);
        }
        if state == Some(State::Loading) {
            self.phase.with(&[name]).set(server.progress.phase.word());
            self.loading.with(&[name]).set(server.age().as_secs_f64());
            if let Some(ratio) = server.progress.ratio {
                self.ratio.with(&[name]).set(ratio);
            }
        }
        if let (Some(started), Some(ready), Phase::Ready) =
            (server.started, server.progress.ready_ns, server.progress.phase)
        {
            self.load_time.with(&[name]).set((ready as f64 / 1e9 - started).max(0.0));
        }
    }
}
