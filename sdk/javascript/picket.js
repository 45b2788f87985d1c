// Write a Picket plugin in JavaScript: a class, and `export const source = plugin(new YourPlugin())`.
//
// A plugin declares its families in `describe`, takes its settings in `configure`, and sets values in each `collect`. A
// series that a collect does not set is retired at its end, as it would be gone from an exporter's page. What can't be read
// is left unset, and `fail` says so: never export a made-up number.
//
// Beside this file: files.js, http.js and command.js, for plugins whose plugin.toml has a [[needs]] for that capability.

import * as logs from "picket:host/log@0.1.0";
import * as sink from "picket:source/sink@0.2.0";

const CHUNK = 1024;

/** Nothing more can be read: `reason` is a short word, counted in picket_source_errors_total. */
export class Failure extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

/** Something could not be read; the rest goes on. */
export function fail(reason, message) {
  sink.fail(reason, String(message));
}

/** A line in the agent's log, of the level info. */
export function log(message) {
  logs.write({ tag: "info" }, String(message));
}

/** An event; without `subject` it is about the node itself. */
export function emit(kind, message, { severity = "info", key = "", clear = false, subject, attributes = {} } = {}) {
  const more = Object.entries(attributes).map(([name, value]) => ({ name, value: String(value) }));
  const about = subject ?? { kind: "node", id: "" };
  sink.emit([
    { kind, severity: { tag: severity }, subject: about, message, attributes: more, key, clear, timestamp: null },
  ]);
}

class Family {
  constructor(number, names) {
    this.number = number;
    this.names = names;
    this.series = new Map();
    this.points = new Map();
  }

  /** In `collect`; labels by name: `family.set(1, { room: "a" })`. */
  set(value, labels = {}) {
    const given = Object.keys(labels);
    if (given.length !== this.names.length || this.names.some((name) => !(name in labels))) {
      throw new TypeError(`the labels [${this.names}] are wanted, not [${given}]`);
    }
    if (typeof value !== "number") throw new TypeError(`a number is wanted, not ${typeof value}`);
    const values = this.names.map((name) => String(labels[name]));
    this.points.set(JSON.stringify(values), { value, values });
  }
}

class Describe {
  constructor() {
    this.families = [];
    this.definitions = [];
  }

  add(tag, name, help, { unit = "", labels = [] } = {}) {
    this.definitions.push({ name, type: { tag }, unit, help, labelNames: labels });
    const family = new Family(this.families.length, labels);
    this.families.push(family);
    return family;
  }

  gauge(name, help, more) {
    return this.add("gauge", name, help, more);
  }

  /** A total that only grows; its name ends in `_total`. */
  counter(name, help, more) {
    return this.add("counter", name, help, more);
  }

  /** Its value is 1; its name ends in `_info`. */
  info(name, help, more) {
    return this.add("info", name, help, more);
  }
}

function push(families, complete) {
  const points = [];
  const gone = [];
  for (const family of families) {
    const fresh = [...family.points.keys()].filter((key) => !family.series.has(key));
    if (fresh.length > 0) {
      const definitions = fresh.map((key) => ({
        family: family.number,
        part: { tag: "value" },
        labels: family.points.get(key).values.map((value, at) => ({ name: family.names[at], value })),
      }));
      sink.register(definitions).forEach((number, at) => family.series.set(fresh[at], number));
    }
    if (complete) {
      for (const [key, number] of [...family.series]) {
        if (!family.points.has(key)) {
          family.series.delete(key);
          gone.push(number);
        }
      }
    }
    for (const [key, { value }] of family.points) points.push({ series: family.series.get(key), value });
  }
  for (let at = 0; at < points.length; at += CHUNK) sink.push(points.slice(at, at + CHUNK));
  if (gone.length > 0) sink.retire(gone);
}

function sourceError(error) {
  return { reason: error?.reason ?? "exception", message: String(error?.message ?? error) };
}

/** Bytes as text, UTF-8; what is not valid becomes U+FFFD. The runtime has no TextDecoder. */
export function decode(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; ) {
    const first = bytes[at++];
    if (first < 0x80) {
      text += String.fromCharCode(first);
      continue;
    }
    const more = first >= 0xc2 && first < 0xe0 ? 1 : (first & 0xf0) === 0xe0 ? 2 : first >= 0xf0 && first < 0xf5 ? 3 : 0;
    let code = first & (0x3f >> more);
    let read = 0;
    for (; read < more && (bytes[at] & 0xc0) === 0x80; read++) code = (code << 6) | (bytes[at++] & 0x3f);
    const least = [Infinity, 0x80, 0x800, 0x10000][more];
    const valid = read === more && code >= least && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    text += valid ? String.fromCodePoint(code) : "\ufffd";
  }
  return text;
}

/** What a failed host call threw, as a `Failure`. */
export function within(call) {
  try {
    return call();
  } catch (error) {
    const told = error?.payload ?? error;
    if (typeof told?.tag === "string") throw new Failure(told.tag, String(told.val));
    throw error;
  }
}

/** The export that the component's world wants, of an object of yours. */
export function plugin(yours) {
  let families = [];
  return {
    describe() {
      const d = new Describe();
      yours.describe(d);
      families = d.families;
      return { families: d.definitions };
    },
    configure(settings) {
      try {
        yours.configure?.(JSON.parse(settings));
      } catch (error) {
        throw sourceError(error);
      }
    },
    collect() {
      let failed;
      for (const family of families) family.points = new Map();
      try {
        yours.collect();
      } catch (error) {
        failed = error;
      }
      // What was read before an error is kept.
      try {
        within(() => push(families, failed === undefined));
      } catch (error) {
        failed ??= new Failure("refused", error.message);
      }
      if (failed !== undefined) throw sourceError(failed);
    },
  };
}
