// Values as people read them.

import { h } from "./dom.js";

const NUMBER = new Intl.NumberFormat("en");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const UNITS = [
  [86400, "d"],
  [3600, "h"],
  [60, "m"],
  [1, "s"],
];

/** A number with separators of thousands. */
export function count(value) {
  return NUMBER.format(value ?? 0);
}

/** `1 task`, `2 tasks`. */
export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** `3/4`. Of a part the readiness may not have been read: `3+1?/4`, and `?/4` where nothing is known. */
export function readyOf({ ready, unknown = 0, total }) {
  if (!unknown) return `${count(ready)}/${count(total)}`;
  return ready ? `${count(ready)}+${count(unknown)}?/${count(total)}` : `?/${count(total)}`;
}

/** A time of day; with the date where it is another day. */
export function clock(time) {
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time ?? "–");
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? CLOCK.format(date) : `${DAY.format(date)} ${CLOCK.format(date)}`;
}

/** A duration with its two largest units. */
export function duration(milliseconds) {
  let rest = Math.max(0, Math.round(milliseconds / 1000));
  const parts = [];
  for (const [size, unit] of UNITS) {
    if (rest >= size && parts.length < 2) parts.push(`${Math.floor(rest / size)}${unit}`);
    rest %= size;
  }
  return parts.join(" ") || "0s";
}

/** A `<time>`: the time of day, with the full time as its title. */
export function timeOf(time) {
  return time ? h("time", { datetime: time, title: time, class: "time" }, clock(time)) : "–";
}

/** How long ago a time is, by this machine's clock. */
export function ago(time) {
  return time ? h("time", { datetime: time, title: time, class: "time" }, `${duration(Date.now() - Date.parse(time))} ago`) : "–";
}

/** The last part of an ARN: the name of a role, a cluster or a service. */
export function arnName(arn) {
  return arn?.startsWith("arn:") ? arn.slice(arn.lastIndexOf("/") + 1) : arn;
}
