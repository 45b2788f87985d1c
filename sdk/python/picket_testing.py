"""A host for tests, without WebAssembly: `host = Host(YourPlugin)`, fakes in its fields, then `host.collect()`.

`picket plugin test` puts the bindings on the path that this needs; by hand: `PYTHONPATH=target/picket/bindings python3 -m unittest`.
"""

import componentize_py_types as _component
from wit_world.imports import log as _log
from wit_world.imports import sink as _sink

import picket


class Host:
    def __init__(self, plugin):
        # Path to bytes or text; what is not here is not found.
        self.files = {}
        # Called with the request; gives (status, body).
        self.http = None
        # Called with the name and the slots; gives (exit status, output).
        self.command = None
        self.failures, self.events, self.lines = [], [], []
        self._series, self._values, self._runs, self._next = {}, {}, {}, 0
        self._runner = picket._Runner(plugin())
        self._connect()
        self.families = self._runner.describe().families

    def configure(self, settings):
        import json
        self._connect()
        self._runner.configure(json.dumps(settings))

    def collect(self):
        """One reading; raises what the plugin raised. `value` tells what was set in it."""
        self._connect()
        self._values = {}
        self.failures = []
        self._runner.collect()

    def value(self, name, **labels):
        return self._values.get((name, tuple(sorted(labels.items()))))

    def values(self):
        return dict(self._values)

    def _connect(self):
        _sink.register, _sink.push, _sink.retire = self._register, self._push, self._retire
        _sink.fail = lambda reason, message: self.failures.append((reason, message))
        _sink.emit = self.events.extend
        _log.write = lambda level, message: self.lines.append(message)
        if picket._files:
            picket._files.read = self._read
            picket._files.list_directory = self._list
        if picket._http:
            picket._http.send = self._send
        if picket._command:
            picket._command.start = self._start
            picket._command.read = lambda run, most: self._runs[run][1].pop(0) if self._runs[run][1] else b""
            picket._command.end = lambda run: picket._command.Outcome(self._runs.pop(run)[0], "")

    def _register(self, definitions):
        numbers = []
        for d in definitions:
            labels = tuple(sorted((l.name, l.value) for l in d.labels))
            self._next += 1
            self._series[self._next] = (self.families[d.family].name, labels)
            numbers.append(self._next)
        return numbers

    def _push(self, points):
        for point in points:
            series = self._series[point.series]
            assert series not in self._values, f"{series} was pushed twice in one collect"
            self._values[series] = point.value

    def _retire(self, numbers):
        for number in numbers:
            del self._series[number]

    def _read(self, path):
        if path not in self.files:
            raise _component.Err(picket._files.FilesError_NotFound(path))
        content = self.files[path]
        return content.encode() if isinstance(content, str) else content

    def _list(self, path):
        inside = path.rstrip("/") + "/"
        names = sorted({f[len(inside):].split("/")[0] for f in self.files if f.startswith(inside)})
        if not names:
            raise _component.Err(picket._files.FilesError_NotFound(path))
        return [picket._files.Entry(name, picket._files.EntryKind_File()) for name in names]

    def _send(self, request):
        if self.http is None:
            raise _component.Err(picket._http.HttpError_Unreachable(request.url))
        status, body = self.http(request)
        return picket._http.Response(status, [], body.encode() if isinstance(body, str) else body)

    def _start(self, name, slots):
        if self.command is None:
            raise _component.Err(picket._command.CommandError_Denied(name))
        status, output = self.command(name, {slot.name: slot.value for slot in slots})
        self._next += 1
        self._runs[self._next] = (status, [output.encode() if isinstance(output, str) else output])
        return self._next
