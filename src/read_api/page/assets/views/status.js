// The operator itself: readiness, lease, control planes, guards, clusters, manifests.

import { h, icon, render } from "../lib/dom.js";
import { ago, count, duration, timeOf } from "../lib/format.js";
import { card, facts, mono, notice } from "../lib/parts.js";
import { badge } from "../lib/states.js";
import { table } from "./task.js";

const GOOD = (label) => badge({ tone: "ok", symbol: "ok", label });
const BAD = (label) => badge({ tone: "bad", symbol: "bad", label });
const WARN = (label) => badge({ tone: "warn", symbol: "warn", label });
const ROLES = { single: "the only copy", leader: "leader", standby: "standby" };

export class Status {
  title = "Status";

  mount(root, context) {
    this.root = root;
    render(root, h("h1", {}, "Status"), h("p", { class: "loading" }, "Loading…"));
    this.end = context.sources.status.subscribe((status) => this.#show(status));
  }

  update() {}

  destroy() {
    this.end();
  }

  #show(status) {
    render(
      this.root,
      h("div", { class: "toolbar" }, h("h1", {}, "Status"), status.ready ? GOOD("Ready") : BAD("Not ready")),
      h("div", { class: "halves" }, card("Operator", { id: "operator" }, operatorFacts(status)), card("Manifests", { id: "manifests" }, manifestFacts(status.manifests))),
      card("Control planes", { id: "planes" }, controlPlanes(status.controlPlanes)),
      card("Guards", { id: "guards" }, guards(status.guards)),
      card("Clusters", { id: "clusters" }, clusters(status.clusters)),
    );
  }
}

function operatorFacts({ operator, version, startedAt, now, role, leader, epoch, pending, counts, history }) {
  return facts([
    ["Operator id", operator],
    ["Version", version],
    ["Started", h("span", {}, timeOf(startedAt), ` (${duration(Date.parse(now) - Date.parse(startedAt))} ago)`)],
    ["Lease", [ROLES[role] ?? role, role === "standby" && leader && `leader ${leader}`, epoch !== undefined && `term ${epoch}`].filter(Boolean).join(", ")],
    ["Waiting for", pending.length > 0 && h("ul", {}, pending.map((condition) => h("li", {}, condition)))],
    ["Watches", !counts ? "not read yet" : `${count(counts.tasks)} tasks, ${count(counts.services)} services, ${count(counts.identities)} identities, ${count(counts.outbounds)} outbounds`],
    ["History", h("span", {}, `${count(history.changes)} of at most ${count(history.capacity)} entries`, history.oldest && [", since ", timeOf(history.oldest)])],
  ]);
}

function manifestFacts({ documents, complete, errors, warnings, unread }) {
  const lines = (texts) => texts.length > 0 && h("ul", { class: "problems" }, texts.map((text) => h("li", { key: text }, text)));
  return facts([
    ["Documents", count(documents)],
    ["Set", complete ? GOOD("Complete") : WARN("Incomplete: nothing is withdrawn")],
    ["Errors", lines(errors) || "none"],
    ["Warnings", lines(warnings)],
    ["Unread sources", lines(unread)],
  ]);
}

function controlPlanes(planes) {
  if (!planes.length) return notice("The manifests name no control plane.");
  const circuits = { closed: GOOD, open: BAD, halfOpen: WARN };
  const words = { closed: "Closed", open: "Open: not reachable", halfOpen: "Probing" };
  return table(
    ["Name", "Type", "Version", "Supported", "Synced", "Circuit", "Registrations", "Drained", "Tasks with warnings"],
    planes.map((plane) => [
      plane.name,
      plane.type,
      plane.version ?? "unknown",
      plane.supported ? GOOD("Yes") : h("span", {}, BAD("No"), " ", plane.unsupportedReason),
      plane.synced ? GOOD("Yes") : WARN("Not yet"),
      circuits[plane.circuit]?.(words[plane.circuit]) ?? plane.circuit,
      count(plane.registrations),
      count(plane.drained),
      count(plane.tasksWithWarnings),
    ]),
  );
}

function guards(all) {
  if (!all.length) return h("p", { class: "notice good" }, icon("ok", "icon ok"), "No removal without its own evidence was asked for in the last hour.");
  return table(
    ["State", "Binding", "Control plane", "Withdrawn in the last hour", "Limit", "Held", "Released until"],
    all.map(({ tripped, binding, controlPlane, withdrawn, limit, held, releaseUntil }) => [tripped ? BAD("Tripped") : GOOD("Within limits"), binding, controlPlane, count(withdrawn), count(limit), count(held), timeOf(releaseUntil)]),
  );
}

function clusters(all) {
  if (!all.length) return notice("No binding names a cluster yet.");
  return table(
    ["Cluster", "Account", "Region", "Last full sweep"],
    all.map(({ name, arn, account, region, lastFullSweep }) => [h("span", { title: arn }, name), mono(account), region, lastFullSweep ? ago(lastFullSweep) : WARN("Not yet")]),
  );
}
