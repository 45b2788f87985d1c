//! A series selector as PromQL writes it, the part that needs no evaluation: `name{label="value",other!="value"}`.

use super::text::Parsed;

/// One selector. A series matches when the name (if given) and all label conditions do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    name: Option<String>,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    label: String,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("the selector {0:?} is empty; write name, {{label=\"value\"}}, or both")]
    Empty(String),
    #[error("the selector {0:?} uses a regular expression; here only = and != are understood")]
    Regex(String),
    #[error(
        "the selector {text:?} can't be read at {at:?}; the form is name{{label=\"value\",other!=\"value\"}}"
    )]
    Syntax { text: String, at: String },
}

impl Selector {
    /// A selector for one metric name (as exposed, or a family's).
    pub fn name(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), conditions: Vec::new() }
    }

    /// Adds the condition `label="value"`.
    pub fn and(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.conditions.push(Condition { label: label.into(), equal: true, value: value.into() });
        self
    }

    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let syntax =
            |at: &str| SelectorError::Syntax { text: text.to_owned(), at: at.chars().take(40).collect() };
        let trimmed = text.trim();
        let (name, body) = match trimmed.split_once('{') {
            None => (trimmed, None),
            Some((name, rest)) => (name.trim(), Some(rest.strip_suffix('}').ok_or_else(|| syntax(rest))?)),
        };
        if !name.is_empty() {
            picket_proto::model::check_metric_name(name).map_err(|_| syntax(name))?;
        }
        let mut selector = Self { name: (!name.is_empty()).then(|| name.to_owned()), conditions: Vec::new() };
        let mut rest = body.unwrap_or_default().trim();
        while !rest.is_empty() {
            let end = rest.find(['=', '!']).ok_or_else(|| syntax(rest))?;
            let (label, after) = rest.split_at_checked(end).ok_or_else(|| syntax(rest))?;
            if after.starts_with("=~") || after.starts_with("!~") {
                return Err(SelectorError::Regex(text.to_owned()));
            }
            let (equal, after) = match (after.strip_prefix("!="), after.strip_prefix('=')) {
                (Some(after), _) => (false, after),
                (None, Some(after)) => (true, after),
                (None, None) => return Err(syntax(after)),
            };
            let quoted = after.trim_start();
            let inner = quoted.strip_prefix('"').ok_or_else(|| syntax(quoted))?;
            let (value, after) = unquote(inner).ok_or_else(|| syntax(quoted))?;
            let label = label.trim();
            if label == "__name__" && equal {
                selector.name = Some(value);
            } else {
                selector.conditions.push(Condition { label: label.to_owned(), equal, value });
            }
            rest = after.trim_start();
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
            } else if !rest.is_empty() {
                return Err(syntax(rest));
            }
        }
        if selector == Self::default() {
            return Err(SelectorError::Empty(text.to_owned()));
        }
        Ok(selector)
    }

    /// Whether a series of this family can match at all: spares the rest of the family.
    pub(crate) fn may_match_family(&self, family: &str) -> bool {
        self.name.as_deref().is_none_or(|name| {
            name == family
                || name.strip_prefix(family).is_some_and(|rest| matches!(rest, "_bucket" | "_sum" | "_count"))
        })
    }

    /// Whether the node can have a match at all.
    pub(crate) fn may_match_node(&self, node: &str) -> bool {
        self.conditions.iter().all(|c| c.label != super::text::INSTANCE || (c.value == node) == c.equal)
    }

    pub(crate) fn matches(&self, family: &str, series: &Parsed<'_>) -> bool {
        self.name.as_deref().is_none_or(|name| name == series.name || name == family)
            && self.conditions.iter().all(|c| (series.label(&c.label).unwrap_or("") == c.value) == c.equal)
    }
}

/// The text up to the closing quote with its escapes undone, and what follows the quote.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(match chars.next()? {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

/// Whether any of them matches; an empty list matches all.
pub(crate) fn any(selectors: &[Selector], family: &str, series: &Parsed<'_>) -> bool {
    selectors.is_empty() || selectors.iter().any(|s| s.matches(family, series))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::text::parse;

    #[test]
    fn selectors() {
        let series = parse(r#"h_bucket{instance="n1",le="+Inf",path="a\"b"}"#).unwrap();
        let check = |text: &str, want: bool| {
            assert_eq!(Selector::parse(text).unwrap().matches("h", &series), want, "{text}");
        };
        check("h", true);
        check("h_bucket", true);
        check("h_sum", false);
        check(r#"{instance="n1"}"#, true);
        check(r#"h{instance="n2"}"#, false);
        check(r#"h{ instance = "n1" , le!="1", }"#, true);
        check(r#"h{path="a\"b"}"#, true);
        check(r#"h{absent=""}"#, true);
        check(r#"{__name__="h_bucket"}"#, true);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", "{}", "a-b", "a{", "a{b}", "a{b=c}", "a{b=\"c}", "a{b=\"c\"d}"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
        assert!(matches!(Selector::parse("a{b=~\"c\"}"), Err(SelectorError::Regex(_))));
    }
}
