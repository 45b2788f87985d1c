//! The operator's book: every page has its place in it, every link leads to a heading that is there, and its references say what
//! the code says.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use super::files::{Files, links};

const SUMMARY: &str = "docs/SUMMARY.md";
const METRICS: &str = "docs/reference/metrics.md";
const ROUTES: &str = "docs/reference/http.md";
const CONFIGURATION: &str = "docs/configuration.md";
/// They hold every key; a plugin's own settings and grants, which follow, are on the plugin's page.
const SHIPPED: &[(&str, &str)] = &[("config/agent.toml", "[plugins."), ("config/aggregator.toml", "[[")];
/// Beginnings and middles of names, which are no metrics.
const NO_METRICS: &[&str] = &["picket_source_errors"];

pub fn check(files: &Files, findings: &mut Findings) {
    check_summary(files, findings);
    check_anchors(files, findings);
    check_metrics(files, findings);
    check_routes(files, findings);
    check_keys(files, findings);
}

/// Each page once.
fn check_summary(files: &Files, findings: &mut Findings) {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for link in links(files.text(SUMMARY)) {
        *places.entry(format!("docs/{link}")).or_default() += 1;
    }
    for (page, _) in files.ending(".md").filter(|(page, _)| page.starts_with("docs/") && *page != SUMMARY) {
        match places.get(page).copied().unwrap_or_default() {
            0 => findings.error(format!("{page} is not in the book: give it a line in {SUMMARY}")),
            1 => {}
            count => findings.error(format!("{SUMMARY} has {page} {count} times")),
        }
    }
}

/// What stands behind the `#` of a link is a heading of the page.
fn check_anchors(files: &Files, findings: &mut Findings) {
    let pages: BTreeMap<&str, &str> = files.ending(".md").collect();
    for (page, text) in &pages {
        for link in links(text).into_iter().filter(|link| !link.contains("://")) {
            let Some((path, anchor)) = link.split_once('#') else { continue };
            let target = if path.is_empty() { (*page).to_owned() } else { beside(page, path) };
            let known = pages.get(target.as_str()).map(|text| anchors(text));
            if known.is_some_and(|known| !known.contains(anchor)) {
                findings.error(format!("{page}: the link to {link} leads to no heading of {target}"));
            }
        }
    }
}

/// A path as it is written on a page, from the root.
fn beside(page: &str, path: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The headings, as they are named in addresses: small letters, digits, `-` for a space, `_` and `-`; the second of a name gets a
/// number.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = BTreeSet::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let name: String = heading
            .trim()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        let before = found.entry(name.clone()).or_default();
        names.insert(if *before == 0 { name } else { format!("{name}-{before}") });
        *before += 1;
    }
    names
}

fn check_metrics(files: &Files, findings: &mut Findings) {
    let mut used = BTreeSet::new();
    for (name, text) in files.ending(".rs") {
        let of_a_daemon = name.starts_with("agent/") || name.starts_with("aggregator/src/");
        if !of_a_daemon || !name.contains("src/") || name.contains("test") {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        used.extend(code.split('"').filter(|word| is_metric(word)).map(str::to_owned));
    }
    let page = table(files.text(METRICS));
    let told: BTreeSet<String> = page.iter().filter_map(|row| row.first().cloned()).collect();
    for name in used.difference(&told) {
        findings.error(format!("{METRICS} lacks {name}: give it a row"));
    }
    for name in told.difference(&used) {
        findings.error(format!("{METRICS}: there is no {name} in the code any more"));
    }
}

/// `picket_`, then small letters, digits and single underscores.
fn is_metric(word: &str) -> bool {
    word.strip_prefix("picket_").is_some_and(|rest| {
        rest.contains('_')
            && !rest.ends_with('_')
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    }) && !NO_METRICS.contains(&word)
}

fn check_routes(files: &Files, findings: &mut Findings) {
    let mut served = BTreeSet::new();
    for (_, text) in files.ending(".rs").filter(|(name, _)| name.starts_with("aggregator/src/http/")) {
        served.extend(aggregator_routes(text));
    }
    served.extend(agent_routes(files.text("agent/src/http/mod.rs")));
    let told: BTreeSet<String> = table(files.text(ROUTES)).iter().map(|row| row.join(" ")).collect();
    for route in served.difference(&told) {
        findings.error(format!("{ROUTES} lacks {route}: give it a row"));
    }
    for route in told.difference(&served) {
        findings.error(format!("{ROUTES}: no such route is served: {route}"));
    }
}

/// A key that a shipped file has, commented out or not, is on the page of the configuration.
fn check_keys(files: &Files, findings: &mut Findings) {
    let told = told_keys(files.text(CONFIGURATION));
    for (file, end) in SHIPPED {
        for key in keys(files.text(file), end).difference(&told) {
            findings.error(format!("{CONFIGURATION} lacks the key {key} of {file}: give it a row"));
        }
    }
}

/// The names before ` = `, up to a line that begins with `end`.
fn keys(text: &str, end: &str) -> BTreeSet<String> {
    let lines = text.lines().take_while(|line| !line.trim_start_matches("# ").starts_with(end));
    let names =
        lines.filter_map(|line| line.trim_start_matches("# ").split_once(" = ")).map(|(name, _)| name);
    let is_key = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty();
    names.filter(is_key).map(str::to_owned).collect()
}

/// The last parts of what stands in code on the page: `max_size` of `logs.spool.max_size`.
fn told_keys(text: &str) -> BTreeSet<String> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|word| word.split([' ', '=']).next()?.rsplit('.').next()).map(str::to_owned).collect()
}

