import assert from "node:assert/strict";
import { test } from "node:test";

import { Host } from "../picket/testing.mjs";

const { dewPoint, source } = await import("../plugin.js");
const URL = "https://sensors.example.org/v1/rooms";

function host(rooms, settings = {}) {
  const host = new Host(source);
  host.configure({ url: URL, ...settings });
  host.asked = [];
  host.rooms = rooms;
  host.http = (request) => {
    host.asked.push(request);
    return { status: host.status ?? 200, body: JSON.stringify({ rooms: host.rooms }) };
  };
  return host;
}

const now = () => new Date().toISOString();
const room = (name, temperature_c, more = {}) => ({ name, temperature_c, humidity_percent: 50, time: now(), ...more });

test("rooms", () => {
  const h = host([room("hall-1", 24), room("hall-2", 20, { humidity_percent: null })]);
  h.collect();
  assert.equal(h.value("datacentre_room_temperature_celsius", { room: "hall-1" }), 24);
  assert.equal(h.value("datacentre_room_humidity_ratio", { room: "hall-1" }), 0.5);
  assert.equal(h.value("datacentre_room_humidity_ratio", { room: "hall-2" }), undefined);
  assert.equal(h.asked[0].secret, "sensors");
  assert.ok(!h.asked[0].headers.some(({ name }) => name === "x-api-key"));
  h.rooms = [room("hall-2", 21)];
  h.collect();
  assert.equal(h.value("datacentre_room_temperature_celsius", { room: "hall-1" }), undefined);
  const one = host([room("hall-1", 24), room("hall-2", 20)], { rooms: ["hall-2"] });
  one.collect();
  assert.equal(one.value("datacentre_room_temperature_celsius", { room: "hall-1" }), undefined);
});

test("a warm room begins and ends once", () => {
  const h = host([room("hall-1", 33)]);
  for (const celsius of [33, 34, 31.5, 30, 29]) {
    h.rooms = [room("hall-1", celsius)];
    h.collect();
  }
  assert.deepEqual(h.events.map((e) => [e.clear, e.subject.id]), [[false, "hall-1"], [true, "hall-1"]]);
});

test("what is not known is left out, with its reason", () => {
  const h = host([room("old", 20, { time: "2020-01-01T00:00:00Z" }), room("mute", null), { temperature_c: 1 }]);
  h.collect();
  assert.deepEqual(h.failures.map(([reason]) => reason), ["stale", "parse", "parse"]);
  assert.equal(h.value("datacentre_room_temperature_celsius", { room: "old" }), undefined);
  for (const [status, reason] of [[401, "secret"], [500, "status"]]) {
    h.status = status;
    assert.throws(() => h.collect(), { reason });
  }
  h.http = () => ({ status: 200, body: "[]" });
  assert.throws(() => h.collect(), { reason: "parse" });
});

test("bytes as the runtime's own decoder reads them", async () => {
  const { decode } = await import("../picket/picket.js");
  const texts = ["", "hall-1", "Zürich 24 °C", "€ 😀"];
  for (const text of texts) assert.equal(decode(new TextEncoder().encode(text)), text);
  for (const bytes of [[0xff, 0x41], [0xc3], [0xed, 0xa0, 0x80], [0xc0, 0x80]]) assert.ok(decode(bytes).includes("\ufffd"));
});

test("dew points of the tables", () => {
  for (const [celsius, ratio, wanted] of [[20, 0.5, 9.3], [25, 0.6, 16.7], [30, 1, 30]]) {
    assert.ok(Math.abs(dewPoint(celsius, ratio) - wanted) < 0.15, `${celsius} ${ratio}`);
  }
});
