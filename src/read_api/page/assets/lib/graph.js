// Draws services and outbounds: callers to the left of what they call, or above.

import dagre from "../vendor/dagre.esm.js";
import { h, icon, render, s } from "./dom.js";
import { count, plural, readyOf } from "./format.js";
import { format, serviceHref, serviceId } from "./routes.js";
import { edgeState, serviceState } from "./states.js";

const WIDTH = 184;
const HEIGHT = 54;
// The room that dagre leaves for the label of a broken edge.
const LABEL = { width: 118, height: 20 };
const ICON = { width: 20, height: 20 };
const MARGIN = 12;
const GAP = 18;
const SMALLEST = 0.7;
// Where more edges are broken, their labels are icons: words for each would cover the drawing.
const MOST_WORDS = 6;

let graphs = 0;

/** A drawing that keeps its layout while only numbers and states change. */
export class GraphView {
  #nodes = new Map();
  #edges = [];
  #shape = null;
  #layout = null;
  #scale = null;
  #current = null;
  #mark;
  #options;

  /**
   * `options`: `label`; `centre`, the id of the node that the drawing is about; `current`, where the
   * keyboard starts; `query`, kept by links to groups;
   * `isFlexible` where the height follows the drawing.
   */
  constructor(options) {
    this.#options = options;
    graphs += 1;
    this.#mark = `arrow-${graphs}`;
    this.svg = s("svg", { class: "edges", "aria-hidden": "true" });
    this.layer = h("div", { class: "nodes" });
    this.canvas = h("div", { class: "canvas" }, this.svg, this.layer);
    this.scroller = h("div", { class: "graph-scroll", on: { pointerdown: (event) => this.#drag(event) } }, this.canvas);
    this.note = h("span", { class: "hint" });
    this.hint = h("p", { class: "graph-hint" });
    const zoom = (factor) => () => this.#zoom(factor);
    this.element = h(
      "div",
      { class: "graph", role: "group", "aria-label": options.label, on: { keydown: (event) => this.#key(event) } },
      this.scroller,
      h(
        "div",
        { class: "graph-tools" },
        this.hint,
        this.note,
        h("button", { type: "button", class: "icon-button", "aria-label": "Zoom out", title: "Zoom out", on: { click: zoom(1 / 1.25) } }, "−"),
        h("button", { type: "button", class: "icon-button", "aria-label": "Zoom in", title: "Zoom in", on: { click: zoom(1.25) } }, "+"),
        h("button", { type: "button", class: "small-button", on: { click: () => this.fit() } }, "Fit"),
      ),
    );
    this.observer = new ResizeObserver(() => this.#apply());
    this.observer.observe(this.scroller);
  }

  destroy() {
    this.observer.disconnect();
  }

  /** Shows this drawing (see `mesh.js`). */
  show({ nodes, edges }) {
    this.#nodes = new Map(nodes.map((node) => [node.id, node]));
    this.#edges = edges;
    const room = Math.round(this.scroller.clientWidth / 100) * 100 || 1000;
    const shape = JSON.stringify([room, nodes.map(({ id }) => id), edges.map(({ from, to, state }) => [from, to, state === "ok"])]);
    const isNew = shape !== this.#shape;
    if (isNew) {
      this.#shape = shape;
      this.#layout = layout(nodes, edges, room);
    }
    if (!this.#nodes.has(this.#current)) this.#current = [this.#options.current, this.#options.centre, nodes[0]?.id].find((id) => this.#nodes.has(id));
    this.#draw();
    if (isNew) this.#reveal();
  }

  /** The node that Tab and the arrow keys start from. */
  get current() {
    return this.#current;
  }

  focus() {
    this.#link(this.#current)?.focus({ preventScroll: true });
  }

  fit() {
    this.#scale = null;
    this.#apply();
    this.#reveal();
  }

  // A drawing that is larger than its window shows its centre first, or else its upper left corner.
  #reveal() {
    const position = this.#layout.positions.get(this.#options.centre);
    if (!position) return;
    const scale = this.#effectiveScale();
    const { scroller } = this;
    scroller.scrollTo((position.x + WIDTH / 2) * scale - scroller.clientWidth / 2, (position.y + HEIGHT / 2) * scale - scroller.clientHeight / 2);
  }

  #zoom(factor) {
    this.#scale = Math.min(2, Math.max(0.25, this.#effectiveScale() * factor));
    this.#apply();
  }

  #effectiveScale() {
    const { clientWidth, clientHeight } = this.scroller;
    if (this.#scale || !this.#layout || !clientWidth) return this.#scale ?? 1;
    const { width, height } = this.#layout;
    return Math.max(SMALLEST, Math.min(1, clientWidth / width, this.#options.isFlexible ? 1 : clientHeight / height));
  }

  #apply() {
    if (!this.#layout) return;
    const { width, height } = this.#layout;
    const scale = this.#effectiveScale();
    this.canvas.style.width = `${width * scale}px`;
    this.canvas.style.height = `${height * scale}px`;
    this.layer.style.transform = `scale(${scale})`;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    // A small drawing stands in the middle.
    this.canvas.style.marginInline = width * scale < this.scroller.clientWidth ? "auto" : "0";
    this.note.textContent = scale < 1 ? `${Math.round(scale * 100)} %` : "";
  }

  #draw() {
    const { direction, positions, paths, caption } = this.#layout;
    render(
      this.layer,
      caption && h("p", { class: "graph-caption", style: at(caption) }, caption.text),
      this.#edges.map((edge) => this.#edgeLabel(edge)),
      [...this.#nodes.values()].map((node) => this.#node(node, positions.get(node.id))),
    );
    render(
      this.svg,
      s("defs", {}, ["ok", "warn", "bad", "quiet"].map((tone) => arrow(`${this.#mark}-${tone}`, tone))),
      this.#edges.map((edge) => {
        const { tone } = edgeState(edge.state);
        return s("path", {
          class: `edge ${tone}${edge.state === "ok" ? "" : " broken"}`,
          d: paths.get(`${edge.from}\n${edge.to}`),
          "marker-end": `url(#${this.#mark}-${tone})`,
          "data-from": edge.from,
          "data-to": edge.to,
        });
      }),
    );
    this.hint.textContent = direction === "LR" ? "Callers on the left" : "Callers on top";
    this.#apply();
    this.#highlight(this.layer.querySelector(":focus, :hover")?.closest(".node")?.dataset.id);
  }

  #edgeLabel(edge) {
    const { label, tone, symbol } = edgeState(edge.state);
    const place = this.#layout.labels.get(`${edge.from}\n${edge.to}`);
    if (!label || !place) return null;
    const words = hasWords(this.#edges);
    return h("span", { class: `edge-label ${tone}${words ? "" : " short"}`, style: at(place), title: label }, icon(symbol), words && label);
  }

  #node(node, position) {
    const isService = node.kind === "service";
    const { tone, symbol, label } = isService ? serviceState(node.service.state) : { tone: "group", symbol: "group", label: "Group" };
    const name = isService ? node.service.name : node.name;
    const calls = this.#edges.filter(({ from }) => from === node.id).length;
    const callers = this.#edges.filter(({ to }) => to === node.id).length;
    const numbers = isService ? registrationText(node.service) : plural(node.members.size, "service");
    const href = isService ? serviceHref(node.service) : format([], { ...this.#options.query, open: node.name });
    return h(
      "div",
      {
        key: node.id,
        class: `node ${tone}${node.service?.state === "missing" || node.service?.state === "undeclared" ? " hollow" : ""}${node.id === this.#options.centre ? " centre" : ""}`,
        "data-id": node.id,
        style: { transform: `translate(${position.x}px, ${position.y}px)`, width: `${WIDTH}px`, height: `${HEIGHT}px` },
        on: {
          mouseenter: () => this.#highlight(node.id),
          mouseleave: () => this.#highlight(null),
          focusin: () => this.#enter(node.id),
          focusout: () => this.#highlight(null),
        },
      },
      h(
        "a",
        {
          href,
          class: "node-link",
          tabindex: node.id === this.#current ? "0" : "-1",
          title: name,
          "aria-label": `${name}: ${label}, ${numbers}, calls ${count(calls)}, called by ${count(callers)}`,
          "aria-current": node.id === this.#options.centre ? "true" : null,
        },
        icon(symbol, "node-icon"),
        h("span", { class: "node-name" }, name),
        h("span", { class: "node-numbers" }, isService ? [nodeNumbers(node.service)] : [numbers]),
        isService && meter(node.service.ready, node.service.total),
      ),
      isService &&
        h(
          "a",
          { class: "node-focus", href: format([], { focus: serviceId(node.service), hops: 1 }), tabindex: "-1", title: "Show its neighbours (n)", "aria-label": `Neighbours of ${name}` },
          icon("neighbours"),
        ),
    );
  }

  #enter(id) {
    if (id !== this.#current) {
      this.#link(this.#current)?.setAttribute("tabindex", "-1");
      this.#link(id)?.setAttribute("tabindex", "0");
      this.#current = id;
    }
    this.#highlight(id);
  }

  #link(id) {
    return this.layer.querySelector(`.node[data-id="${CSS.escape(id ?? "")}"] > .node-link`);
  }

  // Edges and neighbours of one node stand out; the rest steps back.
  #highlight(id) {
    const near = new Set(id ? [id] : []);
    for (const path of this.svg.querySelectorAll(".edge")) {
      const isNear = id && (path.dataset.from === id || path.dataset.to === id);
      path.classList.toggle("near", Boolean(isNear));
      if (isNear) near.add(path.dataset.from).add(path.dataset.to);
    }
    this.canvas.classList.toggle("has-near", near.size > 1);
    for (const node of this.layer.querySelectorAll(".node")) node.classList.toggle("near", near.has(node.dataset.id));
  }

  #key(event) {
    const node = event.target.closest?.(".node");
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") {
      node.querySelector(".node-focus")?.click();
      event.preventDefault();
      return;
    }
    const next = this.#nextNode(node.dataset.id, event.key);
    if (!next) return;
    event.preventDefault();
    this.#enter(next);
    const link = this.#link(next);
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  // The keys along the edges follow an edge where there is one; otherwise the nearest node in that direction is next.
  #nextNode(id, key) {
    const { positions } = this.#layout;
    const own = positions.get(id);
    const [dx, dy] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key] ?? [0, 0];
    if (dx === 0 && dy === 0) return null;
    const [forth, back] = this.#layout.direction === "LR" ? ["ArrowRight", "ArrowLeft"] : ["ArrowDown", "ArrowUp"];
    const linked = this.#edges.flatMap(({ from, to }) => {
      if (key === forth && from === id) return [to];
      return key === back && to === id ? [from] : [];
    });
    const nearest = (ids) => {
      const ranked = ids.filter((other) => other !== id && positions.has(other)).map((other) => {
        const { x, y } = positions.get(other);
        const [along, across] = [(x - own.x) * dx + (y - own.y) * dy, Math.abs((x - own.x) * dy) + Math.abs((y - own.y) * dx)];
        return { other, along, cost: along + 3 * across };
      });
      return ranked.filter(({ along }) => along > 1 || ids === linked).sort((a, b) => a.cost - b.cost)[0]?.other;
    };
    return nearest(linked) ?? nearest([...positions.keys()]);
  }

  #drag(event) {
    if (event.button !== 0 || event.pointerType === "touch" || event.target.closest(".node")) return;
    const { scroller } = this;
    const start = { x: event.clientX + scroller.scrollLeft, y: event.clientY + scroller.scrollTop };
    const move = ({ clientX, clientY }) => scroller.scrollTo(start.x - clientX, start.y - clientY);
    const end = () => {
      removeEventListener("pointermove", move);
      scroller.classList.remove("dragging");
    };
    scroller.classList.add("dragging");
    addEventListener("pointermove", move);
    addEventListener("pointerup", end, { once: true });
    addEventListener("pointercancel", end, { once: true });
  }
}

