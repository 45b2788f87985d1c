//! Any line, any page, any bytes: against a reader that is as plain as can be.

use picket_sdk::exposition::{LineError, Options, samples};
use proptest::prelude::*;

use super::{Pairs, VLLM, host, page, passed};

/// The plainest reader of a line of the text format: character by character, over and over.
fn reference(line: &str) -> Option<(String, Pairs, f64, Option<i64>)> {
    let mut chars = line.trim_matches([' ', '\t', '\r']).chars().peekable();
    let mut name = String::new();
    while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':')) {
        name.push(c);
    }
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let blank = |c: &char| matches!(c, ' ' | '\t');
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut spaced = false;
    while chars.next_if(blank).is_some() {
        spaced = true;
    }
    if chars.next_if_eq(&'{').is_some() {
        spaced = true;
        loop {
            while chars.next_if(blank).is_some() {}
            if chars.next_if_eq(&'}').is_some() {
                break;
            }
            let mut label = String::new();
            while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                label.push(c);
            }
            while chars.next_if(blank).is_some() {}
            chars.next_if_eq(&'=')?;
            while chars.next_if(blank).is_some() {}
            chars.next_if_eq(&'"')?;
            let mut value = String::new();
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => match chars.next()? {
                        'n' => value.push('\n'),
                        '"' => value.push('"'),
                        '\\' => value.push('\\'),
                        other => value.extend(['\\', other]),
                    },
                    other => value.push(other),
                }
            }
            if label.is_empty()
                || label.starts_with(|c: char| c.is_ascii_digit())
                || labels.iter().any(|(n, _)| *n == label)
            {
                return None;
            }
            labels.push((label, value));
            while chars.next_if(blank).is_some() {}
            if chars.next_if_eq(&',').is_none() {
                chars.next_if_eq(&'}')?;
                break;
            }
        }
    }
    if !spaced {
        return None;
    }
    let rest: String = chars.collect();
    let words = rest.split([' ', '\t']).filter(|w| !w.is_empty());
    // An exemplar is a word of its own.
    let mut words = words.take_while(|w| !w.starts_with('#'));
    let value = words.next()?.parse().ok()?;
    let time = match words.next() {
        Some(word) => Some(word.parse::<f64>().ok().filter(|t| t.is_finite() && t.fract() == 0.0)? as i64),
        None => None,
    };
    words.next().is_none().then_some((name, labels, value, time))
}

fn label_value() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9_.:/-]{0,12}", Just("tiny \"llama\"\\n".to_owned()), "[ -~]{0,8}", "\\PC{0,4}",]
}

