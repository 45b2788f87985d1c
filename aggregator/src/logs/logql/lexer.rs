//! Splits a query into tokens, each with its place.

use super::ParseError;
use super::units;

#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    Identifier(String),
    /// Quotes taken off, escapes undone.
    String(String),
    Number(f64),
    /// Nanoseconds.
    Duration(f64),
    Bytes(f64),
    /// An operator or a bracket, as it is written.
    Sign(&'static str),
    End,
}

impl Token {
    /// What it is called in errors.
    pub fn name(&self) -> &str {
        match self {
            Self::Identifier(_) => "IDENTIFIER",
            Self::String(_) => "STRING",
            Self::Number(_) => "NUMBER",
            Self::Duration(_) => "DURATION",
            Self::Bytes(_) => "BYTES",
            Self::Sign(sign) => sign,
            Self::End => "$end",
        }
    }
}

/// A token and where it begins: line and column, from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Spanned {
    pub token: Token,
    pub line: usize,
    pub col: usize,
}

/// The longer ones first.
const SIGNS: [&str; 30] = [
    "|=", "|~", "|>", "!=", "!~", "!>", "=~", "==", ">=", "<=", "{", "}", "(", ")", "[", "]", ",", "=", "|",
    ">", "<", "+", "-", "*", "/", "%", "^", ".", ":", "@",
];

/// Splits it all; the last token is [`Token::End`].
pub fn lex(text: &str) -> Result<Vec<Spanned>, ParseError> {
    let mut lexer = Lexer { rest: text, line: 1, col: 1 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let (line, col) = (lexer.line, lexer.col);
        let token = lexer.next()?;
        let end = token == Token::End;
        tokens.push(Spanned { token, line, col });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    col: usize,
}

impl<'a> Lexer<'a> {
    fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError::At { line: self.line, col: self.col, message: message.into() }
    }

    /// Steps over `length` bytes and gives them.
    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.rest = rest;
        for c in taken.chars() {
            if c == '\n' {
                self.line += 1;
                self.col = 1;
            } else {
                self.col += 1;
            }
        }
        taken
    }

    fn skip_space(&mut self) {
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            self.take(space);
            if !self.rest.starts_with('#') {
                return;
            }
            let comment = self.rest.find('\n').unwrap_or(self.rest.len());
            self.take(comment);
        }
    }

    fn next(&mut self) -> Result<Token, ParseError> {
        let Some(first) = self.rest.chars().next() else { return Ok(Token::End) };
        if first == '_' || first.is_ascii_alphabetic() {
            let other = |c: char| !(c == '_' || c.is_ascii_alphanumeric());
            let end = self.rest.find(other).unwrap_or(self.rest.len());
            return Ok(Token::Identifier(self.take(end).to_owned()));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        match first {
            '"' => return self.quoted(),
            '`' => return self.raw(),
            _ => {}
        }
        match SIGNS.iter().find(|sign| self.rest.starts_with(**sign)) {
            Some(sign) => {
                self.take(sign.len());
                Ok(Token::Sign(sign))
            }
            None => Err(self.error(format!("syntax error: unexpected character {first:?}"))),
        }
    }

    fn number(&mut self) -> Result<Token, ParseError> {
        let word = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | 'µ' | 'μ'));
        let mut end = self.rest.find(word).unwrap_or(self.rest.len());
        let mut text = self.rest.get(..end).unwrap_or_default();
        // 1e-3: the sign belongs to it.
        if text.ends_with(['e', 'E'])
            && let Some(after) = self.rest.get(end + 1..)
            && self.rest.get(end..).is_some_and(|rest| rest.starts_with(['+', '-']))
        {
            let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            end += 1 + digits;
            text = self.rest.get(..end).unwrap_or_default();
        }
        let token = if let Ok(number) = text.parse::<f64>() {
            Token::Number(number)
        } else if let Some(ns) = units::duration_ns(text) {
            Token::Duration(ns)
        } else if let Some(bytes) = units::bytes(text) {
            Token::Bytes(bytes)
        } else {
            return Err(self.error(format!("syntax error: {text:?} is no number, duration or size")));
        };
        self.take(end);
        Ok(token)
    }

    fn raw(&mut self) -> Result<Token, ParseError> {
        let body = self.rest.get(1..).unwrap_or_default();
        let Some(end) = body.find('`') else { return Err(self.error("literal not terminated")) };
        let text = body.get(..end).unwrap_or_default().to_owned();
        self.take(end + 2);
        Ok(Token::String(text))
    }

    fn quoted(&mut self) -> Result<Token, ParseError> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        loop {
            let Some((at, c)) = chars.next() else { return Err(self.error("literal not terminated")) };
            match c {
                '"' => {
                    self.take(at + 1);
                    return Ok(Token::String(text));
                }
                '\n' => return Err(self.error("literal not terminated")),
                '\\' => {
                    let Some(escaped) = escape(&mut chars) else {
                        return Err(self.error("invalid char escape"));
                    };
                    text.push(escaped);
                }
                c => text.push(c),
            }
        }
    }
}

/// What follows a backslash, as Go writes it.
fn escape(chars: &mut impl Iterator<Item = (usize, char)>) -> Option<char> {
    let (_, c) = chars.next()?;
    let digits = match c {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'a' => return Some('\u{7}'),
        'b' => return Some('\u{8}'),
        'f' => return Some('\u{c}'),
        'v' => return Some('\u{b}'),
        '\\' | '"' | '\'' | '`' => return Some(c),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let mut code = 0u32;
    for _ in 0..digits {
        code = code.checked_mul(16)?.checked_add(chars.next()?.1.to_digit(16)?)?;
    }
    char::from_u32(code)
}
