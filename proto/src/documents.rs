//! Documents of the HTTP APIs that are put together from series, the same on an agent and on the aggregator: there is
//! no second way for what a source knows, and no document that says another thing than the metrics do.

mod containers;
mod models;

use std::collections::BTreeMap;

pub use containers::{CONTAINER_SERIES, Container, containers};
pub use models::{MODEL_SERIES, Model, models};

/// The latest value of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Whose; none on an agent, which has but its own.
    pub node: Option<String>,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Reading {
    /// Empty where there is none.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}
