//! One device's JSON object, written as it is read: a value that can be had is a member, one that can't is named in
//! `unreadable` with the reason.

use std::fmt::{Display, Write};

use crate::code::Code;

/// This many calls in a row that say so, and the device is taken for lost: the rest is not asked.
const LOST_AFTER: u32 = 3;

/// Members of an object, without its braces.
#[derive(Clone, Default)]
pub struct Sheet {
    json: String,
    /// Members of `unreadable`, without its braces.
    unreadable: String,
    /// Something failed that may succeed the next time.
    failed: bool,
    losses: u32,
    lost: Option<Code>,
}

impl Sheet {
    pub fn number(&mut self, name: &str, value: Result<impl Display, Code>) {
        if let Some(value) = self.take(name, value) {
            self.member(name, format_args!("{value}"));
        }
    }

    pub fn text(&mut self, name: &str, value: Result<impl AsRef<str>, Code>) {
        if let Some(value) = self.take(name, value) {
            let quoted = quoted(value.as_ref());
            self.member(name, format_args!("{quoted}"));
        }
    }

    /// A ratio or a rate; what is no number is unreadable.
    pub fn float(&mut self, name: &str, value: Result<f64, Code>) {
        let value = value.and_then(|v| if v.is_finite() && v >= 0.0 { Ok(v) } else { Err(Code::UNEXPECTED) });
        self.number(name, value);
    }

    /// Two values of one call.
    pub fn numbers<T: Display, U: Display>(&mut self, names: (&str, &str), value: Result<(T, U), Code>) {
        if let Some((first, second)) = self.group(&[names.0, names.1], value) {
            self.number(names.0, Ok(first));
            self.number(names.1, Ok(second));
        }
    }

    /// What one call gives for several members.
    pub fn group<T>(&mut self, names: &[&str], value: Result<T, Code>) -> Option<T> {
        let (first, rest) = names.split_first()?;
        if let Err(code) = &value {
            for name in rest {
                self.note(name, *code);
            }
        }
        self.take(first, value)
    }

    /// A list or an object that is written already.
    pub fn raw(&mut self, name: &str, json: &str) {
        self.member(name, format_args!("{json}"));
    }

    /// A value that can't be read, without counting the call again.
    pub fn note(&mut self, name: &str, code: Code) {
        self.failed |= !code.is_lack();
        let comma = if self.unreadable.is_empty() { "" } else { "," };
        let _ = write!(self.unreadable, "{comma}{}:{}", quoted(name), quoted(&code.word()));
    }

    /// The value of a call that succeeded; a failure is noted.
    pub fn take<T>(&mut self, name: &str, value: Result<T, Code>) -> Option<T> {
        match value {
            Ok(value) => {
                self.losses = 0;
                Some(value)
            }
            Err(code) => {
                self.losses = if code.is_loss() { self.losses.saturating_add(1) } else { 0 };
                if self.losses >= LOST_AFTER {
                    self.lost = Some(code);
                }
                self.note(name, code);
                None
            }
        }
    }

    pub fn lost(&self) -> Option<Code> {
        self.lost
    }

    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Adds the members of another one.
    pub fn append(&mut self, other: &Self) {
        for (mine, its) in [(&mut self.json, &other.json), (&mut self.unreadable, &other.unreadable)] {
            if !mine.is_empty() && !its.is_empty() {
                mine.push(',');
            }
            mine.push_str(its);
        }
    }

    /// The members, `unreadable` among them.
    pub fn members(mut self) -> String {
        let unreadable = format!("{{{}}}", std::mem::take(&mut self.unreadable));
        self.raw("unreadable", &unreadable);
        self.json
    }

    /// Only what can be had, for an object inside the device's own.
    pub fn object(self) -> String {
        format!("{{{}}}", self.json)
    }

    /// What can't be had of an inner object, under its place in the device.
    pub fn notes_of(&mut self, place: &str, inner: &[(String, Code)]) {
        for (name, code) in inner {
            self.note(&format!("{place}.{name}"), *code);
        }
    }

    fn member(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        let comma = if self.json.is_empty() { "" } else { "," };
        let _ = write!(self.json, "{comma}\"{name}\":{value}");
    }
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_there() {
        let mut sheet = Sheet::default();
        sheet.number("a", Ok(1));
        sheet.text("b", Ok("x\"\u{1}"));
        sheet.number("c", Err::<u32, _>(Code::NOT_SUPPORTED));
        assert!(!sheet.failed());
        sheet.numbers(("d", "e"), Err::<(u32, u32), _>(Code::UNKNOWN));
        sheet.float("f", Ok(f64::NAN));
        sheet.float("g", Ok(0.25));
        assert!(sheet.failed());
        let mut whole = Sheet::default();
        whole.number("z", Ok(9));
        whole.append(&sheet);
        let value: serde_json::Value = serde_json::from_str(&format!("{{{}}}", whole.members())).unwrap();
        let expected = serde_json::json!({
            "z": 9, "a": 1, "b": "x\"\u{1}", "g": 0.25,
            "unreadable": {"c": "not-supported", "d": "unknown", "e": "unknown", "f": "unexpected-value"},
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn one_call_that_says_lost_is_an_error_three_are_a_loss() {
        let mut sheet = Sheet::default();
        let lost = || Err::<u32, _>(Code::GPU_IS_LOST);
        sheet.number("a", lost());
        sheet.number("b", lost());
        sheet.number("c", Ok(1));
        sheet.number("d", lost());
        sheet.number("e", lost());
        assert_eq!(sheet.lost(), None);
        sheet.number("f", lost());
        assert_eq!(sheet.lost(), Some(Code::GPU_IS_LOST));
    }
}
