// Keys that work in all views, and the list of them.

import { h } from "./dom.js";

const GO = { o: "#/", s: "#/services", t: "#/tasks", w: "#/warnings", c: "#/changes", p: "#/status" };

const HELP = [
  ["/", "Search services and tasks"],
  ["f", "Filter the list in view"],
  ["g o", "Go to the overview"],
  ["g s", "Go to services"],
  ["g t", "Go to tasks"],
  ["g w", "Go to warnings"],
  ["g c", "Go to changes"],
  ["g p", "Go to the operator's status"],
  ["↑ ↓", "Move between rows, or between services of the graph"],
  ["← →", "Move to callers, or to outbounds, in the graph"],
  ["Page Up, Page Down, Home, End", "Move further in a table"],
  ["Enter", "Open the row or service"],
  ["n", "Show the neighbours of the service in focus"],
  ["d", "Switch between system, light and dark colours"],
  ["Esc", "Clear the field, close, or go one level up"],
  ["?", "Show these keys"],
];

/** Listens for the keys; `actions`: `search`, `theme`. */
export function listenForKeys(actions) {
  let prefix = 0;
  const help = dialogOfKeys();
  document.getElementById("help").addEventListener("click", () => help.showModal());
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const isTyping = event.target.closest?.("input, textarea, select");
    if (event.key === "Escape") {
      escape(event.target);
      return;
    }
    if (isTyping) return;
    const isPrefixed = Date.now() - prefix < 1_500;
    prefix = event.key === "g" ? Date.now() : 0;
    if (isPrefixed && GO[event.key]) location.hash = GO[event.key];
    else if (event.key === "/") actions.search();
    else if (event.key === "f") document.querySelector("[data-filter]")?.focus();
    else if (event.key === "?") help.showModal();
    else if (event.key === "d") actions.theme();
    else return;
    event.preventDefault();
  });
}

function escape(target) {
  if (target.matches?.("[data-filter]")) {
    if (target.value) {
      target.value = "";
      target.dispatchEvent(new Event("input"));
    } else {
      target.blur();
    }
    return;
  }
  // One level up: from a part of the overview to all of it.
  const up = document.querySelector(".crumbs a");
  if (up && !target.matches?.("input, select")) location.hash = up.getAttribute("href");
  else target.blur?.();
}

function dialogOfKeys() {
  const dialog = h(
    "dialog",
    { "aria-label": "Keyboard shortcuts" },
    h("form", { method: "dialog" }, h("h2", {}, "Keyboard shortcuts"), h("dl", { class: "keys" }, HELP.map(([keys, text]) => h("div", {}, h("dt", {}, keys.split(", ").map((key) => h("kbd", {}, key))), h("dd", {}, text)))), h("button", { class: "button primary", autofocus: true }, "Close")),
  );
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  return dialog;
}

/** Asks for the bearer token until one is entered. */
export function askForToken(wasRefused) {
  const input = h("input", { type: "password", name: "token", autocomplete: "off", required: true, autofocus: true, "aria-describedby": "token-hint" });
  const dialog = h(
    "dialog",
    { "aria-label": "Bearer token" },
    h(
      "form",
      { method: "dialog" },
      h("h2", {}, "Bearer token"),
      h("p", { id: "token-hint" }, wasRefused ? "The operator refused this token." : "This operator's read API needs a bearer token.", " The token stays in this tab, and is gone when the tab is closed."),
      h("label", {}, "Token", input),
      h("button", { class: "button primary" }, "Continue"),
    ),
  );
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!token) return;
      dialog.close();
      dialog.remove();
      resolve(token);
    });
  });
}
