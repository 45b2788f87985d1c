//! A query, understood.

use picket_proto::model::Labels;
use regex::Regex;

#[derive(Debug, Clone)]
pub enum Expr {
    Log(LogExpr),
    Metric(MetricExpr),
}

/// Which lines, and what is done with each.
#[derive(Debug, Clone)]
pub struct LogExpr {
    pub selector: Selector,
    pub stages: Vec<Stage>,
}

/// `{a="b", c=~"d.*"}`
#[derive(Debug, Clone, Default)]
pub struct Selector {
    pub matchers: Vec<Matcher>,
}

impl Selector {
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.test.holds(labels.get(&matcher.name).unwrap_or_default()))
    }
}

#[derive(Debug, Clone)]
pub struct Matcher {
    pub name: String,
    pub test: TextTest,
}

/// A condition on a text.
#[derive(Debug, Clone)]
pub enum TextTest {
    Equal(String),
    NotEqual(String),
    Match(Regex),
    NotMatch(Regex),
}

impl TextTest {
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Self::Equal(want) => text == want,
            Self::NotEqual(other) => text != other,
            Self::Match(regex) => regex.is_match(text),
            Self::NotMatch(regex) => !regex.is_match(text),
        }
    }
}

#[derive(Debug, Clone)]
pub enum Stage {
    Line(LineFilter),
    Json,
    Logfmt,
    Label(LabelFilter),
    /// `| drop a, b`
    Drop(Vec<String>),
    /// `| keep a, b`
    Keep(Vec<String>),
}

/// `|= "a" or "b"`
#[derive(Debug, Clone)]
pub struct LineFilter {
    /// The line passes where any of these is found …
    pub any: Vec<Needle>,
    /// … or, negated, where none is.
    pub negated: bool,
}

#[derive(Debug, Clone)]
pub enum Needle {
    Text(String),
    Regex(Regex),
}

impl LineFilter {
    pub fn holds(&self, line: &str) -> bool {
        let found = self.any.iter().any(|needle| match needle {
            Needle::Text(text) => line.contains(text.as_str()),
            Needle::Regex(regex) => regex.is_match(line),
        });
        found != self.negated
    }
}

/// `level="error" and (status >= 500 or duration > 10s)`
#[derive(Debug, Clone)]
pub enum LabelFilter {
    Text { name: String, test: TextTest },
    Number { name: String, compare: Compare, value: Quantity },
    And(Box<LabelFilter>, Box<LabelFilter>),
    Or(Box<LabelFilter>, Box<LabelFilter>),
}

/// What a label's value is read as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Quantity {
    Number(f64),
    /// Nanoseconds.
    Duration(f64),
    Bytes(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

impl Compare {
    pub fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
        }
    }
}

#[derive(Debug, Clone)]
pub enum MetricExpr {
    /// `rate({…} [5m] offset 1h)`
    Range {
        function: RangeFunction,
        log: LogExpr,
        range_ns: i64,
        offset_ns: i64,
    },
    /// `sum by (a) (…)`
    Aggregate {
        function: Aggregation,
        grouping: Grouping,
        inner: Box<MetricExpr>,
    },
    /// A bare number.
    Number(f64),
    /// `vector(1)`
    Vector(f64),
    Binary {
        operator: Operator,
        left: Box<MetricExpr>,
        right: Box<MetricExpr>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeFunction {
    Rate,
    CountOverTime,
    BytesRate,
    BytesOverTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    TopK(usize),
    BottomK(usize),
}

/// `by (…)`, `without (…)`, or nothing, which is `by ()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grouping {
    pub without: bool,
    pub labels: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    /// `keep`: without `bool`, samples for which it doesn't hold go.
    Compare {
        compare: Compare,
        keep: bool,
    },
}
