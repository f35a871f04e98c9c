// All services as a table.

import { announce, h, render } from "../lib/dom.js";
import { count, readyOf } from "../lib/format.js";
import { meter } from "../lib/graph.js";
import { filterBox, matches, toggles } from "../lib/parts.js";
import { serviceHref, serviceId } from "../lib/routes.js";
import { SERVICE_STATES, serviceBadge, serviceState, severity } from "../lib/states.js";
import { VirtualTable, shownOf } from "../lib/table.js";

const number = (value, tone = "bad") => h("span", { class: value ? tone : "muted" }, count(value));

const COLUMNS = [
  { key: "state", label: "State", width: "minmax(140px, .7fr)", sort: ({ state }) => severity(state), cell: ({ state }) => serviceBadge(state) },
  { key: "name", label: "Service", width: "minmax(160px, 2fr)", sort: ({ name }) => name, cell: (service) => h("a", { href: serviceHref(service), title: service.name }, service.name) },
  { key: "ready", label: "Ready", width: "minmax(150px, 1fr)", sort: ({ registrations: { ready, total } }) => (total ? ready / total : 0), cell: readyCell },
  { key: "tasks", label: "Tasks", width: "minmax(70px, .5fr)", align: "number", sort: ({ tasks }) => tasks.total, cell: ({ tasks }) => count(tasks.total) },
  { key: "rejected", label: "Rejected", width: "minmax(92px, .5fr)", align: "number", sort: ({ tasks }) => tasks.rejected, cell: ({ tasks }) => number(tasks.rejected) },
  { key: "held", label: "Held", width: "minmax(70px, .4fr)", align: "number", sort: ({ tasks }) => tasks.held, cell: ({ tasks }) => number(tasks.held, "warn") },
  { key: "calls", label: "Calls", width: "minmax(72px, .4fr)", align: "number", sort: ({ outbounds }) => outbounds?.length ?? 0, cell: ({ outbounds }) => count(outbounds?.length) },
  { key: "callers", label: "Called by", width: "minmax(100px, .5fr)", align: "number", sort: ({ callers }) => callers?.length ?? 0, cell: ({ callers }) => count(callers?.length) },
  { key: "mesh", label: "Mesh", width: "minmax(110px, .9fr)", sort: ({ controlPlane, mesh }) => `${controlPlane}/${mesh ?? ""}`, cell: ({ controlPlane, mesh }) => [controlPlane, mesh].filter(Boolean).join(" / ") },
];

function readyCell(service) {
  const { registrations, others, readinessObservedAt } = service;
  if (!registrations.total && others) return h("span", { class: "muted" }, `${count(others.ready)}/${count(others.total)} by others`);
  const title = readinessObservedAt && `read at ${readinessObservedAt}`;
  return h("span", { class: "ready-cell", title }, h("span", {}, readyOf(registrations)), meter(registrations.ready, registrations.total));
}

export class Services {
  title = "Services";
  #context;
  #services = null;

  mount(root, context) {
    this.#context = context;
    const { go, query } = context;
    this.table = new VirtualTable({ label: "Services", columns: COLUMNS, keyOf: serviceId, hrefOf: serviceHref, onSort: (sort) => go({ sort }) });
    this.states = h("div", {});
    this.shown = h("span", { class: "hint shown" });
    root.append(
      h("div", { class: "toolbar" }, h("h1", {}, "Services"), filterBox({ value: query.q, label: "Filter services", onInput: (q) => go({ q }, { replace: true }) }), this.states, this.shown),
      this.table.element,
    );
    root.classList.add("fills");
    this.table.sort(query.sort);
    this.#show();
    this.end = context.sources.services.subscribe((services) => {
      this.#services = services;
      this.#show();
    });
  }

  update() {
    this.table.sort(this.#context.query.sort);
    this.#show();
    announce(this.shown.textContent);
  }

  destroy() {
    this.end();
    this.table.destroy();
  }

  #show() {
    if (!this.#services) {
      this.table.message.textContent = "Loading services…";
      return;
    }
    const { go, query } = this.#context;
    const all = this.#services;
    const found = all.filter(({ name, workloads = [], ecsServices = [] }) => matches(query.q ?? "", name, ...workloads, ...ecsServices));
    const chosen = new Set((query.state ?? "").split(",").filter(Boolean));
    const rows = chosen.size ? found.filter(({ state }) => chosen.has(state)) : found;
    const values = SERVICE_STATES.map((key) => ({ key, mark: serviceState(key), total: found.filter(({ state }) => state === key).length }));
    render(this.states, toggles({ label: "State", values, chosen, onChange: (states) => go({ state: [...states].join(",") }) }));
    this.shown.textContent = shownOf(rows.length, all.length, "services");
    this.table.show(query.sort ? rows : [...rows].sort((a, b) => a.name.localeCompare(b.name)));
  }
}
