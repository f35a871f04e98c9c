// One service: its neighbours, tasks and history.

import { get, list, path } from "../lib/api.js";
import { h, render } from "../lib/dom.js";
import { clock, count, plural } from "../lib/format.js";
import { GraphView } from "../lib/graph.js";
import { HistoryCard } from "../lib/history.js";
import { Refresher } from "../lib/live.js";
import { neighbourhood } from "../lib/mesh.js";
import { card, facts, figure, notice, segments, stoppedLast, taskColumns } from "../lib/parts.js";
import { format, serviceHref, serviceId, taskHref } from "../lib/routes.js";
import { serviceBadge } from "../lib/states.js";
import { VirtualTable } from "../lib/table.js";

const MOST_TASKS = 200;
const HOPS = { 1: "1 hop", 2: "2 hops" };

export class Service {
  #context;
  #mesh = null;
  #taskNames = new Set();

  constructor([controlPlane, mesh, name]) {
    this.key = [controlPlane, mesh, name];
    this.path = ["services", ...this.key];
    this.id = serviceId({ controlPlane, mesh, name });
    this.name = name;
    this.title = name;
  }

  mount(root, context) {
    this.#context = context;
    const label = `${this.name} with its callers and outbounds; arrow keys move, Enter opens`;
    this.graph = new GraphView({ label, centre: this.id, isFlexible: true });
    this.table = new VirtualTable({ label: `Tasks of ${this.name}`, columns: taskColumns({ ofService: true }), keyOf: ({ name }) => name, hrefOf: ({ name }) => taskHref(name), empty: "No task registers this service.", fitted: true });
    this.history = new HistoryCard({ path: this.path, query: () => this.#context.query });
    for (const part of ["head", "figures", "about", "taskTools", "hops"]) this[part] = h("div", { class: part });
    this.body = h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "main-column" },
        card("Neighbours", { tools: this.hops, className: "topology small" }, this.graph.element),
        card("Tasks", { tools: this.taskTools }, this.table.element),
      ),
      h("div", { class: "side" }, card("Details", {}, this.about), this.history.element),
    );
    root.append(this.head, this.figures, this.body);
    this.figures.classList.add("figures");
    render(this.head, h("h1", {}, this.name));
    this.refresher = new Refresher((signal) => this.#load(signal));
    this.ends = [
      context.sources.mesh.subscribe((mesh) => {
        this.#mesh = mesh;
        this.#drawGraph();
      }),
      context.onChange((changed) => this.#isConcerned(changed) && this.refresher.soon()),
    ];
    this.refresher.now();
  }

  update() {
    this.#drawGraph();
    this.history.update();
  }

  destroy() {
    this.refresher.stop();
    this.ends.forEach((end) => end());
    this.graph.destroy();
    this.table.destroy();
  }

  #isConcerned({ tasks = [], services, change, warning, more, isReset }) {
    const ofThis = [change?.service, warning?.service, ...(warning?.services ?? [])].includes(this.name);
    // A task may change and leave the numbers of its service as they are.
    const ofTask = tasks.some((name) => this.#taskNames.has(name));
    return isReset || more || ofThis || ofTask || services?.includes(this.key.join("/"));
  }

  async #load(signal) {
    try {
      const [controlPlane] = this.key;
      const isHere = (change) => !change.controlPlane || change.controlPlane === controlPlane;
      const [service, tasks, entries] = await Promise.all([
        get(path(...this.path), { signal }),
        list("tasks", { params: { service: this.name, controlPlane }, signal, most: MOST_TASKS }),
        HistoryCard.load({ service: this.name }, signal, isHere),
      ]);
      this.#show(service, tasks);
      this.history.show(entries);
    } catch (error) {
      if (error.status !== 404) throw error;
      render(this.figures);
      render(this.head, h("h1", {}, this.name), notice("No service of this name is declared or registered now. Its history may be among the changes."), h("a", { href: format(["changes"], { q: this.name, warnings: true }) }, "Changes and warnings of this name"));
      this.body.hidden = true;
    }
  }

  #show(service, tasks) {
    this.body.hidden = false;
    const { registrations, tasks: counts } = service;
    render(this.head, h("p", { class: "kind" }, "Service"), h("h1", {}, this.name), serviceBadge(service.state), h("a", { class: "button", href: format([], { focus: this.id, hops: 1 }) }, "Show in overview"));
    const notes = [registrations.drained && `${count(registrations.drained)} drained`, registrations.unknown && `${count(registrations.unknown)} not read yet`, service.readinessObservedAt && `read ${clock(service.readinessObservedAt)}`];
    render(
      this.figures,
      figure("Ready registrations", [h("span", {}, count(registrations.ready)), h("small", {}, ` of ${count(registrations.total)}`)], { note: notes.filter(Boolean).join(" · ") || "none drained" }),
      figure("Tasks", count(counts.total), { href: format(["tasks"], { service: this.name }), note: counts.pending ? `${count(counts.pending)} pending` : "none pending" }),
      figure("Rejected", count(counts.rejected), { tone: counts.rejected ? "bad" : "", note: "by role tags" }),
      figure("Held", count(counts.held), { tone: counts.held ? "warn" : "", note: "unchanged for now" }),
      figure("Warnings", count(counts.warnings), { tone: counts.warnings ? "warn" : "", note: plural(counts.warnings, "task") }),
    );
    const names = (values) => values?.length && values.join(", ");
    render(
      this.about,
      facts([
        ["Control plane", service.controlPlane],
        ["Mesh", service.mesh],
        ["Declared", service.declared ? "yes" : "no, it is not from these manifests"],
        ["Of others", service.others && `${count(service.others.ready)} of ${count(service.others.total)} registrations ready`],
        ["Workloads", names(service.workloads)],
        ["Bindings", names(service.bindings)],
        ["ECS services", names(service.ecsServices)],
        ["Calls", this.#links(service, service.outbounds)],
        ["Called by", this.#links(service, service.callers)],
      ]),
    );
    render(this.taskTools, h("a", { href: format(["tasks"], { service: this.name }) }, tasks.total > tasks.items.length ? `All ${count(tasks.total)} tasks` : "Open as table"));
    this.#taskNames = new Set(tasks.items.map(({ name }) => name));
    this.table.show(stoppedLast(tasks.items));
  }

  #links(service, names) {
    if (!names?.length) return "none";
    return h("span", { class: "links" }, names.map((name) => h("a", { key: name, href: this.#hrefOf(service, name) }, name)));
  }

  // A name in the same mesh, or where the graph knows one of the name.
  #hrefOf(service, name) {
    const own = { ...service, name };
    if (!this.#mesh || this.#mesh.services.has(serviceId(own))) return serviceHref(own);
    const other = [...this.#mesh.services.values()].find((one) => one.name === name);
    return serviceHref(other ?? own);
  }

  #drawGraph() {
    const hops = this.#context.query.hops === "2" ? 2 : 1;
    const { query } = this.#context;
    render(this.hops, segments({ label: "Distance", value: String(hops), options: HOPS, hrefOf: (value) => format(this.path, { ...query, hops: value === "1" ? "" : value }) }));
    if (this.#mesh?.services.has(this.id)) this.graph.show(neighbourhood(this.#mesh, this.id, hops));
  }
}
