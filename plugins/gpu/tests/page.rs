//! The documentation's table of families is what the plugin declares. After a wanted change: `PICKET_BLESS=1 cargo test`.
#![cfg(not(target_arch = "wasm32"))]

use std::collections::BTreeMap;

use picket_plugin_gpu::Gpu;
use picket_sdk::testing::Host;
use picket_sdk::testing::page::{HEAD, check_table, labels, row};

#[test]
fn the_page_has_every_family() {
    let of_gpu = "`gpu`, `UUID`, `device`, `modelName`, `pci_bus_id`, `GPU_I_PROFILE`, `GPU_I_ID`, `Hostname`, `hostname`";
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for family in Host::<Gpu>::new().families() {
        let labels = Some(labels(&family)).filter(|all| all != of_gpu).unwrap_or_default();
        // One row for the families of all links.
        let (name, help) = match family.name.strip_suffix("_L0") {
            Some(name) => (format!("{name}_L0 … L17"), family.help.replace("link 0", "each link")),
            None if link(&family.name) => continue,
            None => (family.name.clone(), family.help.clone()),
        };
        rows.insert(name.clone(), row(&family, &name, &labels, &help));
    }
    let rows: String = rows.into_values().collect();
    let table = format!(
        "`DCGM_*` have the labels `gpu`, `UUID`, `device`, `modelName`, `pci_bus_id`, `GPU_I_PROFILE`, `GPU_I_ID`, `Hostname` and `hostname`.\n\n{HEAD}{rows}"
    );
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/gpu.md");
    assert_eq!(check_table(page, &table), Ok(()));
}

fn link(name: &str) -> bool {
    name.rsplit_once("_L").is_some_and(|(_, n)| n.parse::<u32>().is_ok())
}
