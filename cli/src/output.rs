//! Printing: tables for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// Prints a JSON value, readable.
pub fn json(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)
}

/// Prints one line.
pub fn line(text: impl std::fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints rows under a header; the columns of `right` (by index) are numbers.
pub fn table(
    header: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
    right: &[usize],
) -> io::Result<()> {
    line(render(header, rows, right))
}

/// As [`table`], as a text without spaces at the ends of lines.
pub fn render(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, right: &[usize]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    table.add_rows(rows);
    for index in right {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// A time that was so many milliseconds ago, in its largest unit: `12s`, `3m`, `5h`, `2d`.
pub fn ago(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What is not known.
pub const NONE: &str = "–";

pub fn or_none(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| NONE.to_owned())
}

/// Unix milliseconds as `2026-01-31 12:00:00Z`.
pub fn time(unix_ms: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    time::OffsetDateTime::from_unix_timestamp(unix_ms.div_euclid(1000))
        .ok()
        .and_then(|t| t.format(format).ok())
        .unwrap_or_else(|| unix_ms.to_string())
}

/// What a node or a plugin said, made safe for a terminal: no control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A large number in thousands: `950`, `12.3k`, `4.5M`.
pub fn short(number: f64) -> String {
    match number {
        n if n.abs() < 1_000.0 => format!("{n:.0}"),
        n if n.abs() < 1_000_000.0 => format!("{:.1}k", n / 1e3),
        n => format!("{:.1}M", n / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (ms, want) in
            [(-5, "0s"), (59_999, "59s"), (60_000, "1m"), (7_200_000, "2h"), (200_000_000, "2d")]
        {
            assert_eq!(ago(ms), want);
        }
        for (number, want) in [(0.0, "0"), (999.0, "999"), (12_345.0, "12.3k"), (4_500_000.0, "4.5M")] {
            assert_eq!(short(number), want);
        }
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(plain("a\u{1b}[31mb\n"), "a [31mb ");
    }

    #[test]
    fn tables_have_no_ragged_ends() {
        let text = render(
            &["A", "N"],
            [vec!["x".to_owned(), "1".to_owned()], vec!["yyy".into(), "22".into()]],
            &[1],
        );
        assert_eq!(text, "A     N\nx     1\nyyy  22");
    }
}
