//! The samples as one SVG that needs nothing else: a panel a figure, a line a process, a mark a fault.

use std::fmt::Write as _;

use super::report::{Done, stretches};
use super::watch::Sample;
use crate::usage::Usage;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 26.0;
const HEIGHT: f64 = 130.0;
const GAP: f64 = 44.0;
const COLOURS: [&str; 8] =
    ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf", "#7f7f7f"];

struct Panel {
    title: String,
    lines: Vec<Line>,
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

pub fn svg(samples: &[Sample], done: &[Done]) -> String {
    let panels = panels(samples);
    let length = samples.last().map_or(1.0, |last| last.at_s).max(1.0);
    let height = panels.len() as f64 * (HEIGHT + GAP) + TOP;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let top = TOP + number as f64 * (HEIGHT + GAP);
        draw(&mut out, panel, done, top, length);
    }
    out + "</svg>\n"
}

fn panels(samples: &[Sample]) -> Vec<Panel> {
    let stretches = stretches(samples);
    let mut all = Vec::new();
    type Pick = fn(&Usage) -> f64;
    let picks: [(&str, Pick); 4] = [
        ("RSS, MB", |u| u.rss / 1e6),
        ("its own memory, MB", |u| u.own / 1e6),
        ("handles", |u| u.handles),
        ("threads", |u| u.threads),
    ];
    for (title, pick) in picks {
        let mut kinds: Vec<&str> = Vec::new();
        for stretch in stretches.iter().filter(|stretch| stretch.points.len() > 1) {
            if kinds.contains(&stretch.kind.as_str()) {
                continue;
            }
            kinds.push(&stretch.kind);
            let of_kind = stretches.iter().filter(|other| other.kind == stretch.kind);
            let line = of_kind.map(|one| Line {
                name: one.owner.clone(),
                points: one.points.iter().map(|(at, usage)| (*at, pick(usage))).collect(),
            });
            all.push(Panel { title: format!("{}: {title}", stretch.kind), lines: line.collect() });
        }
    }
    let of = |name: &str, pick: fn(&Sample) -> f64| Line {
        name: name.to_owned(),
        points: samples.iter().map(|sample| (sample.at_s, pick(sample))).collect(),
    };
    all.push(Panel {
        title: "on disk, MB".to_owned(),
        lines: vec![
            of("spools", |s| s.spools.iter().map(|spool| spool.bytes).sum::<f64>() / 1e6),
            of("databases", |s| s.databases / 1e6),
            of("log", |s| s.log / 1e6),
        ],
    });
    let series = samples.iter().filter_map(|sample| Some((sample.at_s, sample.series?)));
    all.push(Panel {
        title: "live series".to_owned(),
        lines: vec![Line { name: "aggregator".to_owned(), points: series.collect() }],
    });
    all
}

fn draw(out: &mut String, panel: &Panel, done: &[Done], top: f64, length: f64) {
    let values = || panel.lines.iter().flat_map(|line| &line.points).map(|point| point.1);
    let least = values().fold(f64::INFINITY, f64::min);
    let most = values().fold(f64::NEG_INFINITY, f64::max);
    let (least, most) = if least < most { (least, most) } else { (least - 1.0, least + 1.0) };
    if !least.is_finite() {
        return;
    }
    let x = |at: f64| LEFT + at / length * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| top + HEIGHT - (value - least) / (most - least) * HEIGHT;
    let (bottom, right) = (top + HEIGHT, WIDTH - RIGHT);
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>\n\
         <path d=\"M{LEFT} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"black\"/>",
        top - 7.0,
        escaped(&panel.title)
    );
    for value in [least, (least + most) / 2.0, most] {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.2}</text>",
            LEFT - 5.0,
            y(value) + 4.0
        );
    }
    for part in 0..=4 {
        let at = length * f64::from(part) / 4.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0} min</text>",
            x(at),
            bottom + 14.0,
            at / 60.0
        );
    }
    for one in done.iter().filter(|one| one.at_s <= length) {
        let colour = if one.error.is_some() { "red" } else { "#bbb" };
        let _ = writeln!(
            out,
            "<path d=\"M{:.1} {top}V{bottom}\" stroke=\"{colour}\" stroke-dasharray=\"2 3\"><title>{}</title></path>",
            x(one.at_s),
            escaped(&one.what)
        );
    }
    let mut names: Vec<&str> = Vec::new();
    for line in &panel.lines {
        let place = names.iter().position(|name| *name == line.name).unwrap_or_else(|| {
            names.push(&line.name);
            names.len() - 1
        });
        let colour = COLOURS.get(place % COLOURS.len()).unwrap_or(&"black");
        let points: Vec<String> =
            line.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.join(" ")
        );
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
            right + 8.0,
            top + 10.0 + place as f64 * 14.0,
            escaped(&line.name)
        );
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sample;
    use super::*;

    #[test]
    fn a_restart_breaks_the_line_and_a_fault_is_marked() {
        let samples: Vec<Sample> =
            (0..10).map(|n| sample(f64::from(n) * 60.0, 1 + n / 5, 20e6 + f64::from(n), None)).collect();
        let done =
            Done { at_s: 300.0, what: "a & b < c".into(), took_s: 1.0, said: String::new(), error: None };
        let text = svg(&samples, &[done]);
        // Four figures of two lives, three lines of what is on disk, one of series.
        assert_eq!(text.matches("<polyline").count(), 4 * 2 + 3 + 1, "{text}");
        assert_eq!(text.matches("<title>a &amp; b &lt; c</title>").count(), 6);
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let text = svg(&[], &[]);
        assert!(!text.contains("<polyline") && text.ends_with("</svg>\n"), "{text}");
    }
}
