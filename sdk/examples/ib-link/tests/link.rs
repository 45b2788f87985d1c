use ib_link::IbLink;
use picket_sdk::testing::Host;

const PORT: &str = "/sys/class/infiniband/mlx5_0/ports/1";

fn host() -> Host<IbLink> {
    let mut host = Host::new();
    host.file(&format!("{PORT}/state"), "4: ACTIVE\n")
        .file(&format!("{PORT}/rate"), "200 Gb/sec (4X HDR)\n")
        .file(&format!("{PORT}/link_layer"), "InfiniBand\n")
        .file(&format!("{PORT}/lid"), "0x1a\n")
        .file(&format!("{PORT}/sm_lid"), "0x1\n")
        .file("/sys/class/infiniband/mlx5_0/device/current_link_width", "8\n")
        .file("/sys/class/infiniband/mlx5_0/device/max_link_width", "16\n")
        .file("/sys/class/infiniband/mlx5_0/device/current_link_speed", "16.0 GT/s PCIe\n");
    host
}

fn of(host: &Host<IbLink>, name: &str) -> Option<f64> {
    host.value(name, &[("device", "mlx5_0"), ("port", "1")])
}

#[test]
fn a_link_and_its_slot() {
    let mut host = host();
    host.collect().unwrap();
    assert_eq!(of(&host, "ib_link_lanes"), Some(4.0));
    assert_eq!(of(&host, "ib_link_lane_bits_per_second"), Some(50e9));
    assert_eq!(of(&host, "ib_link_degraded"), Some(0.0));
    assert_eq!(of(&host, "ib_link_lid"), Some(26.0));
    assert_eq!(host.value("ib_link_pcie_lanes", &[("device", "mlx5_0")]), Some(8.0));
    assert_eq!(host.value("ib_link_pcie_lanes_max", &[("device", "mlx5_0")]), Some(16.0));
    assert_eq!(host.value("ib_link_pcie_transfers_per_second_max", &[("device", "mlx5_0")]), None);
}

#[test]
fn a_slower_link_is_told_once_and_after_a_restart_too() {
    let mut host = host();
    host.collect().unwrap();
    host.file(&format!("{PORT}/rate"), "50 Gb/sec (1X HDR)\n");
    for _ in 0..2 {
        host.collect().unwrap();
        assert_eq!(of(&host, "ib_link_degraded"), Some(1.0));
    }
    assert_eq!(host.take_events().len(), 1);
    // What was best is known to a new instance.
    let mut host = host.restarted();
    host.collect().unwrap();
    assert_eq!(of(&host, "ib_link_degraded"), Some(1.0));
    host.file(&format!("{PORT}/rate"), "200 Gb/sec (4X HDR)\n");
    host.collect().unwrap();
    let events = host.take_events();
    assert_eq!(events.iter().map(|e| e.view().clear).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_is_not_there() {
    let mut host = host();
    // A link that is down has no rate.
    host.file(&format!("{PORT}/state"), "1: DOWN\n");
    host.collect().unwrap();
    assert_eq!(of(&host, "ib_link_lanes"), None);
    host.file(&format!("{PORT}/state"), "4: ACTIVE\n").file(&format!("{PORT}/rate"), "fast\n");
    host.collect().unwrap();
    assert_eq!(host.failures()[0].0, "parse");
    // A node without adapters.
    let mut none = Host::<IbLink>::new();
    none.collect().unwrap();
    assert!(none.samples().is_empty());
}
