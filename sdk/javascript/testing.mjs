// A host for tests, without WebAssembly: `const host = new Host(source)`, fakes in its fields, then `host.collect()`.
// Load the plugin after this file: `const { source } = await import("../plugin.js")`.

import { register } from "node:module";

// What an interface of the contract has; a plugin that imports more of it is told by the module loader.
const INTERFACES = {
  "picket:source/sink": ["declare", "register", "push", "pushTimed", "retire", "emit", "fail"],
  "picket:host/log": ["write"],
  "picket:host/clock": ["now", "monotonic"],
  "picket:host/random": ["bytes"],
  "picket:host/files": ["read", "readMany", "listDirectory", "readLink", "modified", "statFileSystem", "statFileSystems"],
  "picket:host/http": ["send", "sendMany"],
  "picket:host/command": ["start", "read", "end"],
};

const hooks = `
const interfaces = ${JSON.stringify(INTERFACES)};
export async function resolve(specifier, context, next) {
  if (!specifier.startsWith("picket:")) return next(specifier, context);
  return { url: "picket-test:" + specifier.split("@")[0].slice(7), shortCircuit: true };
}
export async function load(url, context, next) {
  if (!url.startsWith("picket-test:")) return next(url, context);
  const name = "picket:" + url.slice(12);
  const lines = (interfaces[name] ?? []).map(
    (f) => "export const " + f + " = (...a) => globalThis.picketTest[" + JSON.stringify(name) + "]." + f + "(...a);",
  );
  return { format: "module", shortCircuit: true, source: lines.join("\\n") };
}`;
register("data:text/javascript," + encodeURIComponent(hooks));

const failed = (tag, val) => ({ tag, val });
const bytes = (content) => (typeof content === "string" ? new TextEncoder().encode(content) : content);

export class Host {
  /** Path to text or bytes; what is not here is not found. */
  files = {};
  /** Called with the request; gives `{ status, body }`. */
  http = null;
  /** Called with the name and the slots; gives `{ status, output }`. */
  command = null;
  now = 1_767_225_600_000_000_000;
  failures = [];
  events = [];
  lines = [];
  #source;
  #families = [];
  #series = new Map();
  #values = new Map();
  #runs = new Map();
  #next = 0;

  constructor(source) {
    this.#source = source;
    this.#connect();
    this.#families = source.describe().families;
  }

  configure(settings) {
    this.#connect();
    this.#source.configure(JSON.stringify(settings));
  }

  /** One reading; throws what the plugin threw. `value` tells what was set in it. */
  collect() {
    this.#connect();
    this.#values = new Map();
    this.failures = [];
    this.#source.collect();
  }

  value(name, labels = {}) {
    return this.#values.get(key(name, Object.entries(labels)));
  }

  #connect() {
    globalThis.picketTest = {
      "picket:source/sink": {
        register: (definitions) => definitions.map((d) => this.#register(d)),
        push: (points) => points.forEach((p) => this.#push(p)),
        retire: (numbers) => numbers.forEach((number) => this.#series.delete(number)),
        emit: (events) => this.events.push(...events),
        fail: (reason, message) => this.failures.push([reason, message]),
      },
      "picket:host/log": { write: (_, message) => this.lines.push(message) },
      "picket:host/clock": { now: () => this.now, monotonic: () => this.now },
      "picket:host/random": { bytes: (length) => new Uint8Array(length) },
      "picket:host/files": {
        read: (path) => this.#read(path),
        readMany: (paths) => paths.map((path) => this.#each(() => this.#read(path))),
        listDirectory: (path) => this.#list(path),
      },
      "picket:host/http": { send: (request) => this.#send(request) },
      "picket:host/command": {
        start: (name, slots) => this.#start(name, slots),
        read: (run) => this.#runs.get(run).chunks.shift() ?? new Uint8Array(),
        end: (run) => ({ status: this.#runs.get(run).status, stderr: "" }),
      },
    };
  }

  #register(definition) {
    const labels = definition.labels.map(({ name, value }) => [name, value]);
    this.#series.set(++this.#next, key(this.#families[definition.family].name, labels));
    return this.#next;
  }

  #push({ series, value }) {
    const name = this.#series.get(series);
    if (name === undefined) throw failed("unknown-id", series);
    if (this.#values.has(name)) throw failed("invalid", `${name} was pushed twice in one collect`);
    this.#values.set(name, value);
  }

  #each(call) {
    try {
      return { tag: "ok", val: call() };
    } catch (error) {
      return { tag: "err", val: error };
    }
  }

  #read(path) {
    if (!(path in this.files)) throw failed("not-found", path);
    return bytes(this.files[path]);
  }

  #list(path) {
    const inside = path.replace(/\/$/, "") + "/";
    const names = Object.keys(this.files).filter((file) => file.startsWith(inside));
    if (names.length === 0) throw failed("not-found", path);
    const direct = new Set(names.map((file) => file.slice(inside.length).split("/")[0]));
    return [...direct].sort().map((name) => ({ name, kind: { tag: "file" } }));
  }

  #send(request) {
    if (this.http === null) throw failed("unreachable", request.url);
    const { status, body } = this.http(request);
    return { status, headers: [], body: bytes(body) };
  }

  #start(name, slots) {
    if (this.command === null) throw failed("denied", name);
    const { status, output } = this.command(name, Object.fromEntries(slots.map((s) => [s.name, s.value])));
    this.#runs.set(++this.#next, { status, chunks: [bytes(output)] });
    return this.#next;
  }
}

function key(name, labels) {
  return name + JSON.stringify(labels.sort(([a], [b]) => (a < b ? -1 : 1)));
}
