//! Answers in Loki's shapes.

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::{Value as Json, json};

use crate::logs::query::{Budget, Grid, LogAnswer, MetricAnswer, Series, StreamLines, Value};

type Pairs = [(String, String)];

/// `{"status":"success","data":…}`
#[derive(Serialize)]
struct Success<T: Serialize> {
    status: &'static str,
    data: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<T: Serialize> {
    result_type: &'static str,
    result: T,
    stats: Json,
}

/// Something under `data`.
pub fn success(data: impl Serialize) -> Response {
    body(&Success { status: "success", data })
}

/// Something as it is.
pub fn bare(data: &impl Serialize) -> Response {
    body(data)
}

fn body(data: &impl Serialize) -> Response {
    match serde_json::to_vec(data) {
        Ok(bytes) => {
            ([(header::CONTENT_TYPE, "application/json; charset=UTF-8")], Body::from(bytes)).into_response()
        }
        Err(error) => super::super::ApiError::internal(&error).into_response(),
    }
}

/// Lines: `resultType` is `streams`.
pub fn lines(answer: &LogAnswer, stats: Json) -> Response {
    let result: Vec<Lines<'_>> = answer.streams.iter().map(Lines).collect();
    success(Data { result_type: "streams", result, stats })
}

/// One stream's lines: `{"stream":{…},"values":[["ns","line"],…]}`.
pub struct Lines<'a>(pub &'a StreamLines);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("stream", &Labels(&self.0.labels))?;
        map.serialize_entry("values", &Values(&self.0.lines))?;
        map.end()
    }
}

struct Values<'a>(&'a [(i64, Box<str>)]);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(time, line)| (time.to_string(), line)))
    }
}

struct Labels<'a>(&'a Pairs);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// Numbers at steps: `resultType` is `matrix`.
pub fn matrix(answer: &MetricAnswer, stats: Json) -> Response {
    let scalar;
    let series = match &answer.value {
        Value::Matrix(series) => series,
        Value::Scalar(number) => {
            scalar = vec![Series { labels: Vec::new(), values: vec![Some(*number); answer.grid.count] }];
            &scalar
        }
    };
    let result: Vec<Json> = series
        .iter()
        .map(|one| {
            let values = one
                .values
                .iter()
                .enumerate()
                .filter_map(|(step, value)| Some((seconds(&answer.grid, step), number((*value)?))));
            json!({ "metric": map(&one.labels), "values": values.collect::<Vec<_>>() })
        })
        .collect();
    success(Data { result_type: "matrix", result, stats })
}

/// Numbers at one time: `resultType` is `vector` or `scalar`.
pub fn vector(answer: &MetricAnswer, stats: Json) -> Response {
    let at = seconds(&answer.grid, 0);
    match &answer.value {
        Value::Scalar(value) => success(Data { result_type: "scalar", result: (at, number(*value)), stats }),
        Value::Matrix(series) => {
            let one = |one: &Series| {
                let value = one.values.first().copied().flatten()?;
                Some(json!({ "metric": map(&one.labels), "value": (at.clone(), number(value)) }))
            };
            let result: Vec<Json> = series.iter().filter_map(one).collect();
            success(Data { result_type: "vector", result, stats })
        }
    }
}

fn map(labels: &Pairs) -> Json {
    labels
        .iter()
        .map(|(name, value)| (name.clone(), Json::from(value.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A step's time in seconds, with the milliseconds where there are any.
fn seconds(grid: &Grid, step: usize) -> Json {
    let ms = grid.at(step).div_euclid(1_000_000);
    if ms % 1000 == 0 { Json::from(ms / 1000) } else { Json::from(ms as f64 / 1000.0) }
}

/// A number as Prometheus writes it.
fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// What the query cost.
pub fn stats(budget: &Budget, entries: usize) -> Json {
    let (bytes, lines, seconds) = budget.spent();
    let per_second = |count: u64| (count as f64 / seconds.max(1e-6)) as u64;
    json!({
        "summary": {
            "bytesProcessedPerSecond": per_second(bytes),
            "linesProcessedPerSecond": per_second(lines),
            "totalBytesProcessed": bytes,
            "totalLinesProcessed": lines,
            "execTime": seconds,
            "queueTime": 0.0,
            "subqueries": 0,
            "totalEntriesReturned": entries,
        },
        "querier": {},
        "ingester": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prometheus_does() {
        for (value, want) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (1e21, "1000000000000000000000"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(number(value), want);
        }
        let grid = Grid { start_ns: 1_500_000_000, step_ns: 500_000_000, count: 2 };
        assert_eq!((seconds(&grid, 0), seconds(&grid, 1)), (json!(1.5), json!(2)));
    }
}
