import assert from "node:assert/strict";
import { test } from "node:test";

import { Host } from "../../javascript/testing.mjs";

const { plugin } = await import("../../javascript/picket.js");

test("what the host refused is not pushed by the next collect", () => {
  let room;
  const host = new Host(
    plugin({
      describe(d) {
        this.warmth = d.gauge("warmth", "How warm it is.", { labels: ["room"] });
      },
      collect() {
        const sink = globalThis.picketTest["picket:source/sink"];
        if (room === "refused") sink.register = () => { throw { tag: "quota", val: "too many" }; };
        this.warmth.set(20, { room });
      },
    }),
  );
  room = "refused";
  assert.throws(() => host.collect(), { reason: "refused", message: "too many" });
  room = "kitchen";
  host.collect();
  assert.equal(host.value("warmth", { room: "refused" }), undefined);
  assert.equal(host.value("warmth", { room: "kitchen" }), 20);
});
