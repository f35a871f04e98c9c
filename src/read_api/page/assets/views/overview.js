// The topology, what needs attention, and the latest changes.

import { h, icon, render } from "../lib/dom.js";
import { count, plural, readyOf } from "../lib/format.js";
import { GraphView, registrationText } from "../lib/graph.js";
import { GROUPINGS, MOST_NODES, drawing, groupDrawing, neighbourhood, summarise } from "../lib/mesh.js";
import { card, changeItem, choice, figure, notice, segments } from "../lib/parts.js";
import { format, serviceHref, serviceId } from "../lib/routes.js";
import { SERVICE_STATES, serviceBadge, serviceState, severity } from "../lib/states.js";

const MOST_LISTED = 8;

export class Overview {
  title = "Overview";
  #context;
  #graph = null;
  #graphKey = null;
  #mesh = null;
  #status = null;
  #warnings = null;

  mount(root, context) {
    this.#context = context;
    this.figures = h("section", { class: "figures", "aria-label": "Summary" });
    this.crumbs = h("div", { class: "crumbs" });
    this.tools = h("div", { class: "card-tools" });
    this.picture = h("div", { class: "picture" });
    this.cut = h("p", { class: "notice cut", hidden: true }, "The mesh has more services or outbounds than the overview shows. All services are in the list of services.");
    this.attention = h("div", {});
    this.latest = h("ol", { class: "changes compact", "aria-label": "Latest changes" });
    root.append(
      h("h1", { class: "visually-hidden" }, "Overview"),
      this.figures,
      h(
        "div",
        { class: "columns" },
        h("section", { class: "card topology", "aria-label": "Topology" }, h("header", { class: "card-head" }, this.crumbs, this.tools), this.cut, this.picture),
        h(
          "div",
          { class: "side" },
          card("Needs attention", {}, this.attention),
          card("Latest changes", { tools: h("a", { href: "#/changes" }, "All changes") }, this.latest),
        ),
      ),
    );
    const { mesh, status, recent, warnings } = context.sources;
    this.ends = [
      mesh.subscribe((value) => {
        this.#mesh = value;
        this.#show();
      }),
      status.subscribe((value) => {
        this.#status = value;
        this.#showFigures();
      }),
      warnings.subscribe((value) => {
        this.#warnings = value;
        if (this.#mesh) this.#showAttention();
      }),
      recent.subscribe(({ items }) => {
        render(this.latest, items.length ? items.slice(0, MOST_LISTED).map((change) => changeItem(change)) : h("li", {}, notice("No changes yet.")));
      }),
    ];
    if (!this.#mesh) render(this.picture, h("div", { class: "loading" }, "Loading the topology…"));
  }

  update() {
    this.#show();
  }

  destroy() {
    this.ends.forEach((end) => end());
    this.#graph?.destroy();
  }

  #show() {
    if (!this.#mesh) return;
    const { focus, open, group } = this.#context.query;
    this.cut.hidden = !this.#mesh.isCut;
    const grouping = group in GROUPINGS ? group : "prefix";
    const isLarge = this.#mesh.services.size > MOST_NODES || group in GROUPINGS;
    if (focus && this.#mesh.services.has(focus)) this.#showNeighbourhood(focus);
    else if (open && isLarge) this.#showGroup(open, grouping);
    else if (isLarge) this.#showGroups(grouping);
    else this.#showAll();
    this.#showFigures();
    this.#showAttention();
  }

  #showAll() {
    const { services } = this.#mesh;
    render(this.crumbs, h("h2", {}, "Services"));
    this.#showTools(false);
    if (!services.size) {
      this.#replace("empty", notice("No service is registered or declared yet."));
      return;
    }
    this.#drawGraph("all", { label: "Services and their outbounds; arrow keys move, Enter opens, n shows neighbours" }, drawing(this.#mesh, new Set(services.keys())));
  }

  #showNeighbourhood(focus) {
    const { query } = this.#context;
    const service = this.#mesh.services.get(focus);
    const hops = query.hops === "2" ? 2 : 1;
    render(
      this.crumbs,
      h("a", { href: format([], { group: query.group }) }, "Services"),
      h("span", { "aria-hidden": "true" }, "›"),
      h("h2", {}, service.name),
      serviceBadge(service.state),
      h("a", { href: serviceHref(service), class: "open-page" }, "Open page"),
    );
    render(
      this.tools,
      segments({ label: "Distance", value: String(hops), options: { 1: "1 hop", 2: "2 hops" }, hrefOf: (value) => format([], { ...query, hops: value }) }),
    );
    const options = { label: `${service.name} with its callers and outbounds`, centre: focus, query: { group: query.group } };
    this.#drawGraph(`focus ${focus} ${hops}`, options, neighbourhood(this.#mesh, focus, hops));
  }

  #showGroup(name, grouping) {
    const labels = this.#mesh.groups(grouping);
    const members = [...this.#mesh.services.keys()].filter((id) => labels.get(id) === name);
    const { query } = this.#context;
    render(
      this.crumbs,
      h("a", { href: format([], { group: query.group }) }, "All groups"),
      h("span", { "aria-hidden": "true" }, "›"),
      h("h2", {}, name),
      h("span", { class: "hint" }, plural(members.length, "service")),
    );
    this.#showTools(true, grouping);
    if (members.length === 0) {
      this.#replace("empty", notice(`No service belongs to the group ${name} now.`));
    } else if (members.length > MOST_NODES) {
      this.#replace(`list ${name}`, this.#serviceList(members));
    } else {
      const options = { label: `Services of ${name}, and the groups that they touch`, query: { group: query.group } };
      this.#drawGraph(`open ${grouping} ${name}`, options, groupDrawing(this.#mesh, new Set(members), labels));
    }
  }

  // A group of hundreds is a list: its drawing would be a hairball.
  #serviceList(ids) {
    const services = ids.map((id) => this.#mesh.services.get(id)).sort((a, b) => severity(b.state) - severity(a.state) || a.name.localeCompare(b.name));
    return h(
      "ul",
      { class: "service-list" },
      services.map((service) =>
        h("li", { key: serviceId(service) }, h("a", { href: format([], { focus: serviceId(service), hops: 1 }) }, icon(serviceState(service.state).symbol, `icon ${serviceState(service.state).tone}`), h("span", { class: "name" }, service.name), h("span", { class: "hint" }, registrationText(service)))),
      ),
    );
  }

  #showGroups(grouping) {
    const groups = summarise(this.#mesh, grouping);
    render(this.crumbs, h("h2", {}, "Services"), h("span", { class: "hint" }, `${plural(this.#mesh.services.size, "service")} in ${plural(groups.length, "group")}`));
    this.#showTools(true, grouping);
    this.#graph?.destroy();
    this.#graph = null;
    if (this.#graphKey !== "groups") this.picture.replaceChildren(h("ul", { class: "groups", "aria-label": "Groups of services" }));
    this.#graphKey = "groups";
    render(this.picture.firstChild, groups.map((group) => this.#groupTile(group)));
  }

  #groupTile(group) {
    const { query } = this.#context;
    const urgent = group.members.filter(({ state }) => severity(state) > 1);
    const mark = (near) => (event) => this.#markGroups(event.currentTarget, near);
    return h(
      "li",
      { key: group.name, class: "group-tile", "data-name": group.name, "data-calls": JSON.stringify([...group.calls]), "data-callers": JSON.stringify([...group.callers]), on: { mouseenter: mark(true), mouseleave: mark(false), focusin: mark(true), focusout: mark(false) } },
      h(
        "a",
        { class: "group-head", href: format([], { ...query, open: group.name }), "aria-label": `${group.name}: ${plural(group.members.length, "service")}, ${count(group.ready)} of ${count(group.total)} ready${urgent.length ? `, ${count(urgent.length)} need attention` : ""}` },
        h("span", { class: "group-name" }, group.name),
        h("span", { class: "group-count" }, `${readyOf(group)} ready`),
      ),
      h("div", { class: "cells" }, group.members.slice(0, 120).map((service) => this.#cell(service)), group.members.length > 120 && h("span", { class: "hint" }, `and ${count(group.members.length - 120)} more`)),
      h("p", { class: "group-links" }, h("span", {}, `calls ${plural(group.calls.size, "group")}`), h("span", {}, `called by ${count(group.callers.size)}`), h("span", { class: "relation", "aria-hidden": "true" })),
    );
  }

  #cell(service) {
    const { tone, symbol, label } = serviceState(service.state);
    const text = `${service.name}: ${label}, ${registrationText(service)}`;
    return h("a", { key: serviceId(service), class: `cell ${tone}`, href: format([], { focus: serviceId(service), hops: 1 }), title: text, "aria-label": text, tabindex: severity(service.state) > 1 ? null : "-1" }, severity(service.state) > 0 && icon(symbol));
  }

  // The groups that a group calls, and its callers, stand out while it is pointed at.
  #markGroups(tile, isNear) {
    const [calls, callers] = [JSON.parse(tile.dataset.calls), JSON.parse(tile.dataset.callers)];
    // A tile that loses the focus because another view replaces it has no neighbours any more.
    for (const other of tile.parentElement?.querySelectorAll(":scope > .group-tile:has(.relation)") ?? []) {
      const [isCalled, isCaller] = [isNear && calls.includes(other.dataset.name), isNear && callers.includes(other.dataset.name)];
      other.classList.toggle("called", isCalled);
      other.classList.toggle("caller", isCaller);
      other.querySelector(".relation").textContent = [isCaller && "calls it", isCalled && "is called"].filter(Boolean).join(", ");
    }
  }

  #showTools(isGrouped, grouping) {
    const { go, query } = this.#context;
    const options = { "": this.#mesh.services.size > MOST_NODES ? "Automatic" : "No groups", ...GROUPINGS };
    render(this.tools, choice({ label: "Group by", value: isGrouped && query.group ? grouping : "", options, onChange: (value) => go({ group: value, open: "", focus: "", hops: "" }) }));
  }

  #replace(key, content) {
    this.#graph?.destroy();
    this.#graph = null;
    this.#graphKey = key;
    render(this.picture, content);
  }

  #drawGraph(key, options, picture) {
    if (this.#graphKey === key && this.#graph) {
      this.#graph.show(picture);
      return;
    }
    // The keyboard stays at the same service, or goes on at the centre.
    const hadFocus = this.picture.contains(document.activeElement);
    const current = options.centre ?? this.#graph?.current;
    this.#graph?.destroy();
    this.#graph = new GraphView({ ...options, current });
    this.#graphKey = key;
    this.picture.replaceChildren(this.#graph.element);
    this.#graph.show(picture);
    if (hadFocus) this.#graph.focus();
  }

  #showFigures() {
    const [mesh, status] = [this.#mesh, this.#status];
    if (!mesh || !status) return;
    const services = [...mesh.services.values()];
    const sum = (values) => values.reduce((all, value) => all + value, 0);
    const [ready, unknown, total] = ["ready", "unknown", "total"].map((key) => sum(services.map((service) => service[key] ?? 0)));
    const troubled = services.filter(({ trouble }) => trouble).length;
    const states = SERVICE_STATES.map((state) => [state, services.filter((service) => service.state === state).length]).filter(([state, number]) => number && state !== "ok");
    const drained = sum(status.controlPlanes.map((plane) => plane.drained));
    const tripped = status.guards.filter((guard) => guard.tripped);
    if (!status.counts) {
      render(this.figures, ["Services", "Ready registrations", "Tasks", "Warnings"].map((name) => figure(name, "–", { note: "not read yet" })));
      return;
    }
    const { tasks, warnings } = status.counts;
    const notes = [drained && `${count(drained)} drained`, unknown && `${count(unknown)} not read yet`].filter(Boolean);
    render(
      this.figures,
      figure("Services", count(services.length), { href: "#/services", note: states.map(([state, number]) => `${count(number)} ${serviceState(state).label.toLowerCase()}`).join(" · ") || "all ready" }),
      figure("Ready registrations", [h("span", {}, count(ready)), h("small", {}, ` of ${count(total)}`)], { note: notes.join(" · ") || "none drained" }),
      figure("Tasks", count(tasks), { href: "#/tasks", note: troubled ? `trouble in ${plural(troubled, "service")}` : "none in trouble", noteTone: troubled ? "bad" : "" }),
      figure("Warnings", count(warnings), { href: "#/warnings", tone: warnings ? "warn" : "", note: warnings ? "each with its cause" : "none" }),
      figure("Guard", tripped.length ? "Tripped" : "Within limits", { href: "#/status", tone: tripped.length ? "bad" : "", note: tripped.length ? `${plural(sum(tripped.map((guard) => guard.held)), "removal")} held` : "no removal is held" }),
    );
  }

  #showAttention() {
    const services = [...this.#mesh.services.values()].filter(({ state, trouble }) => severity(state) > 1 || trouble);
    services.sort((a, b) => severity(b.state) - severity(a.state) || b.trouble - a.trouble || a.name.localeCompare(b.name));
    const warnings = this.#warnings?.items ?? [];
    if (!services.length && !warnings.length) {
      render(this.attention, h("p", { class: "notice good" }, icon("ok", "icon ok"), "All declared services are registered and ready."));
      return;
    }
    render(
      this.attention,
      h(
        "ul",
        { class: "attention" },
        services.slice(0, MOST_LISTED).map((service) => h("li", { key: serviceId(service) }, serviceBadge(service.state), h("a", { href: serviceHref(service), title: service.name }, service.name), h("span", { class: "hint" }, attentionText(service)))),
      ),
      services.length > MOST_LISTED && h("p", { class: "more" }, h("a", { href: "#/services?sort=-state" }, `All ${count(services.length)} services that need attention`)),
      warnings.length > 0 && h("p", { class: "more" }, h("a", { href: "#/warnings" }, plural(warnings.length, "cause of warnings", "causes of warnings"))),
    );
  }
}

function attentionText(service) {
  return service.trouble ? "tasks in trouble" : registrationText(service);
}