const hasWords = (edges) => edges.filter(({ state }) => edgeState(state).label).length <= MOST_WORDS;

const at = ({ x, y }) => ({ transform: `translate(${x}px, ${y}px)` });

function arrow(id, tone) {
  return s(
    "marker",
    { id, viewBox: "0 0 8 8", refX: "7", refY: "4", markerUnits: "userSpaceOnUse", markerWidth: "10", markerHeight: "10", orient: "auto-start-reverse", class: `arrow ${tone}` },
    s("path", { d: "M0 0.5 8 4 0 7.5Z" }),
  );
}

/** `3 of 4 ready`, for people who listen. */
export function registrationText({ state, total, ready, unknown, others }) {
  if (state === "missing") return "not registered";
  if (state === "notRead") return "not read yet";
  if (state === "undeclared" && !total) return others ? `not declared, ${count(others)} by others` : "not declared";
  return `${count(ready)} of ${count(total)} ready${unknown ? `, ${count(unknown)} not read yet` : ""}`;
}

function nodeNumbers({ state, total, ready, unknown, others, trouble }) {
  if (state === "missing") return "not registered";
  if (state === "notRead") return "not read yet";
  const parts = state === "undeclared" ? ["not declared"] : [];
  if (total || state !== "undeclared") parts.push(`${readyOf({ ready, unknown, total })} ready`);
  else if (others) parts.push(`${count(others)} by others`);
  // Not the number: a rejected task with a warning counts twice.
  if (trouble) parts.push("trouble");
  return parts.join(" · ");
}

