"""Write a Picket plugin in Python: one class, and `Source = picket.export(YourPlugin)`.

A plugin declares its families in `describe`, takes its settings in `configure`, and sets values in each `collect`. A series
that a collect does not set is retired at its end, as it would be gone from an exporter's page. What can't be read is
left unset, and `fail` says so: never export a made-up number.

The modules `files`, `http` and `command` below are there when plugin.toml has a `[[needs]]` for them.
"""

import json as _json

import wit_world.imports.log as _log
import wit_world.imports.sink as _sink
import wit_world.imports.types as _types
from componentize_py_types import Err as _Err
from wit_world.exports import source as _exported

try:
    import wit_world.imports.files as _files
except ImportError:
    _files = None
try:
    import wit_world.imports.http as _http
except ImportError:
    _http = None
try:
    import wit_world.imports.command as _command
except ImportError:
    _command = None

_CHUNK = 1024


class Failure(Exception):
    """Nothing more can be read: `reason` is a short word, counted in picket_source_errors_total."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


def fail(reason, message):
    """Something could not be read; the rest goes on."""
    _sink.fail(reason, str(message))


def log(message):
    """A line in the agent's log, of the level info."""
    _log.write(_log.Level_Info(), str(message))


def emit(kind, message, severity="info", key="", clear=False, subject=("node", ""), attributes=None):
    """An event; `subject` is what it is about, the node itself by default."""
    level = {"info": _types.Severity_Info, "warning": _types.Severity_Warning, "critical": _types.Severity_Critical}
    about = _types.Subject(subject[0], subject[1])
    more = [_types.Label(name, str(value)) for name, value in (attributes or {}).items()]
    _sink.emit([_types.Event(kind, level[severity](), about, message, more, key, clear, None)])


class Plugin:
    """What yours inherits from."""

    def describe(self, d):
        """Declare the families. Called once; must not depend on the settings."""

    def configure(self, settings):
        """The operator's settings, a dict. Called before the first collect. Raise to refuse them."""

    def collect(self):
        """One reading."""


class Family:
    """A metric family; set its values in `collect`, its labels by name: `family.set(1.0, room="a")`."""

    def __init__(self, number, names):
        self._number = number
        self._names = names
        self._series = {}
        self._points = {}

    def set(self, value, **labels):
        if len(labels) != len(self._names) or any(name not in labels for name in self._names):
            raise ValueError(f"the labels {list(self._names)} are wanted, not {list(labels)}")
        self._points[tuple(str(labels[name]) for name in self._names)] = float(value)

    def _register(self):
        new = [key for key in self._points if key not in self._series]
        if new:
            labels = [[_types.Label(n, v) for n, v in zip(self._names, key)] for key in new]
            part = _types.Part_Value()
            numbers = _sink.register([_sink.SeriesDefinition(self._number, part, l) for l in labels])
            self._series.update(zip(new, numbers))

    def _read(self):
        return [_sink.Point(self._series[key], value) for key, value in self._points.items()]

    def _gone(self, complete):
        if not complete:
            return []
        return [key for key in self._series if key not in self._points]


class Describe:
    """Declares families: name, help, then unit and the names of labels."""

    def __init__(self):
        self.families = []
        self._definitions = []

    def _add(self, kind, name, help, unit, labels):
        self._definitions.append(_types.Family(name, kind, unit, help, list(labels)))
        family = Family(len(self.families), tuple(labels))
        self.families.append(family)
        return family

    def gauge(self, name, help, unit="", labels=()):
        return self._add(_types.MetricType_Gauge(), name, help, unit, labels)

    def counter(self, name, help, unit="", labels=()):
        """A total that only grows; its name ends in `_total`."""
        return self._add(_types.MetricType_Counter(), name, help, unit, labels)

    def info(self, name, help, labels=()):
        """Its value is 1; its name ends in `_info`."""
        return self._add(_types.MetricType_Info(), name, help, "", labels)


def _source_error(error):
    reason = getattr(error, "reason", "exception")
    text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
    return _Err(_exported.SourceError(reason, text))


class _Runner:
    def __init__(self, plugin):
        self.plugin = plugin
        self.families = []

    def describe(self):
        d = Describe()
        self.plugin.describe(d)
        self.families = d.families
        return _exported.Description(d._definitions)

    def configure(self, settings):
        try:
            self.plugin.configure(_json.loads(settings))
        except Exception as error:
            raise _source_error(error) from None

    def collect(self):
        error = None
        for family in self.families:
            family._points = {}
        try:
            self.plugin.collect()
        except Exception as raised:
            error = raised
        # What was read before an error is kept.
        try:
            self._push(error is None)
        except _Err as refused:
            error = error or Failure("refused", str(refused.value))
        if error is not None:
            raise _source_error(error) from None

    def _push(self, complete):
        points, gone = [], []
        for family in self.families:
            family._register()
            gone.extend(family._series.pop(key) for key in family._gone(complete))
            points.extend(family._read())
        for start in range(0, len(points), _CHUNK):
            _sink.push(points[start:start + _CHUNK])
        if gone:
            _sink.retire(gone)


def export(plugin):
    """The class that the component's world wants, of a class of yours."""
    runner = _Runner(plugin())

    class Source:
        def describe(self):
            return runner.describe()

        def configure(self, settings):
            runner.configure(settings)

        def collect(self):
            runner.collect()

    return Source


def _word(error):
    """`not-found` of `FilesError_NotFound`."""
    name = type(error).__name__.split("_", 1)[-1]
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


def _within(call, *arguments):
    try:
        return call(*arguments)
    except _Err as error:
        raise Failure(_word(error.value), f"{error.value.value}") from None


class files:
    """Needs the capability `files`. Each raises `Failure`: `not-found`, `denied`, `timed-out` …"""

    @staticmethod
    def read(path):
        return _within(_files.read, path)

    @staticmethod
    def read_text(path):
        return files.read(path).decode("utf-8", "replace")

    @staticmethod
    def list(path):
        """The names in a directory."""
        return [entry.name for entry in _within(_files.list_directory, path)]


class http:
    """Needs the capability `http`."""

    @staticmethod
    def get(url, headers=None, timeout_ms=None, secret=None):
        """`(status, body)`. `secret`: the name of a granted one; the host adds its header, and nobody here sees it."""
        labels = [_types.Label(name, value) for name, value in (headers or {}).items()]
        answer = _within(_http.send, _http.Request("GET", url, labels, b"", timeout_ms, secret))
        return answer.status, answer.body


class command:
    """Needs the capability `command`: runs what the operator defined by this name, no shell."""

    @staticmethod
    def run(name, **slots):
        """`(exit status, standard output)`."""
        labels = [_types.Label(slot, str(value)) for slot, value in slots.items()]
        run = _within(_command.start, name, labels)
        output = bytearray()
        while chunk := _within(_command.read, run, 65536):
            output += chunk
        return _within(_command.end, run).status, bytes(output)
