//! Reads Prometheus text, strictly enough to notice what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// The labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// A parsed exposition.
#[derive(Debug, Default)]
pub struct Exposition {
    /// The declared type of each family.
    pub types: BTreeMap<String, String>,
    samples: BTreeMap<String, Vec<(Labels, f64)>>,
}

impl Exposition {
    /// Errors name the line: a series that stands twice, a second `TYPE`, anything that is no exposition.
    pub fn parse(text: &str) -> Result<Self> {
        let mut this = Self::default();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| format!("bad TYPE: {line}"))?;
                let before = this.types.insert(name.to_owned(), kind.to_owned());
                ensure!(before.is_none(), "a second TYPE: {line}");
            } else if !line.starts_with('#') {
                let (name, labels, value) = sample(line).with_context(|| format!("no sample: {line}"))?;
                ensure!(seen.insert((name.clone(), labels.clone())), "the series stands twice: {line}");
                this.samples.entry(name).or_default().push((labels, value));
            }
        }
        Ok(this)
    }

    /// All series of a name.
    pub fn series(&self, name: &str) -> &[(Labels, f64)] {
        self.samples.get(name).map_or(&[], Vec::as_slice)
    }

    /// The names of all samples.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.samples.keys().map(String::as_str)
    }

    /// The value of the one series of that name that has at least these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let matching: Vec<f64> = self
            .series(name)
            .iter()
            .filter(|(have, _)| labels.iter().all(|(n, v)| have.get(*n).is_some_and(|have| have == v)))
            .map(|(_, value)| *value)
            .collect();
        match matching.as_slice() {
            [value] => Ok(*value),
            [] => bail!("no series {name}{labels:?}"),
            more => bail!("{} series {name}{labels:?}", more.len()),
        }
    }

    /// The sum over the series of that name that have at least these labels; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name)
            .iter()
            .filter(|(have, _)| labels.iter().all(|(n, v)| have.get(*n).is_some_and(|have| have == v)))
            .map(|(_, value)| value)
            .sum()
    }

    /// The values of the label `instance`.
    pub fn instances(&self) -> BTreeSet<&str> {
        let all = self.samples.values().flatten();
        all.filter_map(|(labels, _)| labels.get("instance").map(String::as_str)).collect()
    }
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.strip_prefix('}')?;
    }
    let mut words = rest.split_ascii_whitespace();
    let value = match words.next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        word => word.parse().ok()?,
    };
    (!name.is_empty()).then(|| (name.to_owned(), labels, value))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c => c,
            }),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Exposition;

    #[test]
    fn reads_what_prometheus_writes() {
        let text = "# HELP a b\n# TYPE a counter\na{x=\"1\\n\\\"\\\\\",y=\"z,}\"} 1.5 1700000000000\na{} 2\nb +Inf\n";
        let e = Exposition::parse(text).unwrap();
        assert_eq!(e.types["a"], "counter");
        assert_eq!(e.value("a", &[("x", "1\n\"\\"), ("y", "z,}")]).unwrap(), 1.5);
        assert_eq!(e.value("b", &[]).unwrap(), f64::INFINITY);
        assert!(e.value("a", &[]).is_err());
        assert_eq!(e.sum("a", &[]), 3.5);
        for bad in ["a{x=\"1\"} 1\na{x=\"1\"} 2", "# TYPE a gauge\n# TYPE a gauge", "a{x=1} 2", "{} 1", "a b"]
        {
            assert!(Exposition::parse(bad).is_err(), "{bad}");
        }
    }
}
