//! What a row gives, and how it is printed.

use serde::Serialize;

/// One measured figure beside its peer's and the aim.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    pub row: &'static str,
    pub what: String,
    pub unit: &'static str,
    pub ours: f64,
    /// Who was measured in the same run, and what it gave.
    pub peer: Option<(String, f64)>,
    /// ours / peer.
    pub ratio: Option<f64>,
    /// The aim, and whether more is better.
    pub aim: Option<f64>,
    pub more_is_better: bool,
    pub met: Option<bool>,
    pub runs: usize,
}

impl Figure {
    /// `ours` and `peer` hold one value a run; the medians are reported.
    pub fn new(
        row: &'static str,
        what: impl Into<String>,
        unit: &'static str,
        more_is_better: bool,
        ours: &[f64],
        peer: Option<(&str, &[f64])>,
        aim: Option<f64>,
    ) -> Self {
        let value = median(ours);
        let peer = peer.filter(|(_, v)| !v.is_empty()).map(|(name, v)| (name.to_owned(), median(v)));
        let met = aim.map(|aim| if more_is_better { value >= aim } else { value <= aim });
        let ratio = peer.as_ref().map(|(_, p)| value / p);
        Self {
            row,
            what: what.into(),
            unit,
            ours: value,
            peer,
            ratio,
            aim,
            more_is_better,
            met,
            runs: ours.len(),
        }
    }
}

/// The middle one of the runs.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// A Markdown table, as it stands in `docs/benchmarks.md`.
pub fn table(figures: &[Figure]) -> String {
    let mut out = String::from(
        "| row | figure | unit | Picket | peer | ratio | aim | met |\n|---|---|---|---|---|---|---|---|\n",
    );
    for f in figures {
        let peer = f.peer.as_ref().map_or("–".to_owned(), |(n, v)| format!("{n}: {}", short(*v)));
        let ratio = f.ratio.map_or("–".to_owned(), |r| format!("{r:.3}"));
        let aim = f.aim.map_or("–".to_owned(), |a| {
            format!("{} {}", if f.more_is_better { "≥" } else { "≤" }, short(a))
        });
        let met = f.met.map_or("–", |m| if m { "yes" } else { "**no**" });
        out += &format!(
            "| {} | {} | {} | {} | {peer} | {ratio} | {aim} | {met} |\n",
            f.row,
            f.what,
            f.unit,
            short(f.ours)
        );
    }
    out
}
