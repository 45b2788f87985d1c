//! What of the metrics page goes to a stranger: Picket's own families, and of the others how many series they have. Values and labels
//! of the others tell of a site's users and jobs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

const OWN: &str = "picket_";

pub fn own(page: &str) -> String {
    let mut out = String::new();
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    for line in page.lines() {
        let sample =
            line.strip_prefix("# ").map_or(line, |about| about.split_once(' ').map_or("", |(_, name)| name));
        let name = sample.split(['{', ' ']).next().unwrap_or_default();
        if name.starts_with(OWN) {
            let _ = writeln!(out, "{line}");
        } else if !line.starts_with('#') && !name.is_empty() {
            *others.entry(name).or_default() += 1;
        }
    }
    for (name, series) in others {
        let _ = writeln!(out, "# {name}: {series} series, left out");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::own;

    #[test]
    fn others_are_counted() {
        let page = "# HELP picket_a b c\n# TYPE picket_a gauge\npicket_a{plugin=\"x\"} 1\n# HELP slurm_job of whom\n\
                    slurm_job{user=\"ada\"} 1\nslurm_job{user=\"bob\"} 1\nup 1\n\n# EOF\n";
        let expected = "# HELP picket_a b c\n# TYPE picket_a gauge\npicket_a{plugin=\"x\"} 1\n\
                        # slurm_job: 2 series, left out\n# up: 1 series, left out\n";
        assert_eq!(own(page), expected);
        assert_eq!(own(""), "");
    }
}
