//! Generic resources as Slurm writes them: `gpu:h100:8(S:0-1),shard:16`.

/// How many there are of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gres {
    /// `gpu:h100`, or `gpu` where there is no type.
    pub kind: String,
    pub count: u64,
}

impl Gres {
    /// Those that are written in `text`; what is not understood is left out.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for item in items(text) {
            let Some(one) = one(item) else { continue };
            match found.iter_mut().find(|g| g.kind == one.kind) {
                Some(known) => known.count = known.count.saturating_add(one.count),
                None => found.push(one),
            }
        }
        found
    }

    pub fn is_gpu(&self) -> bool {
        self.kind == "gpu" || self.kind.starts_with("gpu:")
    }
}

/// All GPUs among them, of whatever type.
pub fn gpus(list: &[Gres]) -> u64 {
    list.iter().filter(|g| g.is_gpu()).map(|g| g.count).sum()
}

/// Between commas, but not those in brackets: `gpu:2(IDX:0,3),nic:1` are two.
fn items(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0usize;
    text.split(move |c: char| {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}

fn one(item: &str) -> Option<Gres> {
    // A GPU whose type is not known is `gpu:(null):1`.
    let item = item.trim().replace(":(null)", "");
    // `(null)`, `N/A` and the like name nothing.
    let plain = item.split_once('(').map_or(item.as_str(), |(before, _)| before);
    let plain = plain.strip_prefix("gres:").or_else(|| plain.strip_prefix("gres/")).unwrap_or(plain);
    if plain.is_empty() || plain.eq_ignore_ascii_case("n/a") || plain.len() > 128 {
        return None;
    }
    // In a list of trackable resources it is `gpu:h100=8`.
    let (kind, count) = match plain.rsplit_once(['=', ':']) {
        Some((kind, last)) => match number(last) {
            Some(count) => (kind, count),
            None => (plain, 1),
        },
        None => (plain, 1),
    };
    let kind = kind.strip_suffix(":no_consume").unwrap_or(kind);
    Some(Gres { kind: kind.to_owned(), count })
}

/// `8`, `2K`, `1000G`.
fn number(text: &str) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back()? {
        (at, c) if c.is_ascii_alphabetic() => (text.get(..at)?, c),
        _ => (text, ' '),
    };
    let factor: u64 = match unit {
        ' ' => 1,
        'K' | 'k' => 1 << 10,
        'M' | 'm' => 1 << 20,
        'G' | 'g' => 1 << 30,
        'T' | 't' => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, u64)> {
        Gres::parse(text).into_iter().map(|g| (g.kind, g.count)).collect()
    }

    #[test]
    fn as_slurm_writes_them() {
        for (text, wanted) in [
            ("gpu:h100:8", vec![("gpu:h100", 8)]),
            ("gpu:8", vec![("gpu", 8)]),
            ("gpu:h100:8(S:0-1)", vec![("gpu:h100", 8)]),
            ("gpu:h100:2(IDX:0-1)", vec![("gpu:h100", 2)]),
            ("gpu:h100:3(IDX:0,2-3),shard:0(IDX:N/A)", vec![("gpu:h100", 3), ("shard", 0)]),
            ("gpu:a100:4(S:0),gpu:h100:4(S:1)", vec![("gpu:a100", 4), ("gpu:h100", 4)]),
            ("gpu:h100:0(IDX:N/A)", vec![("gpu:h100", 0)]),
            ("gpu:(null):1(IDX:0)", vec![("gpu", 1)]),
            ("gres:gpu:3", vec![("gpu", 3)]),
            ("gres/gpu:8", vec![("gpu", 8)]),
            ("gres/gpu=16", vec![("gpu", 16)]),
            ("gpu", vec![("gpu", 1)]),
            ("tmpdisk:2K", vec![("tmpdisk", 2048)]),
            ("gpu:1,gpu:2", vec![("gpu", 3)]),
            ("(null)", vec![]),
            ("N/A", vec![]),
            ("", vec![]),
        ] {
            let wanted: Vec<(String, u64)> = wanted.into_iter().map(|(k, n)| (k.to_owned(), n)).collect();
            assert_eq!(parsed(text), wanted, "{text}");
        }
        assert_eq!(gpus(&Gres::parse("gpu:a100:4,gpu:2,gpux:7,shard:9")), 6);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}") {
            let _ = gpus(&Gres::parse(&text));
        }

        #[test]
        fn what_is_written_is_read(parts in proptest::collection::vec(("[a-z]{2,6}", "[a-z][a-z0-9]{0,4}", 0u64..10_000), 1..5)) {
            let text: Vec<String> = parts.iter().map(|(n, t, c)| format!("{n}:{t}:{c}(IDX:0,2)")).collect();
            let sum: u64 = parts.iter().map(|(_, _, c)| c).sum();
            let read: u64 = Gres::parse(&text.join(",")).iter().map(|g| g.count).sum();
            proptest::prop_assert_eq!(read, sum);
        }
    }
}
