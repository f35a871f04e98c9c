// The feed of changes, newest first.

import { get } from "../lib/api.js";
import { announce, h, render } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { Refresher } from "../lib/live.js";
import { changeItem, choice, filterBox, matches, notice } from "../lib/parts.js";

const PAGE = 100;
const KINDS = { "": "All", create: "create", update: "update", drain: "drain", remove: "remove", adopt: "adopt", protect: "protect", unprotect: "unprotect", data_plane_token: "tokens" };
const SHOWN = { "": "Changes", true: "Changes and warnings" };
const SINCE = { "": "All recorded", "10m": "10 minutes", "1h": "1 hour", "12h": "12 hours", "24h": "24 hours" };

export class Changes {
  title = "Changes";
  #context;
  #items = [];
  #next = null;
  #total = 0;
  #waiting = [];
  #known = null;

  mount(root, context) {
    this.#context = context;
    const { go, query } = context;
    this.choices = h("div", { class: "choices" });
    this.shown = h("span", { class: "hint shown" });
    this.fresh = h("div", { class: "fresh" });
    this.list = h("ol", { class: "changes full", "aria-label": "Changes" });
    this.foot = h("div", { class: "foot" });
    root.append(
      h("div", { class: "toolbar" }, h("h1", {}, "Changes"), filterBox({ value: query.q, label: "Filter changes", onInput: (q) => go({ q }, { replace: true }) }), this.choices, this.shown),
      this.fresh,
      h("section", { class: "card" }, this.list, this.foot),
    );
    this.refresher = new Refresher((signal) => this.#load(signal));
    this.newer = new Refresher((signal) => this.#loadNewer(signal));
    this.end = context.onChange(({ change, warning, isReset }) => {
      if (isReset) this.refresher.now();
      // An event about a warning is no entry of the list.
      else if (warning && this.#params().warnings) this.newer.soon();
      else if (change) this.#add(change);
    });
    this.update();
  }

  update() {
    const { go, query } = this.#context;
    render(
      this.choices,
      choice({ label: "Kind", value: query.kind ?? "", options: KINDS, onChange: (kind) => go({ kind }) }),
      choice({ label: "Show", value: query.warnings ? "true" : "", options: SHOWN, onChange: (warnings) => go({ warnings }) }),
      choice({ label: "Since", value: query.since ?? "", options: SINCE, onChange: (since) => go({ since }) }),
    );
    clearTimeout(this.typing);
    // The server filters, so wait until typing pauses.
    this.typing = setTimeout(() => this.refresher.now(), this.#known === null ? 0 : 200);
  }

  destroy() {
    clearTimeout(this.typing);
    this.refresher.stop();
    this.newer.stop();
    this.end();
  }

  #params() {
    const { q, kind, since, warnings } = this.#context.query;
    return { q, kind, since, warnings: warnings && "true" };
  }

  async #load(signal) {
    const params = this.#params();
    const page = await get("changes", { params: { ...params, limit: PAGE }, signal });
    this.#known = JSON.stringify(params);
    this.#items = page.items;
    this.#next = page.continue;
    this.#total = page.total;
    this.#waiting = [];
    this.#show();
    announce(this.shown.textContent);
  }

  // Adds what the newest page has and the list has not.
  async #loadNewer(signal) {
    if (this.#known === null) return;
    const params = this.#params();
    const { items, total } = await get("changes", { params: { ...params, limit: PAGE }, signal });
    // The reader has chosen others meanwhile.
    if (JSON.stringify(params) !== this.#known) return;
    const known = new Set([...this.#items, ...this.#waiting].map(({ id }) => id));
    const fresh = items.filter(({ id }) => !known.has(id));
    if (fresh.length === PAGE) {
      this.refresher.now();
      return;
    }
    fresh.reverse().forEach((entry) => this.#place(entry));
    // A change of the stream may be here before a warning that is older.
    for (const entries of [this.#items, this.#waiting]) entries.sort((a, b) => b.id - a.id);
    this.#total = total;
    this.#show();
  }

  async #older() {
    const page = await get("changes", { params: { ...this.#params(), limit: PAGE, continue: this.#next } });
    this.#items.push(...page.items);
    this.#next = page.continue;
    this.#total = page.total + this.#waiting.length;
    this.#show();
  }

  #add(change) {
    const { q = "", kind } = this.#params();
    const isWanted = (!kind || change.kind === kind || change.object === kind) && matches(q, change.name, change.service, change.ecsService, change.workload, change.task, change.role);
    if (!isWanted || this.#known === null || [...this.#items, ...this.#waiting].some(({ id }) => id === change.id)) return;
    this.#total += 1;
    this.#place(change);
    this.#show();
  }

  // Rows do not move away from a reader who has scrolled.
  #place(entry) {
    if (scrollY > 80) this.#waiting.unshift(entry);
    else this.#items.unshift(entry);
  }

  #release() {
    this.#items.unshift(...this.#waiting);
    this.#waiting = [];
    this.#show();
    scrollTo({ top: 0 });
  }

  #show() {
    this.shown.textContent = this.#params().warnings ? plural(this.#total, "entry", "entries") : plural(this.#total, "change");
    render(this.fresh, this.#waiting.length > 0 && h("button", { type: "button", class: "button primary", on: { click: () => this.#release() } }, `Show ${plural(this.#waiting.length, "new entry", "new entries")}`));
    render(this.list, this.#items.map((change) => changeItem(change)));
    render(
      this.foot,
      this.#items.length === 0 && notice("Nothing matches. The operator keeps the newest changes and warnings since its start; older ones are in the audit log."),
      this.#next && h("button", { type: "button", class: "button", on: { click: () => this.#older().catch((error) => dispatchEvent(new CustomEvent("load-failed", { detail: error }))) } }, `Show older ones (${count(this.#total - this.#items.length - this.#waiting.length)})`),
    );
  }
}
