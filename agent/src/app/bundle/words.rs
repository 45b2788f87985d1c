//! Finds what is secret in a line of text by how it looks, and by the names that stand before it.

use base64::Engine as _;
use picket_agent_services::secrets::{REDACTED, names_a_secret};

/// How tokens begin, and how much must follow.
const SHAPES: [(&str, usize); 27] = [
    ("picket-enrol-v1.", 1),
    ("picket-api-v1.", 1),
    ("sk-", 16),
    ("sk_live_", 12),
    ("rk_live_", 12),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glpat-", 12),
    ("hf_", 16),
    ("nvapi-", 16),
    ("xoxb-", 12),
    ("xoxp-", 12),
    ("xoxa-", 12),
    ("xapp-", 12),
    ("AKIA", 12),
    ("ASIA", 12),
    ("AIza", 16),
    ("ya29.", 16),
    ("hvs.", 16),
    ("npm_", 16),
    ("pypi-", 16),
    ("dop_v1_", 16),
    ("AGE-SECRET-KEY-", 16),
];
/// From here on a form alone says nothing: a digit must be in it too.
const LONG: usize = 12;
/// So much of a word is looked at to know a token by its form, so much of a URL for a user in it: a line may be of anybody's making.
const LOOKED_AT: usize = 512;
/// Addresses whose path is the secret.
const WEBHOOKS: [(&str, &str); 3] = [
    ("hooks.slack.com", "/services/"),
    ("discord.com", "/api/webhooks/"),
    ("discordapp.com", "/api/webhooks/"),
];
/// Beside the names that stand for a secret everywhere: those that do in a URL's query.
const PARAMETERS: [&str; 8] =
    ["sig", "signature", "x-amz-signature", "code", "auth", "pass", "session", "sid"];
/// Their values may have blanks in them.
const TO_THE_END: [&str; 4] = ["passw", "passphrase", "authorization", "cookie"];
const NOTHING: [&str; 6] = ["true", "false", "null", "none", "\"\"", "''"];

/// What the line before said of this one.
#[derive(Debug, Default)]
pub struct Carry {
    /// It ended with the name of a secret: the value stands here.
    value_follows: bool,
}

/// Appends the line without its secrets; says how many it had.
pub fn clean_line(line: &str, carry: &mut Carry, out: &mut String) -> usize {
    let follows = std::mem::take(&mut carry.value_follows);
    if follows && !line.trim().is_empty() && !line.trim_start().starts_with(REDACTED) {
        out.push_str(REDACTED);
        if line.ends_with('\n') {
            out.push('\n');
        }
        return 1;
    }
    let (mut rest, mut redacted) = (line, 0);
    while !rest.is_empty() {
        let (before, from) = rest.split_at(rest.find(in_name).unwrap_or(rest.len()));
        let (name, after) = from.split_at(from.find(|c| !in_name(c)).unwrap_or(from.len()));
        out.push_str(before);
        if let Some(at) = token(name) {
            out.push_str(name.split_at(at).0);
            out.push_str(REDACTED);
            redacted += 1;
            rest = after.trim_start_matches(|c: char| in_name(c) || "+/=~".contains(c));
            continue;
        }
        out.push_str(name);
        let query = before.ends_with(['?', '&', ';']);
        match find(name, query, after) {
            Found::Value { kept, length } => {
                let (kept, value) = after.split_at(kept);
                out.push_str(kept);
                out.push_str(REDACTED);
                redacted += 1;
                rest = value.split_at(length).1;
            }
            Found::OnTheNextLine => {
                carry.value_follows = true;
                rest = after;
            }
            Found::Nothing => rest = after,
        }
    }
    redacted
}

/// Whether `name` says where a secret lies: `token_file = "/etc/token"`.
pub fn names_a_place(name: &str, value: &str) -> bool {
    let name = name.to_ascii_lowercase();
    value.starts_with('/') && ["file", "path", "dir", "folder"].iter().any(|end| name.ends_with(end))
}

const fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Where in the word a token begins, by its form.
fn token(word: &str) -> Option<usize> {
    let begins = |at: &usize| *at == 0 || word.as_bytes().get(at - 1).is_some_and(|b| b"._-".contains(b));
    let is_token = |at: &usize| {
        let rest = word.split_at(*at).1;
        let rest = rest.get(..LOOKED_AT).unwrap_or(rest);
        let known = SHAPES.iter().any(|(prefix, least)| {
            rest.strip_prefix(prefix).is_some_and(|more| {
                more.len() >= *least && (*least < LONG || more.bytes().any(|b| b.is_ascii_digit()))
            })
        });
        known || (rest.starts_with("eyJ") && rest.len() > 20 && rest.contains('.'))
    };
    // Within a word only where another part of it begins: there are few of these.
    (0..word.len()).filter(begins).find(is_token)
}

enum Found {
    Nothing,
    /// So much of what follows the name is kept, so much is secret.
    Value {
        kept: usize,
        length: usize,
    },
    OnTheNextLine,
}

