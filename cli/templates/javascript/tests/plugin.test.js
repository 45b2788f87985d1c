import assert from "node:assert/strict";
import { test } from "node:test";

import { Host } from "../picket/testing.mjs";

const { source } = await import("../plugin.js");
const FILE = "/proc/sys/fs/file-nr";

test("counts open files", () => {
  const host = new Host(source);
  host.configure({ warn_above: 0.5 });
  host.files[FILE] = "1100\t100\t10000\n";
  host.collect();
  assert.equal(host.value("{{snake}}_open_files"), 1000);
  assert.equal(host.value("{{snake}}_open_files_limit"), 10000);
  assert.equal(host.events.length, 0);
});

test("says when they are many", () => {
  const host = new Host(source);
  host.configure({});
  host.files[FILE] = "9500 0 10000";
  host.collect();
  assert.equal(host.events.length, 1);
});

test("what cannot be read is left out", () => {
  const host = new Host(source);
  assert.throws(() => host.collect(), { reason: "not-found" });
  host.files[FILE] = "nonsense";
  assert.throws(() => host.collect(), { reason: "parse" });
  assert.equal(host.value("{{snake}}_open_files"), undefined);
});
