//! The documentation's table of families is what the plugin declares. After a wanted change: `PICKET_BLESS=1 cargo test`.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use picket_plugin_vllm::Vllm;
use picket_sdk::testing::Host;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/vllm.md");
const BEGIN: &str = "<!-- families -->\n";
const END: &str = "<!-- /families -->";

#[test]
fn the_page_has_every_family() {
    let mut families = Host::<Vllm>::new().families();
    families.sort_by(|a, b| a.name.cmp(&b.name));
    let mut table = String::from("| family | type | labels | |\n| --- | --- | --- | --- |\n");
    for family in &families {
        let labels: Vec<String> = family.label_names.iter().map(|l| format!("`{l}`")).collect();
        let kind = format!("{:?}", family.metric_type).to_lowercase();
        table.push_str(&format!(
            "| `{}` | {kind} | {} | {} |\n",
            family.name,
            labels.join(", "),
            family.help
        ));
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("PICKET_BLESS").is_some() {
        std::fs::write(PAGE, &wanted).unwrap();
    }
    assert_eq!(std::fs::read_to_string(PAGE).unwrap(), wanted);
}
