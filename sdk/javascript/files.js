// Needs the capability `files`. Each throws a `Failure`: `not-found`, `denied`, `timed-out` …
import * as files from "picket:host/files@0.1.0";

import { decode, within } from "./picket.js";

export function read(path) {
  return new Uint8Array(within(() => files.read(path)));
}

export function readText(path) {
  return decode(read(path));
}

/** The names in a directory. */
export function list(path) {
  return within(() => files.listDirectory(path)).map((entry) => entry.name);
}
