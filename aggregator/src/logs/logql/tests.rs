use picket_proto::model::Labels;
use proptest::prelude::*;

use super::ast::{Expr, MetricExpr};
use super::pipeline::{Extracted, Pipeline};
use super::{parse, parse_labels, parse_log, parse_selector};

#[test]
fn queries_that_are_understood() {
    for text in [
        r#"{a="b"}"#,
        r#"{a="b", c!="d", e=~"f|g", h!~"i.*",}"#,
        r#"{container="vllm-llama3"} |= "ERROR""#,
        r#"{a="b"} |= "x" != "y" |~ "z.+" !~ `\d{3}`"#,
        r#"{a="b"} |= "x" or "y" or "z""#,
        r#"{a="b"} | json | logfmt"#,
        r#"{a="b"} | json | level="error", status >= 500 and (duration > 10.5ms or size <= 1KiB)"#,
        r#"{a="b"} | logfmt | json="x" | drop level, msg | keep a"#,
        r#"{a="b"} | x=5 | y==-1.5e3 | z!=2s"#,
        r#"({a="b"} |= "x")"#,
        "{a=\"b\"} # said in words\n |= \"c\"",
        r#"rate({a="b"}[5m])"#,
        r#"rate({a="b"} |= "x" | json [5m])"#,
        r#"rate({a="b"}[5m] |= "x")"#,
        r#"count_over_time(({a="b"} |= "x")[1h30m] offset -5m)"#,
        r#"sum by (a, b) (bytes_rate({a="b"}[1m]))"#,
        r#"sum(bytes_over_time({a="b"}[1m])) by (a)"#,
        r#"avg without (x) (rate({a="b"}[1m]))"#,
        r#"topk(5, sum by (x) (rate({a="b"}[1m])))"#,
        "vector(1)+vector(1)",
        "vector(1)",
        "-1 + 2 * 3 ^ 2",
        r#"sum(rate({a="b"} |= "e" [1m])) / sum(rate({a="b"}[1m])) > bool 0.1"#,
    ] {
        if let Err(error) = parse(text) {
            panic!("{text}: {error}");
        }
    }
}

