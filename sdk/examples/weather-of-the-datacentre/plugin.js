// The rooms that a cluster stands in, from the building's sensors. The key that they ask for is added by the host: it is not
// here, not in the settings, and not in this component's memory.

import { Failure, emit, fail, plugin } from "./picket/picket.js";
import { getJson } from "./picket/http.js";

class Weather {
  #warm = new Set();

  describe(d) {
    const labels = { labels: ["room"] };
    this.temperature = d.gauge("datacentre_room_temperature_celsius", "Temperature of the room.", labels);
    this.humidity = d.gauge("datacentre_room_humidity_ratio", "Relative humidity of the room, 0 to 1.", labels);
    this.dewPoint = d.gauge("datacentre_room_dew_point_celsius", "Temperature at which water would settle.", labels);
    this.age = d.gauge("datacentre_room_reading_age_seconds", "How old the sensor's reading is.", labels);
  }

  configure(settings) {
    this.url = settings.url;
    this.rooms = settings.rooms ?? [];
    this.tooWarm = settings.too_warm_celsius ?? 32;
    this.stale = settings.stale_seconds ?? 600;
  }

  collect() {
    const { status, json } = getJson(this.url, { secret: "sensors", headers: { accept: "application/json" } });
    if (status === 401 || status === 403) throw new Failure("secret", `the sensors refuse the key (${status})`);
    if (status !== 200) throw new Failure("status", `the sensors answer ${status}`);
    if (!Array.isArray(json?.rooms)) throw new Failure("parse", "the answer has no list `rooms`");
    for (const room of json.rooms) {
      if (typeof room?.name !== "string") fail("parse", "a room has no name");
      else if (this.rooms.length === 0 || this.rooms.includes(room.name)) this.#read(room);
    }
  }

  #read({ name, temperature_c: celsius, humidity_percent: percent, time }) {
    const room = { room: name };
    const age = Date.now() / 1000 - Date.parse(time) / 1000;
    if (Number.isFinite(age)) this.age.set(Math.max(age, 0), room);
    // An old value would pass for one of now.
    if (!(age <= this.stale)) return fail("stale", `${name}: the reading is of ${time}`);
    if (!Number.isFinite(celsius)) return fail("parse", `${name} has no temperature`);
    this.temperature.set(celsius, room);
    if (Number.isFinite(percent) && percent > 0 && percent <= 100) {
      this.humidity.set(percent / 100, room);
      this.dewPoint.set(dewPoint(celsius, percent / 100), room);
    }
    this.#watch(name, celsius);
  }

  #watch(name, celsius) {
    const about = { key: name, subject: { kind: "room", id: name } };
    if (celsius > this.tooWarm && !this.#warm.has(name)) {
      this.#warm.add(name);
      const message = `${name} is at ${celsius.toFixed(1)} °C, ${this.tooWarm} °C are allowed`;
      emit("datacentre.too-warm", message, { ...about, severity: "warning" });
    } else if (celsius < this.tooWarm - 1 && this.#warm.delete(name)) {
      emit("datacentre.too-warm", `${name} is at ${celsius.toFixed(1)} °C again`, { ...about, clear: true });
    }
  }
}

/** Magnus' formula, with the constants of Sonntag (1990): good to 0.35 °C between -45 and 60 °C. */
export function dewPoint(celsius, ratio) {
  const [a, b] = [17.62, 243.12];
  const gamma = Math.log(ratio) + (a * celsius) / (b + celsius);
  return (b * gamma) / (a - gamma);
}

export const source = plugin(new Weather());