/** Ready registrations as a part of all. */
export function meter(ready, total) {
  const share = total ? (100 * ready) / total : 0;
  return h("span", { class: "meter", "aria-hidden": "true" }, h("span", { style: { width: `${share}%` } }));
}

/**
 * The layout that fits best into this width: callers on the left or, where that would be small, on top.
 * The first is the habit of readers, so it has a bonus.
 */
function layout(nodes, edges, room) {
  const across = arrange(nodes, edges, "LR");
  if (across.width <= room * 1.2) return across;
  const down = arrange(nodes, edges, "TB");
  return down.width < across.width ? down : across;
}

function arrange(nodes, edges, direction) {
  const linked = new Set(edges.flatMap(({ from, to }) => [from, to]));
  const graph = new dagre.graphlib.Graph();
  const spaces = direction === "LR" ? { nodesep: 16, ranksep: 52 } : { nodesep: 20, ranksep: 44 };
  graph.setGraph({ rankdir: direction, ...spaces, edgesep: 12, marginx: MARGIN, marginy: MARGIN, ranker: nodes.length > 40 ? "longest-path" : "network-simplex" });
  for (const { id } of nodes) if (linked.has(id)) graph.setNode(id, { width: WIDTH, height: HEIGHT });
  const label = hasWords(edges) ? LABEL : ICON;
  for (const { from, to, state } of edges) graph.setEdge(from, to, edgeState(state).label ? { ...label, labelpos: "c" } : {});
  const found = { direction, positions: new Map(), paths: new Map(), labels: new Map(), width: 0, height: 0, caption: null };
  if (linked.size) {
    dagre.layout(graph);
    Object.assign(found, { width: graph.graph().width, height: graph.graph().height });
  }
  for (const id of graph.nodes()) {
    const { x, y } = graph.node(id);
    found.positions.set(id, { x: x - WIDTH / 2, y: y - HEIGHT / 2 });
  }
  for (const edge of graph.edges()) {
    const { points, x, y } = graph.edge(edge);
    const key = `${edge.v}\n${edge.w}`;
    found.paths.set(key, smooth(anchored(points, graph.node(edge.v), graph.node(edge.w), direction)));
    if (x !== undefined) found.labels.set(key, { x: x - label.width / 2, y: y - label.height / 2 });
  }
  placeRest(nodes.filter(({ id }) => !linked.has(id)), found);
  return found;
}

