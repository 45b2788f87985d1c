//! The documentation's table of families is what the plugin declares. After a wanted change: `PICKET_BLESS=1 cargo test`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what fails here fails the test

use std::collections::BTreeMap;
use std::fmt::Write as _;

use picket_plugin_gpu::Gpu;
use picket_sdk::testing::Host;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/plugins/gpu.md");
const BEGIN: &str = "<!-- families -->\n";
const END: &str = "<!-- /families -->";

#[test]
fn the_page_has_every_family() {
    let families = Host::<Gpu>::new().families();
    let of_gpu = "gpu,UUID,device,modelName,pci_bus_id,GPU_I_PROFILE,GPU_I_ID,Hostname,hostname";
    let mut table = String::from(
        "`DCGM_*` have the labels `gpu`, `UUID`, `device`, `modelName`, `pci_bus_id`, `GPU_I_PROFILE`, `GPU_I_ID`, `Hostname` and `hostname`.\n\n| family | type | labels | |\n| --- | --- | --- | --- |\n",
    );
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for family in &families {
        let labels = match family.label_names.join(",") {
            all if all == of_gpu => String::new(),
            _ => family.label_names.iter().map(|l| format!("`{l}`")).collect::<Vec<_>>().join(", "),
        };
        let kind = format!("{:?}", family.metric_type).to_lowercase();
        // One row for the families of all links.
        let (name, help) = match family.name.strip_suffix("_L0") {
            Some(name) => (format!("{name}_L0 … L17"), family.help.replace("link 0", "each link")),
            None if link(&family.name) => continue,
            None => (family.name.clone(), family.help.clone()),
        };
        rows.insert(name.clone(), format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    rows.values().for_each(|row| write!(table, "{row}").unwrap());
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("PICKET_BLESS").is_some() {
        std::fs::write(PAGE, &wanted).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    for (ours, theirs) in wanted.lines().zip(page.lines()) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(wanted.len(), page.len());
}

fn link(name: &str) -> bool {
    name.rsplit_once("_L").is_some_and(|(_, n)| n.parse::<u32>().is_ok())
}
