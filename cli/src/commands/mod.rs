//! One module a command.

pub mod enroll;
pub mod events;
pub mod logs;
pub mod metrics;
pub mod nodes;
pub mod status;
pub mod tokens;

/// A path segment, so that a name with a slash stays one.
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn segments() {
        assert_eq!(super::segment("gpu-01.a_b"), "gpu-01.a_b");
        assert_eq!(super::segment("a/../b ä"), "a%2F..%2Fb%20%C3%A4");
    }
}
