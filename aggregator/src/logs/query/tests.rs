use std::time::Duration;

use super::{Budget, Direction, Grid, LogQuery, QueryError, Value};
use crate::logs::logql::ast::Expr;
use crate::logs::logql::{parse, parse_log};
use crate::logs::tests::{Rig, budget, stream};

const SECOND: i64 = 1_000_000_000;

fn evaluate(rig: &Rig, text: &str, grid: Grid) -> Result<Value, QueryError> {
    let Expr::Metric(expr) = parse(text).unwrap() else { panic!("{text}") };
    rig.store.evaluate(&expr, grid, &budget()).map(|answer| answer.value)
}

/// Series as `labels: values`; `-` where there is none.
fn told(rig: &Rig, text: &str, grid: Grid) -> Vec<String> {
    match evaluate(rig, text, grid).unwrap() {
        Value::Scalar(number) => vec![number.to_string()],
        Value::Matrix(series) => series
            .iter()
            .map(|one| {
                let labels: Vec<String> = one.labels.iter().map(|(n, v)| format!("{n}={v}")).collect();
                let values: Vec<String> =
                    one.values.iter().map(|v| v.map_or("-".to_owned(), |v| v.to_string())).collect();
                format!("{}: {}", labels.join(","), values.join(" "))
            })
            .collect(),
    }
}

