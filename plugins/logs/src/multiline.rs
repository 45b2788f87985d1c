//! Traces of several lines: Python's tracebacks, Java's stack traces, Go's panics. Each is one entry.
//!
//! Only what these languages write is joined, never lines for being indented. A trace is bounded in lines and bytes; what
//! comes after the bound is the next entry.

use crate::decode::Line;

/// The most bytes of a joined trace.
pub const MAX_BYTES: usize = 64 << 10;

/// A line, or several that are one trace.
#[derive(Debug)]
pub struct Block<'a> {
    pub first: Line<'a>,
    pub to: usize,
    pub lines: usize,
    pub text_bytes: usize,
    /// The texts of the lines behind the first.
    pub more: Vec<String>,
    /// It may go on.
    pub open: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Plain,
    /// Within a traceback whose lines begin with so many bytes of a logger's prefix.
    Python {
        prefix: usize,
    },
    /// After the exception's own line: another one may be chained to it.
    PythonEnd {
        prefix: usize,
    },
    Java,
    Go,
}

const TRACEBACK: &str = "Traceback (most recent call last):";
const CHAINS: [&str; 2] = [
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
];

/// Joins lines to blocks, each stream for itself. With `most` below 2 nothing is joined.
pub fn join(lines: Vec<Line<'_>>, most: usize) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::with_capacity(lines.len());
    for line in lines {
        let last = blocks.iter().rposition(|b| b.first.stream == line.stream && b.first.unit == line.unit);
        if let Some(block) = last.and_then(|i| blocks.get_mut(i))
            && most > 1
            && !line.partial
            && let Some(state) = next(&block.state, &block.first.text, &line.text)
        {
            let fits = block.lines < most && block.text_bytes + line.text.len() < MAX_BYTES;
            if fits {
                block.to = line.to;
                block.lines += 1;
                block.text_bytes += line.text.len() + 1;
                block.first.cut |= line.cut;
                block.first.invalid |= line.invalid;
                block.more.push(line.text.into_owned());
                block.open = state != State::Plain;
                block.state = state;
                continue;
            }
            block.open = false;
            blocks.push(Block::new(line, state));
            continue;
        }
        if let Some(block) = last.and_then(|i| blocks.get_mut(i)) {
            block.open = false;
        }
        let state = begin(&line.text);
        blocks.push(Block::new(line, state));
    }
    blocks
}

impl<'a> Block<'a> {
    fn new(first: Line<'a>, state: State) -> Self {
        let open = first.partial || state != State::Plain || may_begin_java(&first.text);
        Self { to: first.to, lines: 1, text_bytes: first.text.len(), more: Vec::new(), open, state, first }
    }
}

