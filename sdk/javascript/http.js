// Needs the capability `http`.
import * as http from "picket:host/http@0.1.0";

import { decode, within } from "./picket.js";

/** `{ status, body }`. `secret`: the name of a granted one; the host adds its header, and nobody here sees it. */
export function get(url, { headers = {}, timeoutMs = null, secret = null } = {}) {
  const labels = Object.entries(headers).map(([name, value]) => ({ name, value }));
  const request = { method: "GET", url, headers: labels, body: [], timeout: timeoutMs, secret };
  const { status, body } = within(() => http.send(request));
  return { status, body: new Uint8Array(body) };
}

/** As `get`, the body read as JSON. */
export function getJson(url, options) {
  const { status, body } = get(url, options);
  return { status, json: JSON.parse(decode(body)) };
}
