// How states look: an icon and a word each, so that colour is never the only sign.

import { h, icon } from "./dom.js";

const SERVICE = {
  notRead: ["quiet", "pending", "Not read yet"],
  ok: ["ok", "ok", "Ready"],
  degraded: ["warn", "warn", "Degraded"],
  down: ["bad", "bad", "Down"],
  missing: ["bad", "missing", "Missing"],
  undeclared: ["quiet", "undeclared", "Undeclared"],
};

const TASK = {
  registered: ["ok", "ok", "Registered"],
  self: ["ok", "self", "Registers itself"],
  pending: ["info", "pending", "Pending"],
  drained: ["quiet", "drained", "Drained"],
  held: ["warn", "held", "Held"],
  rejected: ["bad", "bad", "Rejected"],
  ignored: ["quiet", "ignored", "Ignored"],
  stopped: ["quiet", "ignored", "Stopped"],
};

const EDGE = {
  ok: ["ok", "", ""],
  notRead: ["quiet", "", ""],
  noReadyTarget: ["warn", "warn", "no ready target"],
  unknownTarget: ["bad", "missing", "unknown target"],
  discarded: ["quiet", "ignored", "discarded"],
};

const CHANGE = { create: "create", remove: "remove", update: "update", drain: "drained", undrain: "update", warning: "warn", resolved: "ok" };

export const SERVICE_STATES = Object.keys(SERVICE);
export const TASK_STATES = Object.keys(TASK);

// A state that this page does not know is shown as it is.
const known = (table, state) => table[state] ?? ["quiet", "undeclared", state ?? "unknown"];

export const serviceState = (state) => named(known(SERVICE, state));
export const taskState = (state) => named(known(TASK, state));
export const edgeState = (state) => named(known(EDGE, state ?? "ok"));

function named([tone, symbol, label]) {
  return { tone, symbol, label };
}

/** An icon with its word. */
export function badge({ tone, symbol, label }, title) {
  return h("span", { class: `badge ${tone}`, title }, icon(symbol), h("span", {}, label));
}

export const serviceBadge = (state) => badge(serviceState(state));
export const taskBadge = (state, title) => badge(taskState(state), title);

/** The kind of a change. */
export function changeBadge({ kind, result }) {
  const isError = result === "error";
  const tone = isError ? "bad" : { create: "ok", drain: "quiet", remove: "quiet", warning: "warn", resolved: "ok" }[kind] ?? "info";
  return badge({ tone, symbol: isError ? "bad" : CHANGE[kind] ?? "update", label: kind });
}

/** How bad the state of an outbound is: of several, an edge shows the worst one, as the API does. */
export function edgeSeverity(state) {
  return { unknownTarget: 4, noReadyTarget: 3, discarded: 2, notRead: 1, ok: 0 }[state] ?? 2;
}

/** How urgent a service's state is: the larger, the more. */
export function severity(state) {
  return { down: 5, missing: 4, degraded: 3, undeclared: 1, notRead: 1, ok: 0 }[state] ?? 2;
}
