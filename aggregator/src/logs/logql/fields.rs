//! What `| json` and `| logfmt` find in a line.

use serde_json::Value;

/// Labels taken out of one line; a line with more is cut short.
pub const MAX_FIELDS: usize = 128;

/// Tells the members of a JSON object, those of inner objects as `outer_inner`. Lists and nulls are left out.
pub fn json(line: &str, mut tell: impl FnMut(String, String)) -> Result<(), &'static str> {
    match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(members)) => {
            let mut left = MAX_FIELDS;
            members.iter().for_each(|(name, value)| member("", name, value, &mut left, &mut tell));
            Ok(())
        }
        Ok(_) => Err("the line is JSON, but no object"),
        Err(_) => Err("the line is no JSON"),
    }
}

fn member(outer: &str, name: &str, value: &Value, left: &mut usize, tell: &mut impl FnMut(String, String)) {
    if *left == 0 {
        return;
    }
    let mut path = outer.to_owned();
    if !path.is_empty() {
        path.push('_');
    }
    sanitize(name, &mut path);
    let text = match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| member(&path, name, value, left, tell));
            return;
        }
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(bool) => bool.to_string(),
        Value::Array(_) | Value::Null => return,
    };
    if !path.is_empty() {
        *left -= 1;
        tell(path, text);
    }
}

/// Tells the pairs of a logfmt line: `a=b c="d e"`. What is none is stepped over, as Loki does it without `--strict`.
pub fn logfmt(line: &str, mut tell: impl FnMut(String, String)) {
    let mut rest = line.trim_start();
    let mut left = MAX_FIELDS;
    while !rest.is_empty() && left > 0 {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let Some(value) = after.strip_prefix('=') else {
            rest = after.trim_start();
            continue;
        };
        let (text, after) = match value.strip_prefix('"') {
            Some(body) => match unquote(body) {
                Some(found) => found,
                None => return,
            },
            None => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                let (text, after) = value.split_at_checked(end).unwrap_or((value, ""));
                (text.to_owned(), after)
            }
        };
        let mut name = String::with_capacity(key.len());
        sanitize(key, &mut name);
        if !name.is_empty() && !text.is_empty() {
            left -= 1;
            tell(name, text);
        }
        rest = after.trim_start();
    }
}

/// The text up to the closing quote, and what follows.
fn unquote(body: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = body.chars();
    loop {
        match chars.next()? {
            '"' => return Some((text, chars.as_str())),
            '\\' => text.push(match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            c => text.push(c),
        }
    }
}

/// Appends a name with every character that a label name can't have as `_`.
fn sanitize(name: &str, out: &mut String) {
    let begin = out.is_empty();
    for (at, c) in name.trim().chars().enumerate() {
        match c {
            '_' | 'a'..='z' | 'A'..='Z' => out.push(c),
            '0'..='9' => {
                if begin && at == 0 {
                    out.push('_');
                }
                out.push(c);
            }
            _ => out.push('_'),
        }
    }
}