/// Where the bytes begin that are to be held back: those of what is still open, and all behind them that would come twice.
pub fn hold_from(blocks: &[Block<'_>], end: usize) -> usize {
    let mut from = blocks.iter().filter(|b| b.open).map(|b| b.first.from).min().unwrap_or(end);
    // A block that began before that place and ends behind it goes with it.
    loop {
        let across = blocks.iter().filter(|b| b.first.from < from && b.to > from).map(|b| b.first.from).min();
        match across {
            Some(earlier) => from = earlier,
            None => return from,
        }
    }
}

fn begin(text: &str) -> State {
    if let Some(prefix) = text.find(TRACEBACK) {
        return State::Python { prefix };
    }
    if text.starts_with("panic: ") || text.starts_with("fatal error: ") {
        return State::Go;
    }
    if is_java_frame(text) {
        return State::Java;
    }
    State::Plain
}

/// The state behind `line` where it belongs to the block; none where it does not.
fn next(state: &State, first: &str, line: &str) -> Option<State> {
    match state {
        State::Plain | State::Java => {
            let caused = *state == State::Java && (line.starts_with("Caused by: ") || is_elision(line));
            (caused || is_java_frame(line)).then_some(State::Java)
        }
        State::Python { prefix } => {
            let prefix = *prefix;
            let rest = behind(first, line, prefix)?;
            if rest.is_empty() || rest.starts_with([' ', '\t']) {
                return Some(State::Python { prefix });
            }
            if rest.starts_with(TRACEBACK) || CHAINS.contains(&rest.trim_end()) {
                return Some(State::Python { prefix });
            }
            is_exception(rest).then_some(State::PythonEnd { prefix })
        }
        State::PythonEnd { prefix } => {
            let rest = behind(first, line, *prefix)?;
            let chained = CHAINS.contains(&rest.trim_end());
            if chained {
                return Some(State::Python { prefix: *prefix });
            }
            rest.is_empty().then_some(State::PythonEnd { prefix: *prefix })
        }
        State::Go => {
            let belongs = line.is_empty()
                || line.starts_with('\t')
                || line.starts_with("goroutine ")
                || line.starts_with("[signal ")
                || line.starts_with("created by ")
                || line.starts_with("panic: ")
                || line.starts_with("exit status ")
                || is_go_call(line);
            belongs.then_some(State::Go)
        }
    }
}

/// What stands behind a logger's prefix, if the line has the like of the first one's.
fn behind<'a>(first: &str, line: &'a str, prefix: usize) -> Option<&'a str> {
    if prefix == 0 {
        return Some(line);
    }
    let (own, other) = (first.as_bytes().get(..prefix)?, line.as_bytes());
    // Blank lines may have lost the blanks of their prefix.
    let shared = other.len().min(prefix);
    let alike = own.iter().zip(other).all(|(a, b)| a == b || (a.is_ascii_digit() && b.is_ascii_digit()));
    if !alike || shared + 2 < prefix {
        return None;
    }
    Some(line.get(shared..).unwrap_or_default())
}

/// `ValueError: text`, `torch.OutOfMemoryError: …`, `KeyboardInterrupt`
fn is_exception(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    let start = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    start && name.len() < 200 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
}

fn is_java_frame(line: &str) -> bool {
    let inner = line.trim_start();
    inner.len() < line.len()
        && ((inner.starts_with("at ") && inner.contains('(')) || inner.starts_with("Suppressed: "))
        || is_elision(line)
}

