//! The contract's words as the SDK speaks them.

/// The metric types of OpenMetrics 1.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum MetricType {
    Gauge,
    Counter,
    Histogram,
    Summary,
    Info,
    StateSet,
    Unknown,
}

/// Which line of a family a series is. The host writes the suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The family's own name.
    Value,
    /// `<name>_bucket`, cumulative; the upper bound stands in the label `le`.
    Bucket,
    /// `<name>_sum`
    Sum,
    /// `<name>_count`
    Count,
    /// A summary's quantile; the quantile stands in the label `quantile`.
    Quantile,
}

/// A family as it is declared.
#[derive(Debug, Clone)]
pub(crate) struct FamilyDef {
    pub name: String,
    pub metric_type: MetricType,
    pub unit: String,
    pub help: String,
    pub label_names: Vec<String>,
}

/// A series as it is registered: its family by number, its labels as name and value.
pub(crate) struct SeriesDef {
    pub family: u32,
    pub part: Part,
    pub labels: Vec<(String, String)>,
}

/// Why the host refused something.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SinkError {
    #[error("{message}")]
    Quota {
        message: String,
        /// The first so many of what was offered would fit.
        fits: u32,
    },
    #[error("{0}")]
    Invalid(String),
    #[error("the host does not know the number {0}")]
    UnknownId(u32),
    #[error("{0}")]
    Other(String),
}
