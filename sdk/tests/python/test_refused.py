"""Of the SDK for Python: the component's bindings are made up here, for they are made with a plugin."""

import sys
import types
import unittest
from pathlib import Path
from unittest import mock


class Err(Exception):
    def __init__(self, value):
        self.value = value


def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(content)
    return sys.modules[name]


module("wit_world")
module("wit_world.imports")
module("wit_world.imports.log")
sink = module("wit_world.imports.sink", SeriesDefinition=mock.MagicMock(), Point=lambda number, value: (number, value))
made = {name: mock.MagicMock() for name in ["Family", "Label", "Part_Value", "MetricType_Gauge"]}
module("wit_world.imports.types", **made)
module("componentize_py_types", Err=Err)
module("wit_world.exports", source=types.SimpleNamespace(SourceError=lambda *told: told, Description=list))
sys.path.insert(0, str(Path(__file__).parents[2] / "python"))

import picket  # noqa: E402


class Warmth(picket.Plugin):
    room = ""

    def describe(self, d):
        self.warmth = d.gauge("warmth", "How warm it is.", labels=["room"])

    def collect(self):
        self.warmth.set(20.0 if self.room == "kitchen" else 5.0, room=self.room)


class Refused(unittest.TestCase):
    def test_what_the_host_refused_is_not_pushed_by_the_next_collect(self):
        source = picket.export(Warmth)()
        source.describe()
        pushed = []
        sink.push, sink.retire = pushed.extend, mock.MagicMock()
        Warmth.room = "cellar"
        sink.register = mock.MagicMock(side_effect=Err("too many"))
        with self.assertRaises(Err) as refused:
            source.collect()
        self.assertEqual(refused.exception.value[0], "refused")
        Warmth.room = "kitchen"
        sink.register = lambda definitions: list(range(len(definitions)))
        source.collect()
        self.assertEqual(pushed, [(0, 20.0)])


if __name__ == "__main__":
    unittest.main()