/// Lines at −9 s, −8 s … 0 s: each of stream x, each third of y too.
fn rig() -> Rig {
    let rig = Rig::new();
    let lines: Vec<(i64, String)> =
        (-9..=0).map(|t| (t, format!(r#"{{"took":"{}ms","n":{}}}"#, t + 10, t + 10))).collect();
    let x: Vec<(i64, &str)> = lines.iter().map(|(t, l)| (*t, l.as_str())).collect();
    let y: Vec<(i64, &str)> = x.iter().filter(|(t, _)| t % 3 == 0).map(|(t, _)| (*t, "plain")).collect();
    rig.record(1, vec![stream(&[("s", "x")], &x)]);
    rig.record(2, vec![stream(&[("s", "y")], &y)]);
    rig
}

/// From `from` to 0 seconds, a step each so many seconds.
fn grid(rig: &Rig, from: i64, step: i64) -> Grid {
    let now = rig.options.clock.now_ms() * 1_000_000;
    Grid::new(now + from * SECOND, now, step * SECOND).unwrap()
}

#[test]
fn windows_hold_what_is_after_their_begin_and_up_to_their_end() {
    let rig = rig();
    let per = |text: &str, from, step| told(&rig, text, grid(&rig, from, step));
    assert_eq!(per(r#"sum(count_over_time({s="x"}[3s]))"#, -9, 3), [": 1 3 3 3"]);
    assert_eq!(per(r#"sum(count_over_time({s="y"}[1s]))"#, -4, 1), [": - 1 - - 1"]);
    assert_eq!(per(r#"sum(rate({s="x"}[2s]))"#, -2, 1), [": 1 1 1"]);
    assert_eq!(per(r#"sum(bytes_over_time({s="y"}[4s]))"#, 0, 1), [": 10"]);
    assert_eq!(per(r#"sum(bytes_rate({s="y"}[4s]))"#, 0, 1), [": 2.5"]);
    assert_eq!(per(r#"sum(count_over_time({s="x"}[100s] offset 5s))"#, 0, 1), [": 5"]);
    assert_eq!(per(r#"sum(count_over_time({s="x"}[100s] offset -5s))"#, -5, 5), [": 10 10"]);
    assert_eq!(per(r#"sum(count_over_time({s="none"}[3s]))"#, -9, 3), [""; 0]);
}

#[test]
fn labels_and_aggregations() {
    let rig = rig();
    let at = |text: &str| told(&rig, text, grid(&rig, 0, 1));
    let all = "instance=gpu-1,node=gpu-1";
    assert_eq!(at(r#"count_over_time({s=~".+"}[10s])"#), [format!("{all},s=x: 10"), format!("{all},s=y: 4")]);
    assert_eq!(at(r#"sum by (s) (count_over_time({s=~".+"}[10s]))"#), ["s=x: 10", "s=y: 4"]);
    assert_eq!(at(r#"sum without (s, instance) (count_over_time({s=~".+"}[10s]))"#), ["node=gpu-1: 14"]);
    assert_eq!(at(r#"avg(count_over_time({s=~".+"}[10s]))"#), [": 7"]);
    assert_eq!(at(r#"min(count_over_time({s=~".+"}[10s]))"#), [": 4"]);
    assert_eq!(at(r#"max(count_over_time({s=~".+"}[10s]))"#), [": 10"]);
    assert_eq!(at(r#"count(count_over_time({s=~".+"}[10s]))"#), [": 2"]);
    assert_eq!(at(r#"topk(1, sum by (s) (count_over_time({s=~".+"}[10s])))"#), ["s=x: 10"]);
    assert_eq!(at(r#"bottomk(1, sum by (s) (count_over_time({s=~".+"}[10s])))"#), ["s=y: 4"]);
    assert_eq!(at(r#"sum(count_over_time({s="x"} | json | n > 7 [10s]))"#), [": 3"]);
    assert_eq!(at(r#"sum(count_over_time({s="x"} | json | took >= 9ms [10s]))"#), [": 2"]);
    assert_eq!(at(r#"sum by (n) (count_over_time({s="x"} | json | n > 8 [10s]))"#), ["n=10: 1", "n=9: 1"]);
}

#[test]
fn arithmetic() {
    let rig = rig();
    let at = |text: &str| told(&rig, text, grid(&rig, 0, 1));
    assert_eq!(at("vector(1)+vector(1)"), [": 2"]);
    assert_eq!(at("1 + 2 * 3"), ["7"]);
    let by = |s: &str| format!(r#"sum by (s) (count_over_time({{s=~"{s}"}}[10s]))"#);
    assert_eq!(at(&format!("{} / 2", by(".+"))), ["s=x: 5", "s=y: 2"]);
    assert_eq!(at(&format!("{} > 5", by(".+"))), ["s=x: 10"]);
    assert_eq!(at(&format!("{} > bool 5", by(".+"))), ["s=x: 1", "s=y: 0"]);
    assert_eq!(at(&format!("5 < {}", by(".+"))), ["s=x: 10"]);
    assert_eq!(at(&format!("{} * {}", by(".+"), by("y"))), ["s=y: 16"]);
}

#[test]
fn a_line_that_a_parser_cannot_read_fails_a_metric_and_says_how_to_go_on() {
    let rig = rig();
    let at = grid(&rig, 0, 1);
    let error = evaluate(&rig, r#"rate({s="y"} | json [10s])"#, at).unwrap_err().to_string();
    assert!(
        error.starts_with("pipeline error: 'JSONParserErr' for series: '{__error__=\"JSONParserErr\""),
        "{error}"
    );
    assert_eq!(
        told(&rig, r#"sum(count_over_time({s="y"} | json | drop __error__, __error_details__ [10s]))"#, at),
        [": 4"]
    );
    assert_eq!(told(&rig, r#"sum(count_over_time({s=~".+"} | json | __error__="" [10s]))"#, at), [": 10"]);
}

#[test]
fn a_query_ends_at_its_budget() {
    let rig = rig();
    let query = || LogQuery {
        log: parse_log(r#"{s="x"}"#).unwrap(),
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        direction: Direction::Forward,
        limit: 10,
    };
    let with = |budget: Budget| rig.store.lines(&query(), &budget).map(|_| ());
    assert!(matches!(
        with(Budget::new(Duration::from_secs(9), 10)),
        Err(QueryError::TooManyBytes { limit: 10 })
    ));
    assert!(matches!(with(Budget::new(Duration::ZERO, u64::MAX)), Err(QueryError::TooLong(_))));
    let cancelled = Budget::new(Duration::from_secs(9), u64::MAX);
    cancelled.cancelled().store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(with(cancelled), Err(QueryError::Cancelled));
    let spent = Budget::new(Duration::from_secs(9), u64::MAX);
    rig.store.lines(&query(), &spent).unwrap();
    assert!(matches!(spent.spent(), (bytes, 10, _) if bytes > 100));
}

#[test]
fn answers_are_bounded() {
    let now = 1_700_000_000 * SECOND;
    assert!(matches!(Grid::new(now, now + 11_000 * SECOND, SECOND), Err(QueryError::TooManySteps)));
    assert_eq!(Grid::new(now, now + 10_999 * SECOND, SECOND).unwrap().count, 11_000);
    let rig = Rig::new();
    for batch in 0..3u64 {
        let streams =
            (0..1000).map(|n| stream(&[("n", &(batch * 1000 + n).to_string())], &[(0, "l")])).collect();
        rig.record(batch + 1, streams);
    }
    let at = grid(&rig, 0, 1);
    assert_eq!(evaluate(&rig, r#"count_over_time({n=~".+"}[10s])"#, at), Err(QueryError::TooManySeries));
    assert_eq!(told(&rig, r#"sum(count_over_time({n=~".+"}[10s]))"#, at), [": 3000"]);
}

#[test]
fn lines_are_grouped_by_the_labels_that_they_end_with() {
    let rig = rig();
    let query = LogQuery {
        log: parse_log(r#"{s="x"} | json | n > 8 | keep n"#).unwrap(),
        from_ns: i64::MIN,
        to_ns: i64::MAX,
        direction: Direction::Backward,
        limit: 10,
    };
    let found = rig.store.lines(&query, &budget()).unwrap();
    let labels: Vec<_> = found.streams.iter().map(|s| s.labels.as_slice()).collect();
    let pair = |v: &str| vec![("n".to_owned(), v.to_owned())];
    assert_eq!(labels, [pair("10"), pair("9")]);
}
