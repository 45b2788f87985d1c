//! A container's output as the engine sends it.
//!
//! Without a terminal it comes in frames: a byte for the stream (1 out, 2 error), three zeros, the payload's length in
//! four bytes, big end first. An engine cuts a long line into several frames, each with a time; here they are one line
//! again. A terminal's output comes as it is. In both each line begins with its time (RFC 3339).

use super::{Error, LogLine, LogPage};

/// The longest line, in bytes; what is longer is cut.
const MAX_LINE: usize = 64 << 10;

/// `cut`: the bytes break off where a bound was reached.
pub(super) fn read(bytes: &[u8], tty: bool, cut: bool) -> Result<LogPage, Error> {
    let mut page = LogPage { lines: Vec::new(), more: cut };
    if tty {
        let whole = if cut { whole_lines(bytes) } else { bytes };
        let mut stream = Stream::new(false);
        for line in whole.split_inclusive(|b| *b == b'\n') {
            stream.take(line, &mut page.lines);
        }
        stream.finish(&mut page.lines);
        return Ok(page);
    }
    let mut streams = [Stream::new(false), Stream::new(true)];
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<8>() {
        let [kind, 0, 0, 0, a, b, c, d] = *head else {
            return Err(Error::Malformed("the output is not in frames".to_owned()));
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let [out, err] = &mut streams;
        let stream = match kind {
            0 | 1 => out,
            2 => err,
            other => return Err(Error::Malformed(format!("a frame of the stream {other}"))),
        };
        let Some((payload, after)) = after.split_at_checked(length) else {
            // The bound cut it; it comes whole with the next question.
            page.more = true;
            break;
        };
        stream.take(payload, &mut page.lines);
        rest = after;
    }
    for stream in &mut streams {
        // A line whose end was cut off is left for the next question.
        if !page.more {
            stream.finish(&mut page.lines);
        }
    }
    page.lines.sort_by_key(|line| line.timestamp);
    Ok(page)
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    bytes.get(..end).unwrap_or_default()
}

/// One of the two, with the line that is not finished yet.
struct Stream {
    stderr: bool,
    open: Option<(u64, Vec<u8>)>,
}

impl Stream {
    const fn new(stderr: bool) -> Self {
        Self { stderr, open: None }
    }

    /// A part of the output that begins with a time; it may hold several lines.
    fn take(&mut self, part: &[u8], lines: &mut Vec<LogLine>) {
        for piece in part.split_inclusive(|b| *b == b'\n') {
            let (time, text) = split_time(piece);
            let open = self.open.get_or_insert_with(|| (time.unwrap_or(0), Vec::new()));
            let room = MAX_LINE.saturating_sub(open.1.len());
            open.1.extend(text.iter().take(room));
            if piece.ends_with(b"\n") {
                self.finish(lines);
            }
        }
    }

    fn finish(&mut self, lines: &mut Vec<LogLine>) {
        let Some((timestamp, text)) = self.open.take() else { return };
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        lines.push(LogLine {
            stderr: self.stderr,
            timestamp,
            text: String::from_utf8_lossy(text).into_owned(),
        });
    }
}

/// `2026-11-21T07:09:25.849521705Z text`
fn split_time(line: &[u8]) -> (Option<u64>, &[u8]) {
    let end = line.iter().take(40).position(|b| *b == b' ');
    let Some((word, rest)) = end.and_then(|end| line.split_at_checked(end)) else { return (None, line) };
    let time: Option<jiff::Timestamp> = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
    match time {
        Some(time) => (u64::try_from(time.as_nanosecond()).ok(), rest.get(1..).unwrap_or_default()),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: &str = "2026-11-21T07:09:25.849521705Z";
    const NS: u64 = 1_795_244_965_849_521_705;

    fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut frame = vec![kind, 0, 0, 0];
        frame.extend((text.len() as u32).to_be_bytes());
        frame.extend(text.as_bytes());
        frame
    }

    fn texts(page: &LogPage) -> Vec<(bool, &str)> {
        page.lines.iter().map(|l| (l.stderr, l.text.as_str())).collect()
    }

    /// As a real engine sent it.
    #[test]
    fn a_captured_answer() {
        let page = read(include_bytes!("testdata/logs.raw"), false, false).unwrap();
        assert_eq!(texts(&page), [(true, "err"), (false, "out")]);
        assert_eq!(page.lines[0].timestamp, NS);
        assert!(!page.more);
    }

    #[test]
    fn parts_of_a_line_are_one() {
        let bytes = [
            frame(1, &format!("{T} begin ")),
            frame(2, &format!("{T} between\n")),
            frame(1, &format!("{T} middle ")),
            frame(1, &format!("{T} end\r\n")),
            frame(1, &format!("{T} no newline")),
        ]
        .concat();
        let page = read(&bytes, false, false).unwrap();
        assert_eq!(texts(&page), [(true, "between"), (false, "begin middle end"), (false, "no newline")]);
        // The bound fell into the last frame: what is whole is kept.
        let page = read(&bytes[..bytes.len() - 1], false, true).unwrap();
        assert_eq!(texts(&page), [(true, "between"), (false, "begin middle end")]);
        assert!(page.more);
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let text = format!("{T} one\r\n{T} two\r\n{T} thr");
        let page = read(text.as_bytes(), true, false).unwrap();
        assert_eq!(texts(&page), [(false, "one"), (false, "two"), (false, "thr")]);
        let page = read(text.as_bytes(), true, true).unwrap();
        assert_eq!(texts(&page), [(false, "one"), (false, "two")]);
        assert!(read(text.as_bytes(), false, false).is_err());
        let offset = "2026-11-21T08:09:25.849521705+01:00 x\n";
        assert_eq!(read(offset.as_bytes(), true, false).unwrap().lines[0].timestamp, NS);
    }

    #[test]
    fn long_lines_are_cut() {
        let text = format!("{T} {}\n", "x".repeat(200_000));
        let page = read(&frame(1, &text), false, false).unwrap();
        assert_eq!(page.lines[0].text.len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), tty: bool, cut: bool) {
            let _ = read(&bytes, tty, cut);
        }

        /// However a line is cut into frames, it comes back whole.
        #[test]
        fn any_cut(words in prop::collection::vec("[a-z ]{0,20}", 1..20)) {
            let mut bytes = Vec::new();
            for (i, word) in words.iter().enumerate() {
                let end = if i + 1 == words.len() { "\n" } else { "" };
                bytes.extend(frame(2, &format!("{T} {word}{end}")));
            }
            let page = read(&bytes, false, false).unwrap();
            let whole = words.concat();
            prop_assert_eq!(texts(&page), vec![(true, whole.as_str())]);
        }
    }
}
