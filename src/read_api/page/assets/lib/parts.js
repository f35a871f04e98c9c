// Parts that several views share.

import { h, icon } from "./dom.js";
import { arnName, clock, count, plural, readyOf, timeOf } from "./format.js";
import { serviceHref, taskHref } from "./routes.js";
import { changeBadge, taskBadge } from "./states.js";

/** A card with a heading. */
export function card(title, { id, tools, className = "" } = {}, ...children) {
  return h(
    "section",
    { class: `card ${className}`, "aria-label": title, key: id },
    h("header", { class: "card-head" }, h("h2", {}, title), tools && h("div", { class: "card-tools" }, tools)),
    children,
  );
}

/** A figure with its name. */
export function figure(name, value, { note, tone = "", noteTone = "", href } = {}) {
  const body = [h("span", { class: "figure-name" }, name), h("span", { class: `figure-value ${tone}` }, value), h("span", { class: `figure-note ${noteTone}` }, note ?? "")];
  return href ? h("a", { class: "figure", href, key: name }, body) : h("div", { class: "figure", key: name }, body);
}

/** Names and values; rows without a value are left out. */
export function facts(rows) {
  const present = rows.filter(([, value]) => ![undefined, null, false, ""].includes(value));
  return h("dl", { class: "facts" }, present.map(([name, value]) => h("div", { key: name }, h("dt", {}, name), h("dd", {}, value))));
}

/** A message in place of content. */
export function notice(text, tone = "") {
  return h("p", { class: `notice ${tone}` }, tone === "bad" && icon("bad"), text);
}

/** The command or edit that corrects something. */
export function fixOf(text) {
  return text && h("div", { class: "fix" }, h("span", { class: "fix-label" }, "Fix"), h("code", {}, text));
}

export function mono(text) {
  return h("span", { class: "mono", title: text }, text);
}

export function taskLink(name) {
  return name && h("a", { href: taskHref(name), class: "mono", title: name }, name);
}

/** A link to a service that an item of a control plane names. */
export function serviceLink(item, name = item.service) {
  return name && h("a", { href: serviceHref({ ...item, name }), title: name }, name);
}

/** Changes or warnings, newest first: of one task or service, so the columns say the rest. */
export function changeList(changes, { withTask = true, what = "change" } = {}) {
  if (!changes.length) return notice(`No ${what} is recorded. The history begins with the operator's start, and drops its oldest entries.`);
  return h("ol", { class: "changes" }, changes.map((change) => changeItem(change, { withService: false, withTask })));
}

export function changeItem(change, { withService = true, withTask = true } = {}) {
  const mark = { warning: " warned", resolved: " resolved" }[change.kind] ?? "";
  return h(
    "li",
    { key: change.id, class: `change${change.result === "error" ? " failed" : ""}${mark}` },
    h("time", { datetime: change.time, title: change.time, class: "time" }, clock(change.time)),
    changeBadge(change),
    h(
      "span",
      { class: "change-text" },
      withService && change.service && h("span", { class: "change-service" }, serviceLink(change)),
      withTask && (change.task ? taskLink(arnName(change.task)) : mono(change.name ?? change.object)),
      h("span", { class: "change-reason" }, mark && h("code", { class: "label" }, change.reason.key), change.reason.message || change.reason.key),
      change.fields?.length > 0 && h("span", { class: "change-fields" }, change.fields.join(", ")),
      change.error && h("span", { class: "change-error" }, change.error),
    ),
  );
}

/** Tasks in their order, stopped ones last. */
export function stoppedLast(tasks) {
  const isStopped = ({ state }) => state === "stopped";
  return [...tasks.filter((task) => !isStopped(task)), ...tasks.filter(isStopped)];
}

