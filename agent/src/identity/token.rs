//! The enrolment token: where the aggregator is, which node this will be or which names it may take, which certificate authority to
//! expect there, and a secret that the aggregator accepts once.
//!
//! Text form: `picket-enrol-v1.` and base64url (no padding) of a small JSON object. No error here repeats the token's
//! text: it holds a secret, and errors end up in logs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use picket_proto::model::{InvalidName, NodePattern};

use super::{Address, AddressError};

const PREFIX: &str = "picket-enrol-v1.";
/// A token is a few hundred bytes; anything longer is something else.
const MAX_LENGTH: usize = 16 * 1024;
const MAX_ADDRESSES: usize = 16;

/// A parsed token.
pub struct Token {
    /// Where the aggregator is, in the order to try.
    pub aggregators: Vec<Address>,
    /// The node that this token makes, or the names that one may take.
    pub nodes: NodePattern,
    /// SHA-256 of the aggregator's CA certificate (DER).
    pub pin: [u8; 32],
    /// What the aggregator knows the token by.
    pub secret: String,
}

/// Why a text is no enrolment token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "the enrolment token is empty: make one with `picket token create --node NAME` and pass all of it"
    )]
    Empty,
    #[error(
        "this is no enrolment token (one begins with \"picket-enrol-v1.\"): make one with `picket token create --node NAME`"
    )]
    NotAToken,
    #[error(
        "this is an API token or a token of another version, not an enrolment token of version 1: make one with `picket token create --node NAME`, with a CLI of this agent's version"
    )]
    OtherKind,
    #[error(
        "the enrolment token is {length} bytes long, {MAX_LENGTH} are the most: something was pasted along"
    )]
    TooLong { length: usize },
    #[error(
        "the enrolment token is damaged, its text is not base64url: was a part of it cut off or wrapped? ({what})"
    )]
    Base64 { what: String },
    #[error("the enrolment token is damaged, its content is not what a token holds (at byte {at})")]
    Content { at: usize },
    #[error("the enrolment token names no aggregator, or more than {MAX_ADDRESSES}: make a new one")]
    NoAddress,
    #[error("the enrolment token's aggregator: {0}")]
    Address(#[from] AddressError),
    #[error("the enrolment token's node: {0}")]
    Node(#[from] InvalidName),
    #[error("the enrolment token's pin is not 64 hexadecimal digits: it is damaged, make a new one")]
    Pin,
    #[error("the enrolment token holds no secret: it is damaged, make a new one")]
    NoSecret,
}

#[derive(serde::Deserialize)]
struct Content {
    a: Vec<String>,
    n: String,
    p: String,
    s: String,
}

impl std::str::FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(TokenError::TooLong { length: text.len() });
        }
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with("picket-") {
                TokenError::OtherKind
            } else {
                TokenError::NotAToken
            });
        };
        let json = URL_SAFE_NO_PAD
            .decode(body.trim_end_matches('='))
            .map_err(|e| TokenError::Base64 { what: base64_fault(&e) })?;
        let content: Content =
            serde_json::from_slice(&json).map_err(|e| TokenError::Content { at: e.column() })?;

        if content.a.is_empty() || content.a.len() > MAX_ADDRESSES {
            return Err(TokenError::NoAddress);
        }
        let aggregators = content.a.iter().map(|a| a.parse()).collect::<Result<Vec<Address>, _>>()?;
        let nodes = NodePattern::new(&content.n)?;
        let pin = hex32(&content.p).ok_or(TokenError::Pin)?;
        if content.s.is_empty() {
            return Err(TokenError::NoSecret);
        }
        Ok(Self { aggregators, nodes, pin, secret: content.s })
    }
}

/// Where the text is wrong, without the byte that is there.
fn base64_fault(error: &base64::DecodeError) -> String {
    match error {
        base64::DecodeError::InvalidByte(at, _) => format!("byte {at}"),
        base64::DecodeError::InvalidLength(length) => {
            format!("{length} characters are no whole number of bytes")
        }
        base64::DecodeError::InvalidLastSymbol(at, _) => format!("its end, byte {at}"),
        base64::DecodeError::InvalidPadding => "its padding".to_owned(),
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("aggregators", &self.aggregators)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(json: &str) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    #[test]
    fn good() {
        let pin = "0aB1".repeat(16);
        let text =
            token(&format!(r#"{{"a":["agg.example:9470","[::1]:1"],"n":"gpu-01","p":"{pin}","s":"hush"}}"#));
        for text in [text.clone(), format!("  {text}\n"), format!("{text}==")] {
            let t: Token = text.parse().unwrap();
            assert_eq!(t.nodes.as_str(), "gpu-01");
            assert_eq!(t.aggregators.len(), 2);
            assert_eq!(t.pin[..2], [0x0a, 0xb1]);
            assert_eq!(t.secret, "hush");
            assert!(!format!("{t:?}").contains("hush"));
        }
    }

    #[test]
    fn garbage_is_told_apart_and_never_repeated() {
        let pin = "00".repeat(32);
        let full = |a: &str, n: &str, p: &str, s: &str| {
            token(&format!(r#"{{"a":{a},"n":"{n}","p":"{p}","s":"{s}"}}"#))
        };
        let cases: Vec<(String, &str)> = vec![
            (String::new(), "empty"),
            ("hello".into(), "no enrolment token"),
            ("picket-api-v1.abc".into(), "API token"),
            (format!("{PREFIX}§§"), "base64url"),
            (format!("{PREFIX}a"), "base64url"),
            ("x".repeat(MAX_LENGTH + 1), "bytes long"),
            (token("{"), "damaged"),
            (token(r#"{"a":[],"n":"x"}"#), "damaged"),
            (token(r#"{"a":"SECRET","n":1}"#), "damaged"),
            (full("[]", "n", &pin, "s"), "names no aggregator"),
            (full(r#"["nowhere"]"#, "n", &pin, "s"), "no port"),
            (full(r#"["h:1"]"#, "", &pin, "s"), "node"),
            (full(r#"["h:1"]"#, "a/b", &pin, "s"), "node"),
            (full(r#"["h:1"]"#, "n", "abcd", "s"), "64 hexadecimal"),
            (full(r#"["h:1"]"#, "n", &"zz".repeat(32), "s"), "64 hexadecimal"),
            (full(r#"["h:1"]"#, "n", &pin, ""), "no secret"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Token>().map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("SECRET"), "{error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}", body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = text.parse::<Token>();
            let _ = format!("{PREFIX}{text}").parse::<Token>();
            let _ = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(body)).parse::<Token>();
        }
    }
}
