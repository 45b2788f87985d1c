//! LogQL, the part that is understood here: see `docs/logs.md`. Text → [`lexer`] → [`parser`] → [`ast`]; [`pipeline`] runs a
//! query's stages on a line.
//!
//! Whatever it is given, parsing ends quickly: the text is bounded, the nesting is bounded, and regular expressions are
//! compiled with a bound on their size and run in time linear to the line.

pub mod ast;
mod fields;
mod lexer;
mod parser;
pub mod pipeline;
#[cfg(test)]
mod tests;
mod units;

pub use parser::{parse, parse_labels, parse_log, parse_selector};

use regex::{Regex, RegexBuilder};

/// The longest query.
pub const MAX_QUERY: usize = 64 << 10;
/// The largest compiled regular expression.
const MAX_REGEX: usize = 1 << 20;

/// Why a query is none, as Loki says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("parse error at line {line}, col {col}: {message}")]
    At { line: usize, col: usize, message: String },
    #[error("parse error : {0}")]
    Whole(String),
}

/// A regular expression with bounds. `whole`: it has to match all of the text.
fn regex(pattern: &str, whole: bool) -> Result<Regex, String> {
    let anchored = if whole { format!("^(?s:{pattern})$") } else { pattern.to_owned() };
    RegexBuilder::new(&anchored)
        .size_limit(MAX_REGEX)
        .dfa_size_limit(MAX_REGEX)
        .nest_limit(64)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the regular expression {pattern:?} is too large when compiled")
            }
            other => format!("error parsing regexp: {}", other.to_string().replace('\n', " ")),
        })
}
