// The feed of changes, newest first.

import { get } from "../lib/api.js";
import { announce, h, render } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { Refresher } from "../lib/live.js";
import { changeItem, choice, filterBox, matches, notice } from "../lib/parts.js";

const PAGE = 100;
const KINDS = { "": "All", create: "create", update: "update", drain: "drain", remove: "remove", adopt: "adopt", protect: "protect", unprotect: "unprotect", data_plane_token: "tokens" };
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
    this.end = context.onChange(({ change, isReset }) => {
      if (isReset) this.refresher.now();
      else if (change) this.#add(change);
    });
    this.update();
  }

  update() {
    const { go, query } = this.#context;
    render(
      this.choices,
      choice({ label: "Kind", value: query.kind ?? "", options: KINDS, onChange: (kind) => go({ kind }) }),
      choice({ label: "Since", value: query.since ?? "", options: SINCE, onChange: (since) => go({ since }) }),
    );
    clearTimeout(this.typing);
    // The server filters, so wait until typing pauses.
    this.typing = setTimeout(() => this.refresher.now(), this.#known === null ? 0 : 200);
  }

  destroy() {
    clearTimeout(this.typing);
    this.refresher.stop();
    this.end();
  }

  #params() {
    const { q, kind, since } = this.#context.query;
    return { q, kind, since };
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
    if (!isWanted || this.#known === null || this.#items.some(({ id }) => id === change.id)) return;
    this.#total += 1;
    // Rows do not move away from a reader who has scrolled.
    if (scrollY > 80) this.#waiting.unshift(change);
    else this.#items.unshift(change);
    this.#show();
  }

  #release() {
    this.#items.unshift(...this.#waiting);
    this.#waiting = [];
    this.#show();
    scrollTo({ top: 0 });
  }

  #show() {
    this.shown.textContent = plural(this.#total, "change");
    render(this.fresh, this.#waiting.length > 0 && h("button", { type: "button", class: "button primary", on: { click: () => this.#release() } }, `Show ${plural(this.#waiting.length, "new change")}`));
    render(this.list, this.#items.map((change) => changeItem(change)));
    render(
      this.foot,
      this.#items.length === 0 && notice("No change matches. The operator keeps the newest changes since its start; older ones are in the audit log."),
      this.#next && h("button", { type: "button", class: "button", on: { click: () => this.#older().catch((error) => dispatchEvent(new CustomEvent("load-failed", { detail: error }))) } }, `Show older changes (${count(this.#total - this.#items.length - this.#waiting.length)})`),
    );
  }
}