/// `... 12 more`, behind a tab
fn is_elision(line: &str) -> bool {
    let inner = line.trim();
    line.starts_with([' ', '\t'])
        && inner
            .strip_prefix("... ")
            .and_then(|rest| rest.strip_suffix(" more"))
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn may_begin_java(line: &str) -> bool {
    line.starts_with("Exception in thread ")
        || ["Exception: ", "Error: ", "Exception"]
            .iter()
            .any(|word| line.split(' ').any(|part| part.contains('.') && part.ends_with(word.trim_end())))
}

/// `main.(*Server).handle(0xc000010000, {0x1, 0x2})`
fn is_go_call(line: &str) -> bool {
    let name = line.split('(').next().unwrap_or_default();
    line.ends_with(')')
        && name.contains('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'/' | b'_' | b'-' | b'*' | b'%'))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn lines(text: &str) -> Vec<Line<'_>> {
        let mut at = 0;
        text.split_inclusive('\n')
            .map(|raw| {
                let from = at;
                at += raw.len();
                Line { text: Cow::Borrowed(raw.trim_end_matches('\n')), ..Line::bare(from, at) }
            })
            .collect()
    }

    /// How many lines each block has.
    fn sizes(text: &str) -> Vec<usize> {
        join(lines(text), 200).iter().map(|b| b.lines).collect()
    }

    const PYTHON: &str = "INFO start
Traceback (most recent call last):
  File \"a.py\", line 1, in <module>
    main()
    ^^^^^^
  File \"a.py\", line 2, in main
    raise KeyError('x')
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"a.py\", line 9
torch.OutOfMemoryError: CUDA out of memory.
INFO next
";

    const VLLM: &str = "(EngineCore_0 pid=7) ERROR 11-21 14:00:01 [core.py:710] EngineCore failed
(EngineCore_0 pid=7) ERROR 11-21 14:00:01 [core.py:710] Traceback (most recent call last):
(EngineCore_0 pid=7) ERROR 11-21 14:00:01 [core.py:710]   File \"core.py\", line 701, in run
(EngineCore_0 pid=7) ERROR 11-21 14:00:02 [core.py:710]     engine = Engine()
(EngineCore_0 pid=7) ERROR 11-21 14:00:02 [core.py:710] RuntimeError: no memory
(APIServer pid=1) INFO 11-21 14:00:03 [x.py:1] bye
";

    const JAVA: &str = "2026-11-21 ERROR Request failed
java.lang.IllegalStateException: no
\tat org.example.A.run(A.java:10)
\tat org.example.B.run(B.java:20)
Caused by: java.io.IOException: yes
\tat org.example.C.run(C.java:30)
\t... 2 more
2026-11-21 INFO next
";

    const GO: &str = "panic: runtime error: invalid memory address
[signal SIGSEGV: segmentation violation code=0x1]

goroutine 1 [running]:
main.(*T).f(0xc000012345)
\t/src/main.go:7 +0x1d
main.main()
\t/src/main.go:11 +0x2b
exit status 2
2026-11-21 next
";

    #[test]
    fn traces_are_one_entry_each() {
        assert_eq!(sizes(PYTHON), [1, 13, 1]);
        assert_eq!(sizes(VLLM), [1, 4, 1]);
        assert_eq!(sizes(JAVA), [1, 6, 1]);
        assert_eq!(sizes(GO), [9, 1]);
        assert_eq!(sizes("one\n  indented\ntwo\n"), [1, 1, 1]);
        assert_eq!(sizes("Traceback (most recent call last):\nnot an exception line at all\n"), [1, 1]);
    }

    #[test]
    fn a_trace_is_bounded_and_nothing_of_it_is_lost() {
        let text = format!("Traceback (most recent call last):\n{}ValueError: x\n", "  frame\n".repeat(500));
        let blocks = join(lines(&text), 100);
        assert_eq!(blocks.iter().map(|b| b.lines).sum::<usize>(), 502);
        assert!(
            blocks.iter().all(|b| b.lines <= 100),
            "{:?}",
            blocks.iter().map(|b| b.lines).collect::<Vec<_>>()
        );
        assert_eq!(blocks.len(), 6);
        assert_eq!(join(lines(PYTHON), 1).len(), PYTHON.lines().count());
    }

    #[test]
    fn an_open_trace_is_held_back_and_a_finished_line_is_not() {
        let text = "fine\nTraceback (most recent call last):\n  File\n";
        let blocks = join(lines(text), 200);
        assert_eq!(hold_from(&blocks, text.len()), 5);
        let text = "fine\nalso fine\n";
        assert_eq!(hold_from(&join(lines(text), 200), text.len()), text.len());
    }

    proptest::proptest! {
        /// Wherever a text is cut, holding back what is open and going on gives what the whole gives.
        #[test]
        fn cut_anywhere_and_held_back_it_is_the_same(which in 0usize..4, cut in 0usize..40) {
            let text = [PYTHON, VLLM, JAVA, GO][which];
            let whole = sizes(text);
            let at: usize = text.split_inclusive('\n').take(cut).map(str::len).sum();
            let (head, _) = text.split_at(at);
            let blocks = join(lines(head), 200);
            let from = hold_from(&blocks, head.len());
            let mut got: Vec<usize> = blocks.iter().filter(|b| b.to <= from).map(|b| b.lines).collect();
            got.extend(sizes(text.get(from..).unwrap()));
            // A line that may begin a Java trace is the only one that is let go too early: it has no mark of its own.
            if which != 2 {
                proptest::prop_assert_eq!(got, whole);
            } else {
                proptest::prop_assert_eq!(got.iter().sum::<usize>(), whole.iter().sum::<usize>());
            }
        }

        #[test]
        fn any_lines_are_answered(text in "([ -~]{0,40}\n){0,20}") {
            let blocks = join(lines(&text), 50);
            proptest::prop_assert_eq!(blocks.iter().map(|b| b.lines).sum::<usize>(), text.lines().count());
            proptest::prop_assert!(hold_from(&blocks, text.len()) <= text.len());
        }
    }
}
