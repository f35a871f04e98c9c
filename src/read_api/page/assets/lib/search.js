// The search of the header: services and tasks by name, from anywhere.

import { list } from "./api.js";
import { announce, h, icon, render } from "./dom.js";
import { plural } from "./format.js";
import { format, serviceHref, serviceId, taskHref } from "./routes.js";
import { matches } from "./parts.js";
import { serviceState, taskState } from "./states.js";

const MOST_SERVICES = 8;
const MOST_TASKS = 6;

export class Search {
  #found = [];
  #active = -1;
  // Whether a person has moved the choice.
  #isMoved = false;
  #isLooking = false;
  #tasks = [];
  #timer = null;
  #abort = null;
  #end = null;
  #sources;

  constructor(container, sources) {
    this.#sources = sources;
    this.input = h("input", {
      type: "search",
      role: "combobox",
      placeholder: "Search services and tasks (/)",
      "aria-label": "Search services and tasks",
      "aria-expanded": "false",
      "aria-controls": "search-results",
      "aria-autocomplete": "list",
      autocomplete: "off",
      spellcheck: "false",
      on: { input: () => this.#changed(), keydown: (event) => this.#key(event), focus: () => this.#open(), blur: () => this.#close() },
    });
    this.results = h("ul", { id: "search-results", role: "listbox", "aria-label": "Results", hidden: true });
    // A click must not take the focus before it is handled.
    this.results.addEventListener("mousedown", (event) => event.preventDefault());
    container.append(icon("search"), this.input, this.results);
  }

  focus() {
    this.input.focus();
    this.input.select();
  }

  #open() {
    // The mesh may arrive after the text, and change while the results are open.
    this.#end ??= this.#sources.mesh.subscribe(() => this.#list());
    if (this.input.value.trim()) this.#changed();
  }

  #close() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#end?.();
    this.#end = null;
    this.#tasks = [];
    this.#isMoved = this.#isLooking = false;
    this.#active = -1;
    this.#show([]);
  }

  #changed() {
    clearTimeout(this.#timer);
    this.#abort?.abort();
    const text = this.input.value.trim();
    this.#tasks = [];
    this.#isMoved = false;
    this.#isLooking = text.length >= 2;
    this.#list();
    if (!this.#isLooking) return;
    const abort = (this.#abort = new AbortController());
    this.#timer = setTimeout(async () => {
      try {
        const { items } = await list("tasks", { params: { q: text, all: true }, signal: abort.signal, most: MOST_TASKS });
        this.#tasks = items.map((task) => ({ id: task.name, kind: "Task", mark: taskState(task.state), name: task.name, note: task.service, href: taskHref(task.name) }));
        this.#isLooking = false;
        this.#list();
        announce(plural(this.#found.length, "result"));
      } catch {
        if (abort.signal.aborted) return;
        // The services are there; the stream's state says whether the operator answers.
        this.#isLooking = false;
        this.#list();
      }
    }, 180);
  }

  /** Shows what is found so far. What was chosen stays chosen; at first, it is the first. */
  #list() {
    const chosen = this.#found[this.#active];
    const found = !this.input.value.trim() ? [] : [...this.#services(this.input.value.trim()), ...this.#tasks];
    const index = this.#isMoved && chosen ? found.findIndex(({ id, kind }) => id === chosen.id && kind === chosen.kind) : -1;
    this.#active = index >= 0 ? index : found.length ? 0 : -1;
    this.#show(found);
  }

  #services(text) {
    const mesh = this.#sources.mesh.value;
    if (!text || !mesh) return [];
    const isOverview = /^#?\/?(\?|$)/.test(location.hash);
    const rank = ({ name }) => (name.toLowerCase().startsWith(text.toLowerCase()) ? 0 : 1);
    const found = [...mesh.services.values()].filter(({ name }) => matches(text, name));
    found.sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
    return found.slice(0, MOST_SERVICES).map((service) => ({
      id: serviceId(service),
      kind: "Service",
      mark: serviceState(service.state),
      name: service.name,
      note: [service.controlPlane, service.mesh].filter(Boolean).join(" / "),
      // In the overview, a search brings the service into focus there.
      href: isOverview ? format([], { focus: serviceId(service), hops: 1 }) : serviceHref(service),
    }));
  }

  #show(found) {
    this.#found = found;
    this.#active = Math.min(this.#active, found.length - 1);
    const text = this.input.value.trim();
    const isOpen = document.activeElement === this.input && text !== "";
    this.results.hidden = !isOpen;
    this.input.setAttribute("aria-expanded", String(isOpen));
    this.input.setAttribute("aria-activedescendant", isOpen && this.#active >= 0 ? `result-${this.#active}` : "");
    render(
      this.results,
      found.length === 0 && h("li", { class: "none" }, this.#isLooking || !this.#sources.mesh.value ? "Looking…" : "Nothing of this name"),
      found.map(({ kind, mark, name, note, href, id }, index) =>
        h(
          "li",
          { key: `${kind} ${id}`, id: `result-${index}`, role: "option", "aria-selected": String(index === this.#active), on: { click: () => this.#go(href) } },
          icon(mark.symbol, `icon ${mark.tone}`),
          h("span", { class: kind === "Task" ? "name mono" : "name", title: name }, name),
          h("span", { class: "hint" }, `${kind} · ${mark.label}${note ? ` · ${note}` : ""}`),
        ),
      ),
    );
  }

  #go(href) {
    this.input.value = "";
    this.input.blur();
    location.hash = href;
  }

  #key(event) {
    if (event.key === "Escape") {
      this.input.value = "";
      this.input.blur();
    } else if (event.key === "Enter") {
      const text = this.input.value.trim();
      if (this.#found[this.#active]) this.#go(this.#found[this.#active].href);
      else if (text) this.#go(format(["tasks"], { q: text }));
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      this.#isMoved = true;
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.#active = this.#found.length ? (this.#active + step + this.#found.length) % this.#found.length : -1;
      this.#show(this.#found);
      document.getElementById(`result-${this.#active}`)?.scrollIntoView({ block: "nearest" });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
