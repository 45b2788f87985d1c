//! A plugin's page in the documentation has the families that the plugin declares, in a table between two marks.

use std::path::Path;

use super::{DeclaredFamily, Host};
use crate::Source;

const BEGIN: &str = "<!-- families -->\n";
const END: &str = "<!-- /families -->";

impl<P: Source> Host<P> {
    /// Compares the table on the plugin's page with its families, a row each. With `PICKET_BLESS` in the environment the page is
    /// written instead.
    ///
    /// # Errors
    /// Where they differ, or why that can't be told.
    pub fn check_page(&self, page: impl AsRef<Path>) -> Result<(), String> {
        let mut families = self.families();
        families.sort_by(|a, b| a.name.cmp(&b.name));
        let rows: String = families.iter().map(|f| row(f, &f.name, &labels(f), &f.help)).collect();
        check_table(page, &format!("{HEAD}{rows}"))
    }
}

/// The head of such a table.
pub const HEAD: &str = "| family | type | labels | |\n| --- | --- | --- | --- |\n";

/// The names of a family's labels, as a row has them.
pub fn labels(family: &DeclaredFamily) -> String {
    family.label_names.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", ")
}

/// One row.
pub fn row(family: &DeclaredFamily, name: &str, labels: &str, help: &str) -> String {
    let kind = format!("{:?}", family.metric_type).to_lowercase();
    format!("| `{name}` | {kind} | {labels} | {help} |\n")
}

/// As [`Host::check_page`], with a table of the plugin's own form.
///
/// # Errors
/// Where they differ, or why that can't be told.
pub fn check_table(page: impl AsRef<Path>, table: &str) -> Result<(), String> {
    let page = page.as_ref();
    let shown = page.display();
    let text = std::fs::read_to_string(page).map_err(|e| format!("{shown}: {e}"))?;
    let split = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?)));
    let Some((before, (found, after))) = split else {
        return Err(format!("{shown} has no place for the table: {BEGIN}{END}"));
    };
    if found == table {
        return Ok(());
    }
    if std::env::var_os("PICKET_BLESS").is_some() {
        return std::fs::write(page, format!("{before}{BEGIN}{table}{END}{after}"))
            .map_err(|e| format!("{shown}: {e}"));
    }
    let first = table.lines().zip(found.lines()).find(|(ours, theirs)| ours != theirs);
    let (ours, theirs) = first.unwrap_or(("another number of rows", ""));
    Err(format!(
        "{shown} does not have the plugin's families; PICKET_BLESS=1 cargo test writes them\n the plugin: {ours}\n the page:   {theirs}"
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // what fails here fails the test
mod tests {
    use super::*;

    #[test]
    fn a_page_is_held_to_its_table() {
        let path = std::env::temp_dir().join(format!("picket-page-{}.md", std::process::id()));
        assert!(check_table(&path, "| a |\n").unwrap_err().contains("page-"));
        std::fs::write(&path, "no marks").unwrap();
        assert!(check_table(&path, "| a |\n").unwrap_err().contains("no place"));
        std::fs::write(&path, format!("before\n{BEGIN}| a |\n{END}\nafter\n")).unwrap();
        assert_eq!(check_table(&path, "| a |\n"), Ok(()));
        assert!(check_table(&path, "| b |\n").unwrap_err().contains("the plugin: | b |"));
        assert!(check_table(&path, "| a |\n| b |\n").unwrap_err().contains("number of rows"));
        std::fs::remove_file(&path).unwrap();
    }
}
