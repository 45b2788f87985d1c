//! A terminal with a program in it: what the program draws is what a person would see.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use vt100::{Color, Parser};

/// Of a character, in pixels of the picture.
const CELL: (usize, usize) = (8, 18);
const MARGIN: usize = 12;

pub struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// Starts the program in a terminal of this size. It ends with this.
    pub fn start(command: &mut Command, rows: u16, columns: u16) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        let slave = File::options().read(true).write(true).open(&name).with_context(|| name.clone())?;
        let child = command
            .env("TERM", "xterm-256color")
            .stdin(slave.try_clone()?)
            .stdout(slave.try_clone()?)
            .stderr(slave)
            .spawn()
            .context("the program in the terminal")?;
        let keys = File::from(master);
        let (mut drawn, screen) = (keys.try_clone()?, Arc::new(Mutex::new(Parser::new(rows, columns, 0))));
        let parser = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is how Linux says that the program has closed it.
            while let Ok(count @ 1..) = drawn.read(&mut bytes) {
                parser
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .process(bytes.get(..count).unwrap_or_default());
            }
        });
        Ok(Self { child, keys, screen })
    }

    /// What stands there, line by line.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    pub fn press(&mut self, keys: &[u8]) -> Result<()> {
        Ok(self.keys.write_all(keys)?)
    }

    /// Waits until the program has ended by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        for _ in 0..1000 {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!("the program goes on: {}", self.text())
    }

    /// The screen as a picture, SVG.
    pub fn picture(&self) -> Result<String> {
        let parser = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let screen = parser.screen();
        let (rows, columns) = screen.size();
        let (width, height) =
            (usize::from(columns) * CELL.0 + 2 * MARGIN, usize::from(rows) * CELL.1 + 2 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"13\">\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#16191d\"/>\n"
        );
        for row in 0..rows {
            let y = MARGIN + usize::from(row) * CELL.1 + 13;
            let mut runs: Vec<(u16, String, String)> = Vec::new();
            for column in 0..columns {
                let Some(cell) = screen.cell(row, column) else { continue };
                let text = if cell.has_contents() { cell.contents() } else { " " };
                let mut style = format!("fill=\"{}\"", colour(cell.fgcolor(), cell.dim()));
                if cell.bold() {
                    style.push_str(" font-weight=\"bold\"");
                }
                match runs.last_mut() {
                    Some((_, last, line)) if *last == style => line.push_str(text),
                    _ => runs.push((column, style, text.to_owned())),
                }
            }
            for (column, style, line) in runs.iter().filter(|run| !run.2.trim().is_empty()) {
                let line = line.trim_end();
                let (x, length) = (MARGIN + usize::from(*column) * CELL.0, line.chars().count() * CELL.0);
                let line = line.replace('&', "&amp;").replace('<', "&lt;").replace(' ', "\u{a0}");
                writeln!(svg, "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\" {style}>{line}</text>")?;
            }
        }
        ensure!(svg.contains("<text"), "nothing is drawn");
        svg.push_str("</svg>\n");
        Ok(svg)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn colour(colour: Color, dim: bool) -> &'static str {
    match colour {
        _ if dim => "#8b949e",
        Color::Idx(1) => "#ff7b72",
        Color::Idx(3) => "#e3b341",
        Color::Idx(8) => "#8b949e",
        _ => "#e6edf3",
    }
}
