//! Failures of a plugin, counted by reason. Reasons become a label's values, so there are few of them.

use std::collections::BTreeMap;

/// Distinct reasons of one instance; what comes after counts as `other`.
const MAX_REASONS: usize = 32;
const MAX_REASON_BYTES: usize = 40;
const MAX_MESSAGE_BYTES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Reason, then the first message since the last hand-over and how many there were.
    by_reason: BTreeMap<String, (String, u64)>,
}

impl Failures {
    pub(super) fn add(&mut self, reason: &str, message: &str) {
        if let Some((first, count)) = self.by_reason.get_mut(reason) {
            if *count == 0 {
                *first = cut(message);
            }
            *count += 1;
        } else {
            self.by_reason.insert(reason.to_owned(), (cut(message), 1));
        }
    }

    pub(super) fn add_from_guest(&mut self, reason: &str, message: &str) {
        let word = !reason.is_empty()
            && reason.len() <= MAX_REASON_BYTES
            && reason
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        let room = self.by_reason.len() < MAX_REASONS || self.by_reason.contains_key(reason);
        self.add(if word && room { reason } else { "other" }, message);
    }

    /// Once a reason. The reasons stay known, so that there are never more of them.
    pub(super) fn hand_over(&mut self, mut take: impl FnMut(&str, &str)) {
        for (reason, (message, count)) in &mut self.by_reason {
            match *count {
                0 => continue,
                1 => take(reason, message),
                n => take(reason, &format!("{message} ({n} times)")),
            }
            *count = 0;
            message.clear();
        }
    }
}

fn cut(message: &str) -> String {
    let end = message.floor_char_boundary(MAX_MESSAGE_BYTES);
    message.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_reasons_and_short_messages() {
        let mut failures = Failures::default();
        for i in 0..1000 {
            failures.add_from_guest(&format!("r{i}"), &"x\n".repeat(10_000));
        }
        failures.add_from_guest("Not a Word", "");
        let mut seen = Vec::new();
        failures.hand_over(|reason, message| {
            assert!(message.len() < 2 * MAX_MESSAGE_BYTES && !message.contains('\n'));
            seen.push(reason.to_owned());
        });
        assert!(seen.len() <= MAX_REASONS + 1, "{seen:?}");
        assert!(seen.contains(&"other".to_owned()));
        failures.hand_over(|reason, _| panic!("{reason} again"));
    }
}
