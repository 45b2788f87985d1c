//! The documentation's table of families is what the plugin declares. After a wanted change: `PICKET_BLESS=1 cargo test`.
#![cfg(not(target_arch = "wasm32"))]

use picket_plugin_logs::Logs;
use picket_sdk::testing::Host;

#[test]
fn the_page_has_every_family() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/logs.md");
    assert_eq!(Host::<Logs>::new().check_page(page), Ok(()));
}
