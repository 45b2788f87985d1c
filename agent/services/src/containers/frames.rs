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

/// One message of an output that is followed: a line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch, the engine's.
    pub timestamp: u64,
    /// With its newline; a part of a line has none.
    pub text: Vec<u8>,
    /// It was longer.
    pub cut: bool,
}

/// Messages out of bytes as they come.
#[derive(Debug)]
pub(super) struct Unframe {
    tty: bool,
    /// What is not whole yet.
    bytes: Vec<u8>,
    /// The rest of a message that is too long, to be left out.
    skip: usize,
    /// Of the message before, for one that says none.
    timestamp: u64,
    /// A terminal's line that is too long was handed out; its rest is left out.
    skipping: bool,
}

impl Unframe {
    pub fn new(tty: bool) -> Self {
        Self { tty, bytes: Vec::new(), skip: 0, timestamp: 0, skipping: false }
    }

    pub fn push(&mut self, bytes: &[u8], messages: &mut Vec<Message>) -> Result<(), Error> {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.bytes.extend_from_slice(bytes.get(skipped..).unwrap_or_default());
        if self.tty {
            self.lines(messages);
            return Ok(());
        }
        loop {
            let Some((head, rest)) = self.bytes.split_first_chunk::<8>() else { return Ok(()) };
            let [kind @ 0..=2, 0, 0, 0, a, b, c, d] = *head else {
                return Err(Error::Malformed("the output is not in frames".to_owned()));
            };
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            let kept = length.min(MAX_LINE);
            let Some(payload) = rest.get(..kept) else { return Ok(()) };
            let payload = payload.to_vec();
            let present = rest.len().min(length);
            self.skip = length - present;
            self.bytes.drain(..8 + present);
            self.pieces(kind == 2, &payload, kept < length, messages);
        }
    }

    /// The end: what is left is a part of a line.
    pub fn finish(&mut self, messages: &mut Vec<Message>) {
        let rest = std::mem::take(&mut self.bytes);
        if self.tty && !rest.is_empty() && !self.skipping {
            self.pieces(false, &rest, false, messages);
        }
    }

    fn lines(&mut self, messages: &mut Vec<Message>) {
        while let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
            let rest = self.bytes.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.bytes, rest);
            let cut = line.len() > MAX_LINE;
            line.truncate(MAX_LINE);
            if !std::mem::take(&mut self.skipping) {
                self.pieces(false, &line, cut, messages);
            }
        }
        if self.bytes.len() > MAX_LINE {
            let mut line = std::mem::take(&mut self.bytes);
            line.truncate(MAX_LINE);
            if !std::mem::replace(&mut self.skipping, true) {
                self.pieces(false, &line, true, messages);
            }
        }
    }

    /// One message, or several that an engine sent as one; each line begins with its time.
    fn pieces(&mut self, stderr: bool, payload: &[u8], cut: bool, messages: &mut Vec<Message>) {
        for piece in payload.split_inclusive(|b| *b == b'\n') {
            let (time, text) = split_time(piece);
            self.timestamp = time.unwrap_or(self.timestamp);
            let mut text = text.to_vec();
            if self.tty && text.ends_with(b"\r\n") {
                text.truncate(text.len() - 2);
                text.push(b'\n');
            }
            let whole = text.ends_with(b"\n");
            if cut && !whole {
                text.push(b'\n');
            }
            messages.push(Message { stderr, timestamp: self.timestamp, text, cut: cut && !whole });
        }
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

    fn messages(bytes: &[u8], tty: bool, piece: usize) -> Vec<(bool, u64, String, bool)> {
        let (mut unframe, mut all) = (Unframe::new(tty), Vec::new());
        for piece in bytes.chunks(piece.max(1)) {
            unframe.push(piece, &mut all).unwrap();
        }
        unframe.finish(&mut all);
        let text = |m: Message| (m.stderr, m.timestamp, String::from_utf8(m.text).unwrap(), m.cut);
        all.into_iter().map(text).collect()
    }

    /// However the connection cuts it, the same messages come.
    #[test]
    fn an_output_that_is_followed() {
        let long = "x".repeat(MAX_LINE + 5000);
        let bytes = [
            frame(1, &format!("{T} begin ")),
            frame(2, &format!("{T} other\n")),
            frame(1, &format!("{T} end\n")),
            frame(1, &format!("{T} {long}\n")),
            frame(2, &format!("{T} last\n")),
        ]
        .concat();
        let own = |stderr: bool, text: &str, cut: bool| (stderr, NS, text.to_owned(), cut);
        let cut = format!("{}\n", "x".repeat(MAX_LINE - T.len() - 1));
        let expected = [
            own(false, "begin ", false),
            own(true, "other\n", false),
            own(false, "end\n", false),
            own(false, &cut, true),
            own(true, "last\n", false),
        ];
        for piece in [1, 7, 8, 9, 1000, 100_000] {
            assert_eq!(messages(&bytes, false, piece), expected, "{piece}");
        }
        let terminal = format!("{T} one\r\n{T} {long}\r\n{T} two\r\n{T} thr");
        for piece in [1, 31, 4096, 1 << 20] {
            let all = messages(terminal.as_bytes(), true, piece);
            let texts: Vec<(usize, bool)> = all.iter().map(|(_, _, text, cut)| (text.len(), *cut)).collect();
            assert_eq!(texts, [(4, false), (MAX_LINE - T.len(), true), (4, false), (3, false)], "{piece}");
        }
        assert!(Unframe::new(false).push(b"no frames here", &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_that_are_followed(bytes in prop::collection::vec(any::<u8>(), 0..400), tty: bool, at in 0usize..400) {
            let mut unframe = Unframe::new(tty);
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let mut messages = Vec::new();
            let _ = unframe.push(first, &mut messages).and_then(|()| unframe.push(second, &mut messages));
            unframe.finish(&mut messages);
        }

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
