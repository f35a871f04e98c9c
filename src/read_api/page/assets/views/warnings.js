// Active warnings by cause, with their fix.

import { announce, h, icon, render } from "../lib/dom.js";
import { duration, plural } from "../lib/format.js";
import { filterBox, fixOf, matches, notice, taskLink } from "../lib/parts.js";
import { format } from "../lib/routes.js";
import { shownOf } from "../lib/table.js";

const MOST = 200;

export class Warnings {
  title = "Warnings";
  #context;
  #items = null;

  mount(root, context) {
    this.#context = context;
    const { go, query } = context;
    this.shown = h("span", { class: "hint shown" });
    this.list = h("ul", { class: "warnings" });
    root.append(h("div", { class: "toolbar" }, h("h1", {}, "Warnings"), filterBox({ value: query.q, label: "Filter warnings", onInput: (q) => go({ q }, { replace: true }) }), this.shown), this.list);
    this.end = context.sources.warnings.subscribe(({ items }) => {
      this.#items = items;
      this.#show();
    });
  }

  update() {
    this.#show();
    announce(this.shown.textContent);
  }

  destroy() {
    this.end();
  }

  #show() {
    if (!this.#items) return;
    const { q = "" } = this.#context.query;
    const found = this.#items.filter(({ reason, message, services, controlPlane }) => matches(q, reason, message, controlPlane, ...services));
    found.sort((a, b) => b.tasks - a.tasks || a.reason.localeCompare(b.reason));
    this.shown.textContent = shownOf(found.length, this.#items.length, this.#items.length === 1 ? "cause" : "causes");
    render(
      this.list,
      found.length === 0 && h("li", {}, h("p", { class: "notice good" }, icon("ok", "icon ok"), this.#items.length ? "No warning matches." : "No warning is active.")),
      found.slice(0, MOST).map(item),
      found.length > MOST && h("li", { key: "more" }, notice(`${plural(found.length - MOST, "more cause")}. Use the filter to narrow the list.`)),
    );
  }
}

function item({ id, controlPlane, reason, message, fix, tasks, examples, services, since }) {
  return h(
    "li",
    { key: id, class: "card warning-card" },
    h("p", { class: "warning-head" }, icon("warn", "icon warn"), h("strong", {}, message)),
    fixOf(fix),
    h(
      "p",
      { class: "warning-facts" },
      h("code", { class: "label" }, reason),
      controlPlane && h("span", {}, controlPlane),
      tasks > 0 && h("a", { href: format(["tasks"], services.length === 1 ? { service: services[0], warning: reason } : { warning: reason }) }, plural(tasks, "task")),
      since && h("time", { datetime: since, title: since }, `for ${duration(Date.now() - Date.parse(since))}`),
    ),
    services.length > 0 && h("p", { class: "warning-facts" }, h("span", { class: "muted" }, "Services"), services.map((name) => h("a", { key: name, href: format(["services"], { q: name }) }, name))),
    examples.length > 0 && h("p", { class: "warning-facts" }, h("span", { class: "muted" }, tasks > examples.length ? "Examples" : "Tasks"), examples.map((name) => h("span", { key: name }, taskLink(name)))),
  );
}
