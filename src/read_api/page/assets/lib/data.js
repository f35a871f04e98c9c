// Data that several views share, kept current while a view shows it.

import { get, list } from "./api.js";
import { Refresher } from "./live.js";
import { Mesh } from "./mesh.js";

/** A value that is loaded while it has listeners, and again when the stream says that it may have changed. */
class Shared extends EventTarget {
  value = null;
  #load;
  #refresher = null;
  #listeners = 0;

  constructor(live, load, types) {
    super();
    this.#load = load;
    for (const type of types) live.addEventListener(type, () => this.renew());
    live.addEventListener("begin", () => this.renew());
    live.addEventListener("reset", () => this.#refresher?.now());
  }

  /** Calls `listener` with each value, the known one at once; returns the function that ends it. */
  subscribe(listener) {
    const call = () => listener(this.value);
    this.addEventListener("value", call);
    this.#listeners += 1;
    if (this.value) call();
    if (this.#refresher) this.#refresher.soon();
    else {
      this.#refresher = new Refresher(async (signal) => this.set(await this.#load(signal)));
      this.#refresher.now();
    }
    return () => {
      this.removeEventListener("value", call);
      this.#listeners -= 1;
      if (this.#listeners > 0) return;
      this.#refresher.stop();
      this.#refresher = null;
    };
  }

  /** Loads again, if a view shows it. */
  renew() {
    this.#refresher?.soon();
  }

  set(value) {
    this.value = value;
    this.dispatchEvent(new Event("value"));
  }
}

/** All tasks but ignored ones: loaded page by page, then task by task as they change. */
class Tasks extends EventTarget {
  // More changes at a time than this are one load of all.
  static #MOST_SINGLE = 25;
  tasks = new Map();
  total = null;
  isComplete = false;
  #changed = new Set();
  #needsAll = true;
  #refresher = null;

  constructor(live) {
    super();
    live.addEventListener("tasks", ({ detail }) => this.#note(detail ?? { more: true }));
    live.addEventListener("begin", () => this.#note({ more: true }));
    live.addEventListener("reset", () => {
      this.#needsAll = true;
      this.#refresher?.now();
    });
  }

  subscribe(listener) {
    this.addEventListener("value", listener);
    this.#needsAll = true;
    this.#refresher = new Refresher((signal) => this.#load(signal));
    if (this.isComplete) listener();
    this.#refresher.now();
    return () => {
      this.removeEventListener("value", listener);
      this.#refresher.stop();
      this.#refresher = null;
    };
  }

  #note({ tasks = [], more }) {
    if (!this.#refresher) return;
    tasks.forEach((name) => this.#changed.add(name));
    this.#needsAll ||= Boolean(more);
    this.#refresher.soon();
  }

  async #load(signal) {
    const names = [...this.#changed];
    this.#changed.clear();
    try {
      if (this.#needsAll || names.length > Tasks.#MOST_SINGLE) await this.#loadAll(signal);
      else await Promise.all(names.map((name) => this.#loadOne(name, signal)));
    } catch (error) {
      this.#needsAll = true;
      throw error;
    }
    this.#emit();
  }

  async #loadAll(signal) {
    const isFirst = !this.isComplete;
    const onPage = (items, total) => {
      if (!isFirst) return;
      // The first pages are shown while the others are on their way.
      this.tasks = new Map(items.map((task) => [task.name, task]));
      this.total = total;
      this.#emit();
    };
    // What is noted meanwhile asks for another load.
    this.#needsAll = false;
    const { items } = await list("tasks", { signal, onPage });
    this.tasks = new Map(items.map((task) => [task.name, task]));
    this.total = items.length;
    this.isComplete = true;
  }

  async #loadOne(name, signal) {
    const { items } = await list("tasks", { params: { q: name }, signal, most: 2 });
    const found = items.find((task) => task.name === name);
    if (found) this.tasks.set(name, found);
    else this.tasks.delete(name);
    this.total = this.tasks.size;
  }

  #emit() {
    this.dispatchEvent(new Event("value"));
  }
}

/** The sources of all views. */
export function sources(live) {
  const status = new Shared(live, (signal) => get("status", { signal }), []);
  // The stream carries the status itself, at its beginning and with each difference.
  live.addEventListener("status", ({ detail }) => {
    if (!detail) return;
    // Lists are of a snapshot, which may be older than the event of a warning.
    if (detail.counts?.warnings !== status.value?.counts?.warnings) warnings.renew();
    status.set(detail);
  });
  const warnings = new Shared(live, (signal) => list("warnings", { signal }), ["warning", "resolved", "tasks"]);
  return {
    status,
    warnings,
    mesh: new Shared(live, async (signal) => new Mesh(await get("topology", { signal })), ["tasks", "change"]),
    services: new Shared(live, async (signal) => (await list("services", { signal })).items, ["tasks", "change"]),
    recent: new Shared(live, (signal) => list("changes", { signal, most: 12 }), ["change"]),
    tasks: new Tasks(live),
  };
}