/// `.add(Role, Method::GET, "/path", …)` as `GET /path role`.
fn aggregator_routes(text: &str) -> Vec<String> {
    let entry = |rest: &str| {
        let (role, rest) = rest.split_once(", Method::")?;
        let (method, rest) = rest.split_once(", \"")?;
        let (path, _) = rest.split_once('"')?;
        Some(format!("{method} {path} {}", role.trim().to_lowercase()))
    };
    let calls = text.split(".add(").skip(1);
    calls
        .filter(|rest| ["Viewer,", "Operator,", "Admin,"].iter().any(|role| rest.starts_with(role)))
        .filter_map(entry)
        .collect()
}

/// `.route("/path", get(…).put(…))` as `GET /path` and `PUT /path`.
fn agent_routes(text: &str) -> Vec<String> {
    let mut routes = Vec::new();
    for call in text.lines().filter_map(|line| line.trim_start().strip_prefix(".route(\"")) {
        let Some((path, handlers)) = call.split_once('"') else { continue };
        for method in ["get", "put", "post", "delete"] {
            let has = handlers.match_indices(&format!("{method}(")).any(|(at, _)| {
                handlers
                    .as_bytes()
                    .get(at.wrapping_sub(1))
                    .is_some_and(|before| matches!(before, b' ' | b'.'))
            });
            if has {
                routes.push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    routes
}

/// The rows whose first column is code, without the marks of code, as far as their columns are single words.
fn table(text: &str) -> Vec<Vec<String>> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let columns =
            line.trim_matches('|').split('|').map(|column| column.trim().trim_matches('`').to_owned());
        columns.take_while(|column| !column.is_empty() && !column.contains(' ')).collect()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_as_addresses() {
        let text = "# The agent's `x`, and Y\n## Twice\n```\n# no heading\n```\n## Twice\n#no\n### a_b-c";
        let want = ["a_b-c", "the-agents-x-and-y", "twice", "twice-1"];
        assert_eq!(anchors(text), want.map(str::to_owned).into());
    }

    #[test]
    fn paths_beside_a_page() {
        assert_eq!(beside("docs/plugins/node.md", "../api.md"), "docs/api.md");
        assert_eq!(beside("README.md", "docs/api.md"), "docs/api.md");
        assert_eq!(beside("docs/a.md", "./b/../c.md"), "docs/c.md");
    }

    #[test]
    fn names_of_metrics() {
        for (word, metric) in [
            ("picket_node_up", true),
            ("picket_plugin_", false),
            ("picket_source_errors", false),
            ("picket_agent", false),
            ("picket_node_up{", false),
            ("xpicket_node_up", false),
        ] {
            assert_eq!(is_metric(word), metric, "{word}");
        }
    }

    #[test]
    fn routes_of_both() {
        let text = "let api = routes\n.add(Viewer, Method::GET, \"/api/v1/x/{id}\", x)\n.add(Admin, Method::POST, \"/y\", y);\nset.add(1)";
        assert_eq!(aggregator_routes(text), ["GET /api/v1/x/{id} viewer", "POST /y admin"]);
        let text = "  .route(\"/s\", get(scenario).put(set_scenario))\n .route(\"/t\", get(target))";
        assert_eq!(agent_routes(text), ["GET /s", "PUT /s", "GET /t"]);
    }

    #[test]
    fn keys_of_a_file_and_of_the_page() {
        let text = "a = 1\n# Words = no\n# b_c = \"x\"\n[s]\nd = [\n]\n# [plugins.x]\ne = 1";
        assert_eq!(keys(text, "[plugins."), ["a", "b_c", "d"].map(str::to_owned).into());
        let page = "| `a` | `s.b_c`, `.d` | no `e = 1` |";
        assert_eq!(told_keys(page), ["a", "b_c", "d", "e"].map(str::to_owned).into());
    }

    #[test]
    fn rows_of_a_table() {
        let text =
            "| name | |\n| --- | --- |\n| `GET` | `/x` | viewer |\n| `picket_x_y` | gauge | What it is. |\n";
        assert_eq!(table(text), [vec!["GET", "/x", "viewer"], vec!["picket_x_y", "gauge"]]);
    }
}
