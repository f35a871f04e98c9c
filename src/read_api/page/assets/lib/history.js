// The history of one task or service: its changes and its warnings, with those that are over.

import { get } from "./api.js";
import { h, render } from "./dom.js";
import { card, changeList, segments } from "./parts.js";
import { format } from "./routes.js";

const MOST = 100;
const SHOWN = { "": "All", changes: "Changes", warnings: "Warnings" };
const ENTRIES = { "": "change or warning", changes: "change", warnings: "warning" };

const isWarning = ({ kind }) => kind === "warning" || kind === "resolved";

export class HistoryCard {
  #entries = null;

  /** `path` and `query()` are the view's address; `withTask` is whether entries name their tasks. */
  constructor({ path, query, withTask = true }) {
    Object.assign(this, { path, query, withTask });
    this.tools = h("div", {});
    this.list = h("div", { class: "history" });
    this.element = card("History", { tools: this.tools }, this.list);
    this.update();
  }

  /** The newest entries that match the API's parameters and, where there is one, a test. */
  static async load(params, signal, matches = () => true) {
    const { items } = await get("changes", { params: { ...params, warnings: true, limit: 2 * MOST }, signal });
    return items.filter(matches).slice(0, MOST);
  }

  show(entries) {
    this.#entries = entries;
    this.update();
  }

  /** Shows what the address chooses. */
  update() {
    const query = this.query();
    const chosen = query.history in SHOWN ? query.history : "";
    render(this.tools, segments({ label: "Entries", value: chosen, options: SHOWN, hrefOf: (history) => format(this.path, { ...query, history }) }));
    if (!this.#entries) return;
    const entries = this.#entries.filter((entry) => !chosen || isWarning(entry) === (chosen === "warnings"));
    render(this.list, changeList(entries, { withTask: this.withTask, what: ENTRIES[chosen] }));
  }
}
