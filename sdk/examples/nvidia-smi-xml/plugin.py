"""The GPUs as `nvidia-smi -q -x` tells them: a value that the tool gives as `N/A` is left out."""

import xml.etree.ElementTree as xml

import picket
from picket import command

# Family, help, where the report has it (the first that is there counts), and what one of its units is.
GAUGES = [
    ("temperature_celsius", "Temperature of the GPU.", ["temperature/gpu_temp"], 1),
    ("memory_temperature_celsius", "Temperature of the memory.", ["temperature/memory_temp"], 1),
    ("utilization_ratio", "Share of the last period in which a kernel ran.", ["utilization/gpu_util"], 0.01),
    ("memory_used_bytes", "Memory that is used.", ["fb_memory_usage/used"], 1 << 20),
    ("memory_total_bytes", "Memory in all.", ["fb_memory_usage/total"], 1 << 20),
    (
        "power_draw_watts",
        "Power that is drawn.",
        # Named anew with each generation of the driver.
        ["gpu_power_readings/instant_power_draw", "gpu_power_readings/power_draw", "power_readings/power_draw"],
        1,
    ),
    (
        "power_limit_watts",
        "Power that may be drawn.",
        ["gpu_power_readings/current_power_limit", "power_readings/enforced_power_limit", "power_readings/power_limit"],
        1,
    ),
    ("fan_speed_ratio", "Speed of the fan, of its highest.", ["fan_speed"], 0.01),
    ("sm_clock_hertz", "Clock of the multiprocessors.", ["clocks/sm_clock"], 1e6),
    ("pcie_generation", "Generation of PCIe that the link runs at.", ["pci/pci_gpu_link_info/pcie_gen/current_link_gen"], 1),
    ("pcie_lanes", "Lanes that the link runs with.", ["pci/pci_gpu_link_info/link_widths/current_link_width"], 1),
]
COUNTERS = [
    ("ecc_uncorrected_total", "Uncorrected errors of the memory since the card was made.",
     ["ecc_errors/aggregate/dram_uncorrectable"]),
    ("ecc_corrected_total", "Corrected errors of the memory since the card was made.",
     ["ecc_errors/aggregate/dram_correctable"]),
    ("pcie_replays_total", "Repetitions on the PCIe link.", ["pci/replay_counter"]),
]
# Older drivers say `clocks_throttle_reasons`, and so in the names below it.
REASONS = ["clocks_event_reasons", "clocks_throttle_reasons"]


class NvidiaSmi(picket.Plugin):
    def describe(self, d):
        name = "nvidia_smi_"
        self.info = d.info(name + "gpu_info", "What the GPU is.", ["uuid", "name", "serial", "vbios", "driver"])
        self.gauges = [(d.gauge(name + n, h, labels=["uuid"]), paths, unit) for n, h, paths, unit in GAUGES]
        self.counters = [(d.counter(name + n, h, labels=["uuid"]), paths) for n, h, paths in COUNTERS]
        self.slowed = d.gauge(name + "clocks_slowed", "Whether the clocks are held down for this reason.",
                              labels=["uuid", "reason"])

    def collect(self):
        status, output = command.run("nvidia-smi")
        try:
            report = xml.fromstring(output)
        except xml.ParseError as error:
            raise picket.Failure("parse" if status == 0 else "command",
                                 f"nvidia-smi ended with {status} and gave no report: {error}") from None
        driver = text(report, "driver_version") or ""
        for gpu in report.iter("gpu"):
            uuid = text(gpu, "uuid")
            if uuid is None:
                picket.fail("parse", f"the GPU {gpu.get('id')} has no UUID")
                continue
            self.read(gpu, uuid, driver)

    def read(self, gpu, uuid, driver):
        about = {"name": "product_name", "serial": "serial", "vbios": "vbios_version"}
        self.info.set(1, uuid=uuid, driver=driver, **{label: text(gpu, path) or "" for label, path in about.items()})
        for family, paths, unit in self.gauges:
            value = number(gpu, paths)
            if value is not None:
                family.set(value * unit, uuid=uuid)
        for family, paths in self.counters:
            value = number(gpu, paths)
            if value is not None:
                family.set(value, uuid=uuid)
        for group in REASONS:
            for reason in gpu.findall(f"{group}/*"):
                said = (reason.text or "").strip()
                if said in ("Active", "Not Active"):
                    word = reason.tag.removeprefix(group.removesuffix("s") + "_")
                    self.slowed.set(said == "Active", uuid=uuid, reason=word)


def text(element, path):
    found = element.findtext(path)
    found = found.strip() if found else ""
    return None if found in ("", "N/A", "[N/A]", "Unknown Error", "[Unknown Error]") else found


def number(gpu, paths):
    """`123.45` of `123.45 W`, from the first path that has one."""
    for path in paths:
        said = text(gpu, path)
        if said is not None:
            try:
                return float(said.split()[0].rstrip("x"))
            except ValueError:
                picket.fail("parse", f"{path} is {said[:40]!r}")
    return None


Source = picket.export(NvidiaSmi)