/// What of the text after a name is secret.
fn find(name: &str, query: bool, after: &str) -> Found {
    if let Some(authority) = after.strip_prefix("://") {
        return user_info(authority).map_or(Found::Nothing, |length| Found::Value { kept: 3, length });
    }
    if let Some((_, path)) = WEBHOOKS.iter().find(|(host, _)| name.eq_ignore_ascii_case(host))
        && let Some(secret) = after.strip_prefix(path)
    {
        return value(path.len(), word(secret));
    }
    if let Some(found) = scheme(name, after) {
        return found;
    }
    let lower = name.to_ascii_lowercase();
    let of_query = query && PARAMETERS.contains(&lower.as_str());
    if !names_a_secret(name) && !of_query {
        return Found::Nothing;
    }
    if let Some(text) = separated(after) {
        let (quote, inner) = opening(text);
        let kept = after.len() - inner.len();
        let plain = inner.trim_end_matches(['\r', '\n']);
        if names_a_place(name, plain) {
            return Found::Nothing;
        }
        if quote.is_none() && ["", "|", "|-", ">", ">-"].contains(&plain.trim()) {
            return Found::OnTheNextLine;
        }
        let whole = TO_THE_END.iter().any(|part| lower.contains(part)) || plain.starts_with(['[', '{']);
        if quote.is_none() && whole {
            return value(kept, plain);
        }
        return value_to(kept, plain, one(plain, quote));
    }
    if name.starts_with('-') {
        let argument = after.trim_start_matches([' ', '\t']);
        let kept = after.len() - argument.len();
        if kept > 0 && !argument.starts_with('-') && !names_a_place(name, argument) {
            return value_to(kept, argument, run(argument));
        }
    }
    Found::Nothing
}

fn value(kept: usize, text: &str) -> Found {
    let says_nothing = NOTHING.iter().any(|word| text.eq_ignore_ascii_case(word));
    if text.is_empty() || text.starts_with(REDACTED) || says_nothing {
        return Found::Nothing;
    }
    Found::Value { kept, length: text.len() }
}

/// The value ends here, unless it turns out to be a name with a value of its own: `unknown key: password = "x"`.
fn value_to(kept: usize, text: &str, mut end: usize) -> Found {
    if matches!(value(kept, text.get(..end).unwrap_or(text)), Found::Nothing) {
        return Found::Nothing;
    }
    while let Some(next) = text.get(end..).and_then(separated) {
        let (quote, inner) = opening(next);
        let length = one(inner, quote);
        if length == 0 {
            break;
        }
        end = text.len() - inner.len() + length;
    }
    Found::Value { kept, length: end }
}

/// How long one value is.
fn one(text: &str, quote: Option<(usize, char)>) -> usize {
    quote.map_or_else(|| run(text), |quote| closing(text, quote))
}

/// `Bearer TOKEN`, and `Basic` with what a user and a password look like.
fn scheme(name: &str, after: &str) -> Option<Found> {
    let (bearer, basic) = (name.eq_ignore_ascii_case("bearer"), name.eq_ignore_ascii_case("basic"));
    let credentials = after.trim_start_matches([' ', '\t']);
    let kept = after.len() - credentials.len();
    if kept == 0 || !(bearer || basic) {
        return None;
    }
    let text = word(credentials);
    let is_pair = || {
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        decoded.is_ok_and(|bytes| bytes.contains(&b':'))
    };
    let is_secret = if bearer { text.len() >= 4 } else { is_pair() };
    is_secret.then(|| value_to(kept, credentials, text.len()))
}

/// How much of a URL after its `://` is a user's, in front of the last `@`.
fn user_info(authority: &str) -> Option<usize> {
    let ends = |(nth, (_, c)): &(usize, (usize, char))| *nth == LOOKED_AT || ends_url(*c);
    let end = authority.char_indices().enumerate().find(ends).map_or(authority.len(), |(_, (at, _))| at);
    let whole = authority.split_at(end).0;
    let plain = whole.split(['/', '?', '#']).next().unwrap_or_default();
    let at = match plain.rfind('@') {
        Some(at) => at,
        // A password may hold what ends a host's name.
        None if plain.contains(':') => whole.rfind('@')?,
        None => return None,
    };
    (at > 0 && !whole.starts_with(REDACTED)).then_some(at)
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || "\"'<>`".contains(c)
}

/// Up to a blank or a quote.
fn word(text: &str) -> &str {
    text.split(|c| ends_url(c) || c == '\\' || c == ',').next().unwrap_or_default()
}

/// What stands behind `=`, `:` and their like, if that follows a name at once.
fn separated(after: &str) -> Option<&str> {
    let text = after.trim_start_matches(['\\', '"', '\'', ']']).trim_start_matches([' ', '\t']);
    if text.starts_with("::") {
        return None;
    }
    let signs = ["=>", ":=", "=", ":", "%3D", "%3d"];
    let value = signs.iter().find_map(|sign| text.strip_prefix(sign)).or_else(|| {
        // Token("…"), as Rust shows it.
        text.strip_prefix('(').filter(|text| text.trim_start_matches('\\').starts_with(['"', '\'']))
    })?;
    Some(value.trim_start_matches('=').trim_start_matches([' ', '\t']))
}

/// The quote that a value begins with, with the backslashes before it, and the value.
fn opening(text: &str) -> (Option<(usize, char)>, &str) {
    let bare = text.trim_start_matches('\\');
    for quote in ['"', '\'', '`'] {
        if let Some(inner) = bare.strip_prefix(quote) {
            return (Some((text.len() - bare.len(), quote)), inner);
        }
    }
    (None, text)
}

/// Up to the quote that closes: the one with as many backslashes before it as the one that opened. Two in a row, or three, are of the
/// value.
fn closing(text: &str, (slashes, quote): (usize, char)) -> usize {
    let (mut before, mut chars) = (0, text.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => before += 1,
            c if c == quote && before == slashes => {
                if chars.next_if(|(_, next)| *next == quote).is_none() {
                    return at - before;
                }
                before = 0;
            }
            _ => before = 0,
        }
    }
    text.len()
}

/// Up to a blank that does not stand within quotes.
fn run(text: &str) -> usize {
    let mut within = None;
    for (at, c) in text.char_indices() {
        match (c, within) {
            ('"' | '\'', None) => within = Some(c),
            (c, Some(quote)) if c == quote => within = None,
            (c, None) if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.trim_end().len()
}
