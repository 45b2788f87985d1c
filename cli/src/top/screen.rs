//! The terminal: draws the newest state, listens to keys.

use std::io;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row as TableRow, Table, TableState};
use tokio::sync::watch;

use super::State;
use super::view::{HEADER, RIGHT};

/// How long a key or a new state may wait.
const POLL: Duration = Duration::from_millis(100);

/// Shows until q, Escape or Ctrl-C. Leaves the terminal as it was, also after a panic.
pub fn show(states: &watch::Receiver<State>) -> io::Result<()> {
    let mut terminal = ratatui::try_init()?;
    let result = run(&mut terminal, states);
    ratatui::restore();
    result
}

fn run(terminal: &mut ratatui::DefaultTerminal, states: &watch::Receiver<State>) -> io::Result<()> {
    let mut states = states.clone();
    let mut place = TableState::default();
    let mut dirty = true;
    loop {
        if dirty || states.has_changed().unwrap_or(false) {
            let state = states.borrow_and_update().clone();
            terminal.draw(|frame| draw(frame, &state, &mut place))?;
            dirty = false;
        }
        if !event::poll(POLL)? {
            continue;
        }
        match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
                KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(()),
                KeyCode::Down | KeyCode::Char('j') => place.scroll_down_by(1),
                KeyCode::Up | KeyCode::Char('k') => place.scroll_up_by(1),
                KeyCode::PageDown => place.scroll_down_by(20),
                KeyCode::PageUp => place.scroll_up_by(20),
                _ => continue,
            },
            Event::Resize(..) => {}
            _ => continue,
        }
        dirty = true;
    }
}

fn draw(frame: &mut Frame<'_>, state: &State, place: &mut TableState) {
    let [title, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(frame.area());
    let up = state.rows.iter().filter(|row| row.state == "up").count();
    let head = format!("picket  {}  {up} of {} nodes up", state.url, state.rows.len());
    frame.render_widget(Line::styled(head, Modifier::BOLD), title);

    let cells: Vec<Vec<String>> = state.rows.iter().map(super::Row::cells).collect();
    let widths = (0..HEADER.len()).map(|column| {
        let widest = cells.iter().filter_map(|row| row.get(column)).map(|text| text.chars().count()).max();
        let header = HEADER.get(column).map_or(0, |text| text.chars().count());
        Constraint::Length(u16::try_from(widest.unwrap_or(0).max(header)).unwrap_or(40))
    });
    let align = |column: usize, text: String| {
        let line = Line::from(text);
        Cell::from(if RIGHT.contains(&column) { line.right_aligned() } else { line })
    };
    let rows = cells.iter().zip(&state.rows).map(|(row, of)| {
        let style = Style::default().fg(color(&of.state));
        TableRow::new(row.iter().enumerate().map(|(column, text)| align(column, text.clone()))).style(style)
    });
    let header =
        TableRow::new(HEADER.iter().enumerate().map(|(column, text)| align(column, (*text).to_owned())))
            .style(Modifier::BOLD);
    let table =
        Table::new(rows, widths).header(header).column_spacing(2).row_highlight_style(Modifier::REVERSED);
    frame.render_stateful_widget(table, body, place);

    let foot_line = match (&state.error, state.truncated) {
        (Some(error), _) => {
            let first = error.lines().next().unwrap_or_default().to_owned();
            Line::styled(format!("old: {first}"), Color::Red)
        }
        (None, true) => {
            Line::styled("the fleet has more values than are read: some cells are empty", Color::Yellow)
        }
        (None, false) => Line::styled("q ends, ↑ ↓ move", Modifier::DIM),
    };
    frame.render_widget(foot_line, foot);
}

fn color(state: &str) -> Color {
    match state {
        "up" => Color::Reset,
        "stale" => Color::Yellow,
        "down" | "revoked" => Color::Red,
        _ => Color::DarkGray,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::view::Row;

    #[test]
    fn draws_rows_and_errors() {
        let mut terminal = Terminal::new(TestBackend::new(100, 6)).unwrap();
        let row = Row {
            node: "gpu-01".into(),
            state: "up".into(),
            age_ms: Some(1000),
            cpu_percent: Some(31.0),
            load: None,
            memory_percent: None,
            gpus: 8,
            gpu_percent: Some(61.0),
            gpu_celsius: Some(66.0),
            series: 900,
            samples_per_second: Some(60.0),
        };
        let state =
            State { rows: vec![row], url: "https://x".into(), error: Some("gone".into()), truncated: false };
        terminal.draw(|frame| draw(frame, &state, &mut TableState::default())).unwrap();
        let text: String =
            terminal.backend().buffer().content().iter().map(ratatui::buffer::Cell::symbol).collect();
        for wanted in ["1 of 1 nodes up", "SAMPLES/S", "gpu-01", "61 / 66", "old: gone"] {
            assert!(text.contains(wanted), "{wanted:?} is missing in {text:?}");
        }
    }
}
