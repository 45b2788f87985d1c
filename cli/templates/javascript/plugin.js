// How many files the node has open, and how many it may.

import { Failure, emit, plugin } from "./picket/picket.js";
import { readText } from "./picket/files.js";

const FILE = "/proc/sys/fs/file-nr";

class OpenFiles {
  warnAbove = 0.9;

  describe(d) {
    this.open = d.gauge("{{snake}}_open_files", "Files that are open on the node.");
    this.limit = d.gauge("{{snake}}_open_files_limit", "Files that may be open on the node.");
  }

  // As [config] in plugin.toml describes them.
  configure(settings) {
    this.warnAbove = settings.warn_above ?? 0.9;
  }

  collect() {
    const { open, limit } = parse(readText(FILE));
    this.open.set(open);
    this.limit.set(limit);
    if (limit > 0 && open / limit > this.warnAbove) {
      const message = `${open} of ${limit} files are open`;
      emit("{{name}}.many-open-files", message, { severity: "warning", key: "open-files" });
    }
  }
}

/** `allocated unused limit` */
function parse(text) {
  const numbers = text.trim().split(/\s+/).map(Number);
  if (numbers.length !== 3 || numbers.some(Number.isNaN)) {
    throw new Failure("parse", `${FILE} has not three numbers`);
  }
  const [allocated, unused, limit] = numbers;
  return { open: allocated - unused, limit };
}

// What the component exports.
export const source = plugin(new OpenFiles());