// An edge leaves at the middle of one side and arrives at that of the opposite side: at a corner or above, its arrow would
// cover the next service. An edge that leads back stays as it is.
function anchored(points, from, to, direction) {
  // To the next rank, the way is straight.
  const inner = points.length === 3 ? [] : points.slice(1, -1);
  if (direction === "LR" && from.x < to.x) return [{ x: from.x + WIDTH / 2, y: from.y }, ...inner, { x: to.x - WIDTH / 2, y: to.y }];
  if (direction === "TB" && from.y < to.y) return [{ x: from.x, y: from.y + HEIGHT / 2 }, ...inner, { x: to.x, y: to.y - HEIGHT / 2 }];
  return points;
}

// Services without edges stand in rows below the graph.
function placeRest(rest, found) {
  if (!rest.length) return;
  const columns = Math.max(1, Math.min(rest.length, Math.max(4, Math.floor(found.width / (WIDTH + GAP)))));
  let top = found.height;
  if (top) {
    found.caption = { x: MARGIN, y: top + 6, text: "Neither callers nor outbounds" };
    top += 32;
  } else {
    top = MARGIN;
  }
  rest.forEach(({ id }, index) => {
    const [row, column] = [Math.floor(index / columns), index % columns];
    found.positions.set(id, { x: MARGIN + column * (WIDTH + GAP), y: top + row * (HEIGHT + GAP) });
  });
  found.width = Math.max(found.width, 2 * MARGIN + columns * (WIDTH + GAP) - GAP);
  found.height = top + Math.ceil(rest.length / columns) * (HEIGHT + GAP) - GAP + MARGIN;
}

// A curve through the middles of the segments.
function smooth(points) {
  const [first, ...rest] = points;
  const last = rest.pop() ?? first;
  let path = `M${round(first)}`;
  rest.forEach((point, index) => {
    const next = rest[index + 1] ?? last;
    const end = index === rest.length - 1 ? last : { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
    path += ` Q${round(point)} ${round(end)}`;
  });
  return rest.length ? path : `${path} L${round(last)}`;
}

const round = ({ x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
