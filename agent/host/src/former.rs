//! The shim for `picket:source` 0.1, the version before the current one.
//!
//! It converts types and does nothing else: each function is the current one's, with its arguments and its answer in
//! the older words. So a plugin of either version meets the same checks, limits and counts.

use crate::bindings::picket::source::sink as current;
use crate::bindings::picket::types::types;
use crate::guest::Guest;
use bindings::picket::source::sink;

pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/frozen/types@0.1.0", "../../wit/frozen/host@0.1.0", "../../wit/frozen/source@0.1.0"],
        inline: "
            package picket:agent-before;

            world former-source {
                import picket:source/sink@0.1.0;
                export picket:source/source@0.1.0;
                export picket:source/control@0.1.0;
            }
        ",
        world: "picket:agent-before/former-source",
        with: { "picket:types/types@0.1.0": crate::bindings::picket::types::types },
        imports: { default: async | trappable },
        exports: { default: async },
    });
}

impl sink::Host for Guest {
    async fn declare(
        &mut self,
        families: Vec<types::Family>,
    ) -> wasmtime::Result<Result<Vec<u32>, sink::SinkError>> {
        Ok(current::Host::declare(self, families).await?.map_err(Into::into))
    }

    async fn register(
        &mut self,
        series: Vec<sink::SeriesDefinition>,
    ) -> wasmtime::Result<Result<Vec<u32>, sink::SinkError>> {
        let series = series
            .into_iter()
            .map(|s| current::SeriesDefinition { family: s.family, part: s.part, labels: s.labels })
            .collect();
        Ok(current::Host::register(self, series).await?.map_err(Into::into))
    }

    async fn push(&mut self, points: Vec<sink::Point>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        let points =
            points.into_iter().map(|p| current::Point { series: p.series, value: p.value }).collect();
        Ok(current::Host::push(self, points).await?.map_err(Into::into))
    }

    async fn push_timed(
        &mut self,
        points: Vec<sink::TimedPoint>,
    ) -> wasmtime::Result<Result<(), sink::SinkError>> {
        let points = points
            .into_iter()
            .map(|p| current::TimedPoint { series: p.series, value: p.value, timestamp: p.timestamp })
            .collect();
        Ok(current::Host::push_timed(self, points).await?.map_err(Into::into))
    }

    async fn retire(&mut self, series: Vec<u32>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        Ok(current::Host::retire(self, series).await?.map_err(Into::into))
    }

    async fn emit(&mut self, events: Vec<types::Event>) -> wasmtime::Result<Result<(), sink::SinkError>> {
        Ok(current::Host::emit(self, events).await?.map_err(Into::into))
    }

    async fn fail(&mut self, reason: String, message: String) -> wasmtime::Result<()> {
        current::Host::fail(self, reason, message).await
    }
}

impl From<current::SinkError> for sink::SinkError {
    fn from(e: current::SinkError) -> Self {
        match e {
            // 0.1 did not say how much would have fitted.
            current::SinkError::Quota(over) => Self::Quota(over.message),
            current::SinkError::Invalid(m) => Self::Invalid(m),
            current::SinkError::UnknownId(id) => Self::UnknownId(id),
            current::SinkError::Other(m) => Self::Other(m),
        }
    }
}