#[test]
fn queries_that_are_refused_as_loki_refuses_them() {
    for (text, want) in [
        ("", "parse error at line 1, col 1: syntax error: unexpected $end"),
        (r#"{a="b""#, "parse error at line 1, col 7: syntax error: unexpected $end, expecting } or ,"),
        (r#"{a=}"#, "parse error at line 1, col 4: syntax error: unexpected }, expecting STRING"),
        (r#"{="b"}"#, "parse error at line 1, col 2: syntax error: unexpected =, expecting IDENTIFIER"),
        (
            "{a=\"b\"}\n |= 5",
            "parse error at line 2, col 5: syntax error: unexpected NUMBER, expecting STRING",
        ),
        (r#"{a="b"} foo"#, "parse error at line 1, col 9: syntax error: unexpected IDENTIFIER"),
        (r#"{a="b"} |= "x"#, "parse error at line 1, col 12: literal not terminated"),
        (r#"{a="\q"}"#, "parse error at line 1, col 4: invalid char escape"),
        (r#"rate({a="b"})"#, "parse error at line 1, col 13: syntax error: unexpected ), expecting ["),
        (
            r#"rate({a="b"}[5])"#,
            "parse error at line 1, col 14: syntax error: unexpected NUMBER, expecting DURATION",
        ),
        (r#"{}"#, "parse error : queries require at least one regexp or equality matcher"),
        (r#"{a=~".*"}"#, "parse error : queries require at least one regexp or equality matcher"),
        (r#"{a=""}"#, "parse error : queries require at least one regexp or equality matcher"),
        (r#"{a=~"("}"#, "parse error at line 1, col 5: error parsing regexp"),
        (r#"{a="b"} |~ "[""#, "parse error at line 1, col 12: error parsing regexp"),
        (
            r#"{a="b"} | line_format "x""#,
            "parse error at line 1, col 11: the stage line_format is not supported here",
        ),
        (
            r#"{a="b"} | json x="y""#,
            "parse error at line 1, col 16: parameters of json are not supported here",
        ),
        (r#"quantile_over_time(0.9, {a="b"}[1m])"#, "the function quantile_over_time is not supported here"),
        (r#"topk(0, rate({a="b"}[1m]))"#, "invalid parameter topk(0"),
        (r#"{a="b"} | ;"#, "syntax error: unexpected character ';'"),
        (r#"{a="b"}[5x]"#, "is no number, duration or size"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(want), "{text}: {error}");
    }
    assert!(parse_log(r#"rate({a="b"}[1m])"#).is_err());
    assert!(parse_selector(r#"{a="b"} |= "x""#).is_err());
    assert!(parse(&format!(r#"{{a="{}"}}"#, "x".repeat(70_000))).is_err());
    assert!(parse(&format!("{}1{}", "(".repeat(5000), ")".repeat(5000))).is_err());
    assert!(parse(&format!("{}1", "1 ^ ".repeat(5000))).is_err());
    assert!(
        parse(&format!(r#"{{a=~"{}"}}"#, "(x{1000}){1000}")).unwrap_err().to_string().contains("too large")
    );
}

#[test]
fn a_pushers_labels() {
    let want = vec![("a".to_owned(), "b\"c".to_owned()), ("d".to_owned(), "é".to_owned())];
    assert_eq!(parse_labels(r#"{a="b\"c", d="é"}"#).unwrap(), want);
    assert_eq!(parse_labels("{}").unwrap(), []);
    assert!(parse_labels(r#"{a=~"b"}"#).is_err());
    assert!(parse_labels(r#"{a="b"} x"#).is_err());
}

#[test]
fn precedence() {
    let number = |text: &str| {
        fn compute(expr: &MetricExpr) -> f64 {
            use super::ast::Operator::*;
            match expr {
                MetricExpr::Number(number) => *number,
                MetricExpr::Binary { operator, left, right } => {
                    let (a, b) = (compute(left), compute(right));
                    match operator {
                        Add => a + b,
                        Subtract => a - b,
                        Multiply => a * b,
                        Divide => a / b,
                        Modulo => a % b,
                        Power => a.powf(b),
                        Compare { compare, .. } => f64::from(u8::from(compare.holds(a, b))),
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        match parse(text).unwrap() {
            Expr::Metric(expr) => compute(&expr),
            Expr::Log(_) => panic!("{text}"),
        }
    };
    for (text, want) in [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("10 - 2 - 3", 5.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("100 / 10 / 2", 5.0),
        ("1 + 1 == 2", 1.0),
        ("-2 + 5", 3.0),
    ] {
        assert_eq!(number(text), want, "{text}");
    }
}

/// The labels that a line leaves with, or `None`.
fn run(stages: &str, line: &str) -> Option<String> {
    let log = parse_log(&format!(r#"{{job="j"}} {stages}"#)).unwrap();
    let labels =
        Labels::new([("job".to_owned(), "j".to_owned()), ("level".to_owned(), "own".to_owned())]).unwrap();
    let mut extracted = Extracted::default();
    let passes = Pipeline::new(&log.stages).run(&labels, line, &mut extracted);
    let all = extracted.labels(&labels);
    passes.then(|| all.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(" "))
}

#[test]
fn what_stages_do() {
    let json = r#"{"status":503,"took":"1.5s","size":"2KiB","level":"error","http":{"path":"/a b","2x":true},"list":[1],"none":null,"odd-name":"v"}"#;
    let fmt = r#"status=503 took=1.5s msg="a \"b\"" bare level=warn empty= x.y=1"#;
    for (stages, line, want) in [
        ("", "x", Some("job=j level=own")),
        (r#"|= "b""#, "abc", Some("job=j level=own")),
        (r#"|= "x" or "c""#, "abc", Some("job=j level=own")),
        (r#"!= "x" or "c""#, "abc", None),
        (r#"|~ "^a.c$""#, "abc", Some("job=j level=own")),
        (r#"!~ "(?i)B""#, "abc", None),
        (
            "| json",
            json,
            Some(
                "http_2x=true http_path=/a b job=j level=own level_extracted=error odd_name=v size=2KiB status=503 took=1.5s",
            ),
        ),
        (
            "| logfmt",
            fmt,
            Some("job=j level=own level_extracted=warn msg=a \"b\" status=503 took=1.5s x_y=1"),
        ),
        (r#"| json | status >= 500 | keep status"#, json, Some("status=503")),
        (r#"| json | status > 503"#, json, None),
        (r#"| json | took > 1s and size < 3KB | drop job, level | keep took"#, json, Some("took=1.5s")),
        (r#"| json | took > 2s or http_path=~"/a.*" | keep job"#, json, Some("job=j")),
        (r#"| json | absent > 1"#, json, None),
        (
            r#"| json | absent="""#,
            json,
            Some(
                "http_2x=true http_path=/a b job=j level=own level_extracted=error odd_name=v size=2KiB status=503 took=1.5s",
            ),
        ),
        (r#"| level="own" | keep job"#, "x", Some("job=j")),
        (
            "| json | keep job",
            "no json",
            Some("__error__=JSONParserErr __error_details__=the line is no JSON job=j"),
        ),
        (r#"| json | __error__="" | keep job"#, "no json", None),
        (r#"| json | drop __error__, __error_details__ | keep job"#, "no json", Some("job=j")),
        (r#"| json | __error__="JSONParserErr" | drop __error__ | keep job"#, "[1]", Some("job=j")),
        (
            "| json | took > 5 | keep job",
            json,
            Some(
                "__error__=LabelFilterErr __error_details__=the label took is \"1.5s\", which can't be compared job=j",
            ),
        ),
    ] {
        assert_eq!(run(stages, line).as_deref(), want, "{stages} on {line}");
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in r#"[{}()\[\]|=!~<>",`a-z0-9 .*+\\-]{0,60}"#) {
        let _ = parse(&text);
        let _ = parse_labels(&text);
    }

    #[test]
    fn likely_texts_are_parsed_or_refused(parts in proptest::collection::vec(prop_oneof![
        Just("{"), Just("}"), Just("a"), Just("="), Just("=~"), Just("\"b\""), Just("|="), Just("| json"), Just("|"),
        Just("rate("), Just("sum by (a) ("), Just(")"), Just("[5m]"), Just("or"), Just("and"), Just("5"), Just("+"),
        Just("topk(1,"), Just("offset"), Just("1h"), Just(","), Just("drop"), Just("("), Just("\n"),
    ], 0..24)) {
        let _ = parse(&parts.join(" "));
    }

    #[test]
    fn any_line_goes_through_any_stage(line in ".{0,80}") {
        for stages in ["| json", "| logfmt", "| json | a > 1 | b=\"\"", "|~ \"a.*b\""] {
            let _ = run(stages, &line);
        }
    }

    #[test]
    fn quoting_reads_back(value in ".{0,40}") {
        let mut text = String::from("{a=");
        crate::logs::labels::quote(&value, &mut text);
        text.push('}');
        prop_assert_eq!(parse_labels(&text).unwrap(), vec![("a".to_owned(), value)]);
    }
}