/// Lines as exporters write them, and near misses of them.
fn line() -> impl Strategy<Value = String> {
    let escaped =
        label_value().prop_map(|v| v.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"));
    let labels = proptest::collection::vec(("[a-c]", escaped), 0..3).prop_map(|pairs| {
        let list: Vec<String> = pairs.iter().map(|(n, v)| format!("{n}=\"{v}\"")).collect();
        if list.is_empty() { String::new() } else { format!("{{{}}}", list.join(",")) }
    });
    let value = prop_oneof![
        any::<f64>().prop_map(|v| format!("{v}")),
        any::<f64>().prop_map(|v| format!("{v:e}")),
        (0..5_u32).prop_map(|v| v.to_string()),
        Just("NaN".to_owned()),
        Just("+Inf".to_owned()),
        "[0-9.e+-]{1,6}",
    ];
    let time =
        prop_oneof![4 => Just(String::new()), 1 => (1..1_767_225_600_000_i64).prop_map(|t| format!(" {t}"))];
    let good = ("[a-d]{1,2}", labels, value, time).prop_map(|(n, l, v, t)| format!("{n}{l} {v}{t}"));
    prop_oneof![
        8 => good,
        1 => "[a-c{}=\"\\\\, 0-9.#-]{0,20}",
        1 => "[ -~]{0,20}",
        1 => ("[a-d]", "gauge|counter|histogram|summary|x").prop_map(|(n, t)| format!("# TYPE {n} {t}")),
        1 => "[a-d]".prop_map(|n| format!("# HELP {n} some help")),
    ]
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|l| format!("{l}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lines_are_read_as_by_the_reference(line in line()) {
        prop_assume!(!line.trim_start().starts_with('#') && !line.trim().is_empty() && !line.ends_with("# EOF"));
        let body = format!("{line}\n");
        let got = samples(body.as_bytes()).next().unwrap();
        match reference(&line) {
            Some((name, labels, value, time)) => {
                let got = got.map_err(|e| TestCaseError::fail(format!("{line:?}: {e}")))?;
                let list: Vec<_> = got.labels.iter().map(|(n, v)| ((*n).to_owned(), v.to_string())).collect();
                prop_assert_eq!((got.name, list, got.timestamp_ms), (name.as_str(), labels, time));
                prop_assert_eq!(got.value.to_bits(), f64::to_bits(value));
            }
            None => prop_assert!(got.is_err(), "{:?} was read as {:?}", line, got),
        }
    }

    /// Whatever stood on the pages before, a page gives what it gives alone.
    #[test]
    fn what_is_remembered_changes_nothing(
        pages in proptest::collection::vec(proptest::collection::vec(line(), 0..12), 1..6),
        again in proptest::collection::vec(0..12_usize, 1..6),
    ) {
        let mut warm = host(Options::default());
        // Pages that mostly stay as they are, with lines that come, go and move.
        let mut lines: Vec<String> = Vec::new();
        for (new, at) in pages.iter().zip(again.iter().cycle()) {
            let cut = (*at).min(lines.len());
            lines.truncate(cut);
            let moved = new.len() / 2;
            lines.splice(0..0, new.iter().take(moved).cloned());
            lines.extend(new.iter().skip(moved).cloned());
            // Types are remembered by design, so that a change can be told: none here.
            let body = text(&lines.iter().filter(|l| !l.trim_start().starts_with('#')).cloned().collect::<Vec<_>>());
            let mut cold = host(Options::default());
            let warm_stats = page(&mut warm, &body);
            let cold_stats = page(&mut cold, &body);
            prop_assert_eq!(passed(&warm), passed(&cold), "{}", body);
            match (warm_stats, cold_stats) {
                (Ok(a), Ok(b)) => prop_assert_eq!(
                    (a.samples, a.scraped, a.malformed, a.utf8, a.duplicates, a.nan),
                    (b.samples, b.scraped, b.malformed, b.utf8, b.duplicates, b.nan)
                ),
                (Err(a), Err(b)) => prop_assert_eq!(a, b),
                (a, b) => prop_assert!(false, "{:?} and {:?}", a, b),
            }
        }
    }

    /// Bytes flipped, cut and doubled in a real page: no panic, and every line is counted once.
    #[test]
    fn a_damaged_page(edits in proptest::collection::vec((0..VLLM.len(), any::<u8>()), 1..40), cut in 0..VLLM.len()) {
        let mut body = VLLM.to_vec();
        for (at, byte) in &edits {
            body[*at] = *byte;
        }
        body.truncate(cut);
        let mut host = host(Options::default());
        page(&mut host, VLLM).unwrap();
        if let Ok(stats) = page(&mut host, &body) {
            let bad_comment = |l: &&[u8]| l.trim_ascii_start().starts_with(b"#") && std::str::from_utf8(l).is_err();
            let comments = body.split(|b| *b == b'\n').filter(bad_comment).count();
            let lines = (samples(&body).count() + comments) as u64;
            prop_assert_eq!(stats.scraped + stats.malformed + stats.utf8, lines);
            prop_assert_eq!(
                stats.samples + stats.nan + stats.duplicates + stats.dropped + stats.refused + stats.too_many,
                stats.scraped
            );
        }
    }

    #[test]
    fn any_bytes(body: Vec<u8>) {
        let mut host = host(Options::default());
        let _ = page(&mut host, &body);
        for sample in samples(&body) {
            let _ = sample.map_err(|e: LineError| e.to_string());
        }
    }
}
