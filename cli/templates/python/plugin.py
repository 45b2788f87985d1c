"""How many files the node has open, and how many it may."""

import picket
from picket import files

FILE = "/proc/sys/fs/file-nr"


class OpenFiles(picket.Plugin):
    def describe(self, d):
        self.open = d.gauge("{{snake}}_open_files", "Files that are open on the node.")
        self.limit = d.gauge("{{snake}}_open_files_limit", "Files that may be open on the node.")

    def configure(self, settings):
        # As [config] in plugin.toml describes them.
        self.warn_above = settings.get("warn_above", 0.9)

    def collect(self):
        allocated, unused, limit = parse(files.read_text(FILE))
        self.open.set(allocated - unused)
        self.limit.set(limit)
        if limit > 0 and (allocated - unused) / limit > self.warn_above:
            message = f"{allocated - unused:.0f} of {limit:.0f} files are open"
            picket.emit("{{name}}.many-open-files", message, severity="warning", key="open-files")


def parse(text):
    """`allocated unused limit`"""
    try:
        allocated, unused, limit = (float(word) for word in text.split())
    except ValueError:
        raise picket.Failure("parse", f"{FILE} has not three numbers") from None
    return allocated, unused, limit


# What the component exports.
Source = picket.export(OpenFiles)
