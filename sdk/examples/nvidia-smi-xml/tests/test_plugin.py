import pathlib
import unittest

from componentize_py_types import Err
from picket_testing import Host
from plugin import NvidiaSmi

REPORT = pathlib.Path(__file__).with_name("report.xml").read_text()
FIRST, SECOND = (f"GPU-00000000-0000-0000-0000-00000000000{n}" for n in (1, 2))


class Test(unittest.TestCase):
    def setUp(self):
        self.host = Host(NvidiaSmi)
        self.host.configure({})

    def of(self, name, uuid, **labels):
        return self.host.value("nvidia_smi_" + name, uuid=uuid, **labels)

    def test_the_report(self):
        asked = []
        self.host.command = lambda name, slots: asked.append((name, slots)) or (0, REPORT)
        self.host.collect()
        self.assertEqual(asked, [("nvidia-smi", {})])
        for name, wanted in [
            ("temperature_celsius", 41), ("memory_used_bytes", 4 << 20), ("memory_total_bytes", 81559 << 20),
            ("power_draw_watts", 312.45), ("power_limit_watts", 700), ("utilization_ratio", 0.37),
            ("sm_clock_hertz", 1.98e9), ("pcie_lanes", 16), ("pcie_replays_total", 3), ("ecc_corrected_total", 7),
            ("ecc_uncorrected_total", 0), ("fan_speed_ratio", None),
        ]:
            self.assertEqual(self.of(name, FIRST), wanted, name)
        self.assertEqual(self.of("clocks_slowed", FIRST, reason="sw_power_cap"), 1)
        self.assertEqual(self.of("clocks_slowed", FIRST, reason="gpu_idle"), 0)
        self.assertEqual(self.host.failures, [])

    def test_an_older_driver_and_what_is_not_known(self):
        self.host.command = lambda name, slots: (0, REPORT)
        self.host.collect()
        self.assertEqual(self.of("power_draw_watts", SECOND), 25.1)
        self.assertEqual(self.of("fan_speed_ratio", SECOND), 0.3)
        self.assertEqual(self.of("clocks_slowed", SECOND, reason="gpu_idle"), 1)
        for name in ("temperature_celsius", "memory_used_bytes", "ecc_corrected_total"):
            self.assertIsNone(self.of(name, SECOND), name)

    def test_no_report(self):
        for answer, reason in [((9, "No devices were found"), "command"), ((0, "<broken"), "parse")]:
            self.host.command = lambda name, slots, answer=answer: answer
            with self.assertRaises(Err) as raised:
                self.host.collect()
            self.assertEqual(raised.exception.value.reason, reason)
        self.host.command = None
        with self.assertRaises(Err) as raised:
            self.host.collect()
        self.assertEqual(raised.exception.value.reason, "denied")


if __name__ == "__main__":
    unittest.main()
