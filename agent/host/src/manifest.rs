//! `plugin.toml` as the agent reads it: with scopes that its capabilities know.

use picket_agent_services::grants::Need;
pub use picket_artifact::SECTION;

/// A plugin's own word of itself.
pub type Manifest = picket_artifact::Manifest<Need>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scopes_are_known_ones() {
        const GOOD: &str = "manifest = 1\nid = 'a'\nversion = '1'\nworld = 'w'\nlicense = 'l'\ndescription = 'd'\n[[needs]]\ncapability = 'files'\nread = ['/proc/stat']\nwhy = 'so'\n";
        assert_eq!(Manifest::parse(GOOD.as_bytes()).unwrap().needs.len(), 1);
        for (from, to) in [("files", "fillets"), ("read = ", "reed = "), ("why = 'so'", "")] {
            let error = Manifest::parse(GOOD.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
            let word = to.split(' ').next().unwrap_or_default();
            assert!(error.contains(if word.is_empty() { "why" } else { word }), "{to}: {error}");
        }
    }
}
