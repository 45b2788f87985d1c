import unittest

from componentize_py_types import Err
from picket_testing import Host
from plugin import FILE, OpenFiles


class Test(unittest.TestCase):
    def setUp(self):
        self.host = Host(OpenFiles)
        self.host.configure({"warn_above": 0.5})

    def test_counts_open_files(self):
        self.host.files[FILE] = "1100\t100\t10000\n"
        self.host.collect()
        self.assertEqual(self.host.value("{{snake}}_open_files"), 1000)
        self.assertEqual(self.host.value("{{snake}}_open_files_limit"), 10000)
        self.assertEqual(self.host.events, [])

    def test_says_when_they_are_many(self):
        self.host.files[FILE] = "9500 0 10000"
        self.host.collect()
        self.assertEqual(len(self.host.events), 1)

    def test_what_cannot_be_read_is_left_out(self):
        for content, reason in [(None, "not-found"), ("nonsense", "parse")]:
            if content is not None:
                self.host.files[FILE] = content
            with self.assertRaises(Err) as raised:
                self.host.collect()
            self.assertEqual(raised.exception.value.reason, reason)
            self.assertIsNone(self.host.value("{{snake}}_open_files"))


if __name__ == "__main__":
    unittest.main()
