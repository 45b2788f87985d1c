// Needs the capability `command`: runs what the operator defined by this name, no shell.
import * as command from "picket:host/command@0.1.0";

import { decode, within } from "./picket.js";

/** `{ status, output }`. */
export function run(name, slots = {}) {
  const labels = Object.entries(slots).map(([slot, value]) => ({ name: slot, value: String(value) }));
  const started = within(() => command.start(name, labels));
  const bytes = [];
  for (;;) {
    const chunk = within(() => command.read(started, 65536));
    if (chunk.length === 0) break;
    for (const byte of chunk) bytes.push(byte);
  }
  return { status: within(() => command.end(started)).status, output: decode(bytes) };
}