/** The columns of tasks. */
export function taskColumns({ ofService = false } = {}) {
  const columns = [
    { key: "state", label: "State", width: "minmax(140px, .7fr)", sort: ({ state }) => state, cell: ({ state, reason }) => taskBadge(state, reason?.message) },
    { key: "name", label: "Task", width: "minmax(264px, 1.2fr)", sort: ({ name }) => name, cell: ({ name }) => h("a", { href: taskHref(name), class: "mono", title: name }, name) },
    { key: "service", label: "Service", width: "minmax(110px, 1.2fr)", sort: ({ service }) => service, cell: (task) => task.service ?? task.workloads?.join(", ") ?? "–" },
    { key: "registrations", label: "Registered", width: "minmax(112px, .7fr)", sort: ({ registrations }) => registrations?.length ?? 0, cell: registrationCell },
    { key: "lastStatus", label: "ECS status", width: "minmax(176px, .9fr)", sort: ({ lastStatus }) => lastStatus, cell: ecsStatus },
    { key: "cluster", label: "Cluster", width: "minmax(80px, .8fr)", sort: ({ cluster }) => cluster, cell: ({ cluster }) => arnName(cluster) },
    { key: "role", label: "Role", width: "minmax(110px, 1.2fr)", sort: ({ role }) => role, cell: ({ role }) => h("span", { title: role }, arnName(role) ?? "–") },
    { key: "createdAt", label: "Created", width: "minmax(134px, .7fr)", sort: ({ createdAt }) => createdAt, cell: ({ createdAt }) => timeOf(createdAt) },
  ];
  // On the page of a service there is room for what differs between its tasks.
  return ofService ? columns.filter(({ key }) => !["service", "cluster", "role"].includes(key)) : columns;
}

function registrationCell({ registrations = [] }) {
  if (!registrations.length) return h("span", { class: "muted" }, "none");
  const ready = registrations.filter((one) => one.ready).length;
  // A token has no readiness.
  const total = registrations.filter(({ kind }) => kind !== "token").length;
  const unknown = registrations.filter((one) => one.ready === undefined && one.kind !== "token").length;
  if (!total) return plural(registrations.length, "token");
  const times = registrations.map(({ readinessObservedAt }) => readinessObservedAt).filter(Boolean).sort();
  return h("span", { title: times[0] && `read at ${times[0]}` }, `${readyOf({ ready, unknown, total })} ready`);
}

function ecsStatus({ lastStatus, desiredStatus }) {
  return lastStatus === desiredStatus || !desiredStatus ? lastStatus : `${lastStatus} → ${desiredStatus}`;
}

/** Does a text occur in one of these values? */
export function matches(query, ...values) {
  const wanted = query.toLowerCase();
  return !wanted || values.some((value) => value?.toLowerCase().includes(wanted));
}

/** A text field that filters the view; its value is in the address. */
export function filterBox({ value, label, onInput }) {
  const input = h("input", { type: "search", class: "filter", placeholder: `${label} (f)`, "aria-label": label, "data-filter": true, autocomplete: "off", spellcheck: "false", on: { input: () => onInput(input.value.trim()) } });
  input.value = value ?? "";
  return input;
}

/** Buttons of which any number is pressed: states with their counts. */
export function toggles({ label, values, chosen, onChange }) {
  return h(
    "div",
    { class: "toggles", role: "group", "aria-label": label },
    values.map(({ key, mark, total }) =>
      h(
        "button",
        {
          key,
          type: "button",
          class: `toggle ${mark.tone}`,
          "aria-pressed": chosen.has(key) ? "true" : "false",
          disabled: total === 0 && !chosen.has(key),
          on: { click: () => onChange(toggled(chosen, key)) },
        },
        icon(mark.symbol),
        mark.label,
        total !== undefined && h("span", { class: "toggle-count" }, count(total)),
      ),
    ),
  );
}

function toggled(chosen, key) {
  const next = new Set(chosen);
  if (!next.delete(key)) next.add(key);
  return next;
}

/** Links of which one is current: `options` by value, `hrefOf` a value's address. */
export function segments({ label, value, options, hrefOf }) {
  return h("div", { class: "segments", role: "group", "aria-label": label }, Object.entries(options).map(([key, text]) => h("a", { key, href: hrefOf(key), "aria-current": key === value ? "true" : null }, text)));
}

/** A labelled choice. */
export function choice({ label, value, options, onChange }) {
  const select = h(
    "select",
    { "aria-label": label, on: { change: (event) => onChange(event.target.value) } },
    Object.entries(options).map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
  );
  return h("label", { class: "choice" }, h("span", {}, label), select);
}
