// All tasks as a table.

import { list } from "../lib/api.js";
import { announce, h, render } from "../lib/dom.js";
import { arnName, count } from "../lib/format.js";
import { Refresher } from "../lib/live.js";
import { choice, filterBox, matches, stoppedLast, taskColumns, toggles } from "../lib/parts.js";
import { taskHref } from "../lib/routes.js";
import { TASK_STATES, taskState } from "../lib/states.js";
import { VirtualTable, shownOf } from "../lib/table.js";

export class Tasks {
  title = "Tasks";
  #context;
  #ignored = [];
  #ignoredRefresher = null;
  #frame = 0;

  mount(root, context) {
    this.#context = context;
    const { go, query, sources } = context;
    this.table = new VirtualTable({ label: "Tasks", columns: taskColumns(), keyOf: ({ name }) => name, hrefOf: ({ name }) => taskHref(name), onSort: (sort) => go({ sort }) });
    this.states = h("div", {});
    this.more = h("div", { class: "choices" });
    this.shown = h("span", { class: "hint shown" });
    root.append(
      h("div", { class: "toolbar" }, h("h1", {}, "Tasks"), filterBox({ value: query.q, label: "Filter tasks", onInput: (q) => go({ q }, { replace: true }) }), this.more, this.states, this.shown),
      this.table.element,
    );
    root.classList.add("fills");
    this.table.sort(query.sort);
    this.ends = [sources.tasks.subscribe(() => this.#schedule()), context.onChange((changed) => this.#noteIgnored(changed))];
    this.#followIgnored();
    this.#show();
  }

  update() {
    this.table.sort(this.#context.query.sort);
    this.#followIgnored();
    this.#show();
    announce(this.shown.textContent);
  }

  destroy() {
    cancelAnimationFrame(this.#frame);
    this.ends.forEach((end) => end());
    this.#ignoredRefresher?.stop();
    this.table.destroy();
  }

  // Pages that arrive together are drawn once.
  #schedule() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#show());
  }

  // Ignored tasks are a list of their own: an account may have many, and they belong to no mesh.
  #followIgnored() {
    const isWanted = this.#chosen().has("ignored");
    if (isWanted && !this.#ignoredRefresher) {
      const load = async (signal) => {
        this.#ignored = (await list("tasks", { params: { state: "ignored" }, signal })).items;
        this.#show();
      };
      this.#ignoredRefresher = new Refresher(load);
      this.#ignoredRefresher.now();
    } else if (!isWanted) {
      this.#ignoredRefresher?.stop();
      this.#ignoredRefresher = null;
      this.#ignored = [];
    }
  }

  // A task may become ignored, or be selected by a new binding.
  #noteIgnored({ tasks, more, isReset }) {
    if (tasks?.length || more || isReset) this.#ignoredRefresher?.soon();
  }

  #chosen() {
    return new Set((this.#context.query.state ?? "").split(",").filter(Boolean));
  }

  #show() {
    const { go, query, sources } = this.#context;
    const { tasks, total, isComplete } = sources.tasks;
    if (total === null) {
      this.table.message.textContent = "Loading tasks…";
      return;
    }
    const all = [...tasks.values(), ...this.#ignored.filter(({ name }) => !tasks.has(name))];
    const found = all.filter((task) => isFound(task, query));
    const chosen = this.#chosen();
    const rows = chosen.size ? found.filter(({ state }) => chosen.has(state)) : found;
    const values = TASK_STATES.map((key) => ({ key, mark: taskState(key), total: found.filter(({ state }) => state === key).length }));
    const present = values.filter(({ key, total: number }) => number || chosen.has(key) || key === "ignored");
    // The number of ignored tasks is unknown until they are asked for.
    present.filter(({ key }) => key === "ignored" && !chosen.has(key)).forEach((value) => (value.total = undefined));
    render(this.states, toggles({ label: "State", values: present, chosen, onChange: (states) => go({ state: [...states].join(",") }) }));
    render(
      this.more,
      choice({ label: "Cluster", value: query.cluster ?? "", options: optionsOf(all, "cluster", "All"), onChange: (cluster) => go({ cluster }) }),
      query.service && h("button", { type: "button", class: "chip", title: "Remove this filter", on: { click: () => go({ service: "" }) } }, `Service ${query.service} ×`),
      query.warning && h("button", { type: "button", class: "chip", title: "Remove this filter", on: { click: () => go({ warning: "" }) } }, `Warning ${query.warning} ×`),
    );
    this.shown.textContent = isComplete ? shownOf(rows.length, all.length, "tasks") : `Loading: ${count(all.length)} of ${count(total)} tasks`;
    this.table.show(query.sort ? rows : stoppedLast(rows));
  }
}

// As the API filters.
function isFound({ name, service, workloads = [], role, ecsService, cluster, registrations = [], warnings = [] }, query) {
  const services = [service, ...registrations.map((one) => one.service)];
  return (
    (!query.cluster || cluster === query.cluster) &&
    (!query.service || services.includes(query.service)) &&
    (!query.warning || warnings.some(({ reason }) => reason === query.warning)) &&
    matches(query.q ?? "", name, ...services, ecsService, role, ...workloads)
  );
}

function optionsOf(tasks, key, all) {
  const values = [...new Set(tasks.map((task) => task[key]).filter(Boolean))].sort();
  return { "": all, ...Object.fromEntries(values.map((value) => [value, arnName(value)])) };
}
