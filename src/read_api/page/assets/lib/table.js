// A table of any length: only the rows in view are elements.

import { h } from "./dom.js";
import { count } from "./format.js";

const ROW = 38;
const OVERSCAN = 8;

/**
 * `columns`: `{ key, label, width, cell(row), sort(row), align }`, where `width` is a track of a CSS grid. `keyOf` and
 * `hrefOf` give a row's identity and page; `onSort` is told of another order; `label` names the table.
 */
export class VirtualTable {
  #rows = [];
  #shown = new Map();
  #active = 0;
  #activeKey = null;
  #sort = null;
  #frame = 0;
  #isFitted;

  constructor({ label, columns, keyOf, hrefOf, onSort, empty = "Nothing matches.", fitted = false }) {
    Object.assign(this, { columns, keyOf, hrefOf, onSort, empty });
    this.#isFitted = fitted;
    this.head = h("div", { class: "tr th-row", role: "row", "aria-rowindex": 1 }, columns.map((column) => this.#header(column)));
    this.body = h("div", { class: "tbody", role: "rowgroup" });
    this.message = h("p", { class: "empty" });
    this.grid = h("div", { class: "table", role: "grid", "aria-label": label }, h("div", { class: "thead", role: "rowgroup" }, this.head), this.body);
    this.element = h("div", { class: `table-scroll${fitted ? " fitted" : ""}` }, this.grid, this.message);
    this.grid.style.setProperty("--columns", columns.map(({ width }) => width).join(" "));
    this.grid.addEventListener("keydown", (event) => this.#key(event));
    this.body.addEventListener("click", (event) => this.#click(event));
    this.body.addEventListener("focusin", (event) => this.#focus(event));
    this.element.addEventListener("scroll", () => this.#schedule(), { passive: true });
    this.observer = new ResizeObserver(() => this.#schedule());
    this.observer.observe(this.element);
  }

  destroy() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  /** Shows these rows, in the table's order. The row in focus and the position stay. */
  show(rows) {
    this.#rows = this.#ordered(rows);
    const at = this.#activeKey === null ? -1 : this.#rows.findIndex((row) => this.keyOf(row) === this.#activeKey);
    this.#active = at >= 0 ? at : Math.min(this.#active, Math.max(0, rows.length - 1));
    this.grid.setAttribute("aria-rowcount", rows.length + 1);
    this.body.style.height = `${rows.length * ROW}px`;
    this.message.textContent = rows.length ? "" : this.empty;
    this.#draw(true);
  }

  /** The order: a column's key, with `-` in front for descending. */
  sort(order) {
    this.#sort = order || null;
    for (const cell of this.head.children) {
      const [key, direction] = this.#order();
      cell.setAttribute("aria-sort", cell.dataset.key === key ? (direction > 0 ? "ascending" : "descending") : "none");
    }
  }

  #order() {
    const text = this.#sort ?? "";
    return text.startsWith("-") ? [text.slice(1), -1] : [text, 1];
  }

  #ordered(rows) {
    const [key, direction] = this.#order();
    const value = this.columns.find((column) => column.key === key)?.sort;
    if (!value) return rows;
    const keyed = rows.map((row) => [value(row) ?? "", row]);
    keyed.sort(([a], [b]) => direction * (typeof a === "number" && typeof b === "number" ? a - b : a < b ? -1 : a > b ? 1 : 0));
    return keyed.map(([, row]) => row);
  }

  #header({ key, label, sort, align }) {
    const toggle = () => {
      const [current, direction] = this.#order();
      this.onSort?.(current === key && direction > 0 ? `-${key}` : key);
    };
    const text = sort && this.onSort ? h("button", { type: "button", class: "sort", on: { click: toggle } }, label) : label;
    return h("div", { role: "columnheader", class: `th ${align ?? ""}`, "data-key": key, "aria-sort": sort && this.onSort ? "none" : null }, text);
  }

  #schedule() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw(false));
  }

  #range() {
    if (this.#isFitted) return [0, this.#rows.length];
    const { scrollTop, clientHeight } = this.element;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - OVERSCAN);
    return [first, Math.min(this.#rows.length, Math.ceil((scrollTop + clientHeight) / ROW) + OVERSCAN)];
  }

  #draw(isChanged) {
    const [first, end] = this.#range();
    const wanted = new Map();
    for (let index = first; index < end; index += 1) wanted.set(this.keyOf(this.#rows[index]), index);
    // The row in focus stays an element, so that focus stays with it.
    if (this.#activeKey !== null && this.#rows[this.#active] && this.body.contains(document.activeElement)) {
      wanted.set(this.#activeKey, this.#active);
    }
    for (const [key, shown] of this.#shown) {
      if (wanted.has(key)) continue;
      shown.element.remove();
      this.#shown.delete(key);
    }
    for (const [key, index] of wanted) this.#place(key, index, isChanged);
    this.#rove();
  }

  #place(key, index, isChanged) {
    const row = this.#rows[index];
    const found = this.#shown.get(key);
    if (found && !(isChanged && found.row !== row)) {
      this.#move(found, index);
      return;
    }
    const cells = this.columns.map(({ cell, align }) => h("div", { role: "gridcell", class: `td ${align ?? ""}` }, cell(row)));
    const element = found?.element ?? h("div", { class: "tr", role: "row", tabindex: "-1" });
    element.replaceChildren(...cells);
    for (const link of element.querySelectorAll("a")) link.tabIndex = -1;
    const shown = { element, row, index: -1 };
    this.#shown.set(key, shown);
    element.rowKey = key;
    this.#move(shown, index);
    if (!found) this.body.append(element);
  }

  #move(shown, index) {
    if (shown.index === index) return;
    shown.index = index;
    shown.element.style.transform = `translateY(${index * ROW}px)`;
    shown.element.setAttribute("aria-rowindex", index + 2);
    shown.element.classList.toggle("odd", index % 2 === 1);
  }

  // One row is in the order of Tab, and arrow keys move between rows.
  #rove() {
    const first = this.#range()[0];
    const key = this.#activeKey ?? (this.#rows[first] && this.keyOf(this.#rows[first]));
    const isShown = this.#shown.has(key);
    for (const [other, { element, index }] of this.#shown) element.tabIndex = other === key || (!isShown && index === first) ? 0 : -1;
  }

  #focus(event) {
    const key = event.target.closest(".tr")?.rowKey;
    const shown = this.#shown.get(key);
    if (!shown) return;
    this.#activeKey = key;
    this.#active = shown.index;
    this.#rove();
  }

  #click(event) {
    if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest("a, button")) return;
    // A selection of text is no click.
    if (getSelection()?.toString()) return;
    this.#open(event.target.closest(".tr"));
  }

  #open(element) {
    const href = element && this.hrefOf?.(this.#shown.get(element.rowKey)?.row);
    if (href) location.hash = href;
  }

  #key(event) {
    const row = event.target.closest?.(".tr");
    if (!row || row === this.head || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 2);
    const last = this.#rows.length - 1;
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }[event.key];
    if (step !== undefined) this.#activate(Math.min(last, Math.max(0, this.#active + step)));
    else if (event.key === "Enter" && event.target === row) this.#open(row);
    else return;
    event.preventDefault();
  }

  #activate(index) {
    if (!this.#rows[index]) return;
    this.#active = index;
    this.#activeKey = this.keyOf(this.#rows[index]);
    if (!this.#isFitted) this.#scrollTo(index);
    this.#draw(false);
    this.#place(this.#activeKey, index, false);
    this.#rove();
    const { element } = this.#shown.get(this.#activeKey);
    element.focus({ preventScroll: !this.#isFitted });
  }

  #scrollTo(index) {
    const { scrollTop, clientHeight } = this.element;
    const [top, bottom] = [index * ROW, (index + 2) * ROW];
    if (top < scrollTop) this.element.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.element.scrollTop = bottom - clientHeight;
  }
}

/** `1,234 of 10,000 tasks`. */
export function shownOf(shown, all, what) {
  return shown === all ? `${count(all)} ${what}` : `${count(shown)} of ${count(all)} ${what}`;
}
