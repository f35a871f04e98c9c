// The topology as a graph: groups, neighbourhoods and what is drawn of them. Plain values, no elements.

import { serviceId } from "./routes.js";
import { edgeSeverity, severity } from "./states.js";

/** As many nodes as one drawing shows before services are grouped. */
export const MOST_NODES = 60;

// A neighbourhood has more edges for each node.
const MOST_NEIGHBOURS = 36;

export const GROUPINGS = {
  prefix: "Name prefix",
  component: "Connected services",
  binding: "Binding",
  mesh: "Control plane and mesh",
};

/** The services and edges of `/topology`, linked by id. */
export class Mesh {
  constructor({ services, edges, truncated }) {
    this.isCut = Boolean(truncated);
    this.services = new Map(services.map((service) => [serviceId(service), service]));
    this.calls = new Map();
    this.callers = new Map();
    this.edges = [];
    const ids = [...this.services.keys()];
    // Edges name services by their position.
    for (const { from, to, state } of edges) {
      if (ids[from] && ids[to] && from !== to) this.#link({ from: ids[from], to: ids[to], state });
    }
  }

  #link(edge) {
    if (this.calls.get(edge.from)?.has(edge.to)) return;
    this.edges.push(edge);
    for (const [map, one, other] of [[this.calls, edge.from, edge.to], [this.callers, edge.to, edge.from]]) {
      if (!map.has(one)) map.set(one, new Set());
      map.get(one).add(other);
    }
  }

  neighbours(id) {
    return [...(this.calls.get(id) ?? []), ...(this.callers.get(id) ?? [])];
  }

  /** The ids within this many hops, with their distance. */
  around(id, hops) {
    const distance = new Map([[id, 0]]);
    let edge = [id];
    for (let hop = 1; hop <= hops && edge.length > 0; hop += 1) {
      const next = edge.flatMap((one) => this.neighbours(one)).filter((other) => !distance.has(other));
      next.forEach((other) => distance.set(other, hop));
      edge = [...new Set(next)];
    }
    return distance;
  }

  /** A label of the group of each service. */
  groups(grouping) {
    const labels = grouping === "component" ? this.#components() : new Map();
    if (grouping !== "component") for (const [id, service] of this.services) labels.set(id, label(grouping, service));
    return grouping === "prefix" ? joinSingles(labels) : labels;
  }

  #components() {
    const labels = new Map();
    for (const start of this.services.keys()) {
      if (labels.has(start)) continue;
      const members = [...this.around(start, Infinity).keys()];
      const { name } = this.services.get(mostCalled(members, this.callers));
      const text = members.length === 1 ? "Not connected" : `around ${name}`;
      members.forEach((id) => labels.set(id, text));
    }
    return labels;
  }
}

function mostCalled(ids, callers) {
  return ids.reduce((best, id) => ((callers.get(id)?.size ?? 0) > (callers.get(best)?.size ?? 0) ? id : best));
}

function label(grouping, service) {
  switch (grouping) {
    case "binding":
      return service.binding ?? "No binding";
    case "mesh":
      return [service.controlPlane, service.mesh].filter(Boolean).join(" / ");
    default:
      return /^[^-_./\s]+/.exec(service.name)?.[0] ?? service.name;
  }
}

// A group of one is no group.
function joinSingles(labels) {
  const sizes = new Map();
  for (const text of labels.values()) sizes.set(text, (sizes.get(text) ?? 0) + 1);
  for (const [id, text] of labels) if (sizes.get(text) === 1) labels.set(id, "Others");
  return labels;
}

/** Groups with their members, the most urgent ones first, and the groups that they call. */
export function summarise(mesh, grouping) {
  const labels = mesh.groups(grouping);
  const groups = new Map();
  for (const [id, service] of mesh.services) {
    const name = labels.get(id);
    if (!groups.has(name)) groups.set(name, { name, members: [], ready: 0, unknown: 0, total: 0, calls: new Set(), callers: new Set() });
    const group = groups.get(name);
    group.members.push(service);
    group.ready += service.ready;
    group.unknown += service.unknown ?? 0;
    group.total += service.total;
  }
  for (const { from, to } of mesh.edges) {
    const [one, other] = [labels.get(from), labels.get(to)];
    if (one === other) continue;
    groups.get(one).calls.add(other);
    groups.get(other).callers.add(one);
  }
  for (const group of groups.values()) {
    group.members.sort((a, b) => severity(b.state) - severity(a.state) || a.name.localeCompare(b.name));
    group.severity = Math.max(...group.members.map(({ state }) => (severity(state) > 1 ? severity(state) : 0)));
  }
  return [...groups.values()].sort((a, b) => b.severity - a.severity || a.name.localeCompare(b.name));
}

/** A drawing of these services with all edges between them: `{ nodes, edges }`, as `GraphView` shows it. */
export function drawing(mesh, shown) {
  const edges = mesh.edges.filter(({ from, to }) => shown.has(from) && shown.has(to));
  return { nodes: [...shown].map((id) => serviceNode(mesh, id)), edges };
}

/** A group's services, between the groups that call them and those that they call. */
export function groupDrawing(mesh, members, labels) {
  return withGroups(mesh, members, mesh.edges, labels);
}

/**
 * The neighbourhood of a service: the edges that lead towards it. Where it is too large, its outer hop is drawn by group.
 */
export function neighbourhood(mesh, id, hops) {
  const distance = mesh.around(id, hops);
  const edges = mesh.edges.filter(({ from, to }) => Math.abs(distance.get(from) - distance.get(to)) === 1);
  if (distance.size <= MOST_NEIGHBOURS || hops === 1) return { nodes: [...distance.keys()].map((one) => serviceNode(mesh, one)), edges };
  const inner = new Set([...distance].filter(([, hop]) => hop < hops).map(([one]) => one));
  return withGroups(mesh, inner, edges, mesh.groups("prefix"));
}

function serviceNode(mesh, id) {
  return { id, kind: "service", service: mesh.services.get(id) };
}

// Services that are not shown are drawn by group: once as callers and once as called ones, so that no edge leads back.
function withGroups(mesh, shown, edges, labels) {
  const nodes = new Map([...shown].map((id) => [id, serviceNode(mesh, id)]));
  const joined = new Map();
  const nodeOf = (id, side) => {
    if (shown.has(id)) return id;
    const [key, name] = [`${side}:${labels.get(id)}`, labels.get(id)];
    if (!nodes.has(key)) nodes.set(key, { id: key, kind: "group", name, members: new Set() });
    nodes.get(key).members.add(id);
    return key;
  };
  for (const { from, to, state } of edges) {
    if (!shown.has(from) && !shown.has(to)) continue;
    const [one, other] = [nodeOf(from, "callers"), nodeOf(to, "called")];
    const edge = joined.get(`${one}\n${other}`) ?? { from: one, to: other, state: "ok" };
    if (edgeSeverity(state) > edgeSeverity(edge.state)) edge.state = state;
    joined.set(`${one}\n${other}`, edge);
  }
  return { nodes: [...nodes.values()], edges: [...joined.values()] };
}
