//! One error, told twice: by the kernel's log and by NVML. Each telling is matched with one of the other source, of the
//! same GPU and code and about the same time; so an error counts once, and two errors count twice.

use std::collections::VecDeque;

/// How far apart the two tellings of one error may be. The kernel's clock drifts from the system's while it sleeps.
const APART: u64 = 10_000;
/// Tellings that wait for the other one.
const MANY: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Kernel,
    Nvml,
}

struct Told {
    source: Source,
    gpu: String,
    code: u32,
    at_ms: u64,
}

/// Tellings that were not matched yet.
#[derive(Default)]
pub struct Occurrences(VecDeque<Told>);

impl Occurrences {
    /// Whether it is news. If not, it was the other telling of one that was.
    pub fn is_new(&mut self, source: Source, gpu: &str, code: u32, at_ms: u64) -> bool {
        let same = self.0.iter().position(|told| {
            told.source != source
                && told.code == code
                && told.gpu == gpu
                && told.at_ms.abs_diff(at_ms) <= APART
        });
        if let Some(at) = same {
            self.0.remove(at);
            return false;
        }
        if self.0.len() >= MANY {
            self.0.pop_front();
        }
        self.0.push_back(Told { source, gpu: gpu.to_owned(), code, at_ms });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_telling_has_one_other() {
        use Source::{Kernel, Nvml};
        let mut o = Occurrences::default();
        for (source, gpu, code, at, new) in [
            (Kernel, "a", 79, 1000, true),
            (Nvml, "a", 79, 1200, false),
            // The same again is another one.
            (Nvml, "a", 79, 1300, true),
            (Kernel, "a", 79, 1290, false),
            (Kernel, "a", 79, 1400, true),
            (Kernel, "a", 79, 1500, true),
            (Nvml, "b", 79, 1500, true),
            (Nvml, "a", 13, 1500, true),
            // Too late to be the same.
            (Nvml, "a", 79, 1400 + APART + 200, true),
        ] {
            assert_eq!(o.is_new(source, gpu, code, at), new, "{source:?} {gpu} {code} {at}");
        }
    }

    proptest! {
        /// Errors told by both sources, in any order of arrival, count once each.
        #[test]
        fn what_both_tell_counts_once(errors in prop::collection::vec((0u8..3, 1u32..4), 0..40), seed: u64) {
            let mut tellings: Vec<(Source, u8, u32)> = errors
                .iter()
                .flat_map(|(gpu, code)| [(Source::Kernel, *gpu, *code), (Source::Nvml, *gpu, *code)])
                .collect();
            let mut state = seed;
            for at in (1..tellings.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                tellings.swap(at, usize::try_from(state >> 33).unwrap_or(0) % (at + 1));
            }
            let mut o = Occurrences::default();
            let new = tellings.iter().filter(|(source, gpu, code)| o.is_new(*source, &gpu.to_string(), *code, 5)).count();
            prop_assert_eq!(new, errors.len());
        }
    }
}
