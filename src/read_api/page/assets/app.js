// The frame of the page: views by address, the state of the connection, banners, theme and keys.

import { onTokenNeeded } from "./lib/api.js";
import { sources as connectSources } from "./lib/data.js";
import { announce, h, icon, render } from "./lib/dom.js";
import { clock, count, duration, plural } from "./lib/format.js";
import { askForToken, listenForKeys } from "./lib/keys.js";
import { Live } from "./lib/live.js";
import { format, parse } from "./lib/routes.js";
import { Search } from "./lib/search.js";
import { Changes } from "./views/changes.js";
import { Overview } from "./views/overview.js";
import { Service } from "./views/service.js";
import { Services } from "./views/services.js";
import { Status } from "./views/status.js";
import { Task } from "./views/task.js";
import { Tasks } from "./views/tasks.js";
import { Warnings } from "./views/warnings.js";

const NAVIGATION = [
  ["", "Overview", "o"],
  ["services", "Services", "s"],
  ["tasks", "Tasks", "t"],
  ["warnings", "Warnings", "w"],
  ["changes", "Changes", "c"],
  ["status", "Status", "p"],
];
const LISTS = { services: Services, tasks: Tasks, warnings: Warnings, changes: Changes, status: Status };
const THEMES = { "": ["auto", "System colours"], light: ["sun", "Light colours"], dark: ["moon", "Dark colours"] };

const main = document.getElementById("main");
const live = new Live();
const sources = connectSources(live);
const listeners = new Set();
let view = null;
let here = null;
let status = null;
let failure = null;

function viewOf([first, ...rest]) {
  if (first === undefined) return new Overview();
  if (first === "services" && rest.length === 3) return new Service(rest);
  if (first === "tasks" && rest.length === 1) return new Task(rest);
  return rest.length === 0 && LISTS[first] ? new LISTS[first]() : null;
}

/** Shows what the address names; the same view with another query is updated. */
function route() {
  const { path, query } = parse(location.hash);
  const key = JSON.stringify(path);
  const context = { path, query, sources, go, onChange };
  if (view && here?.key === key) {
    Object.assign(here.context, context);
    view.update();
    return;
  }
  view?.destroy();
  main.replaceChildren();
  main.className = path.length ? `page-${path[0]}${path.length > 1 ? " page-one" : ""}` : "page-overview";
  const isFirst = here === null;
  here = { key, context };
  failure = null;
  view = viewOf(path);
  if (view) view.mount(main, context);
  else main.append(h("h1", {}, "No such page"), h("p", {}, h("a", { href: "#/" }, "Go to the overview")));
  document.title = `${view?.title ?? "No such page"} · ecs-mesh-operator${status ? ` ${status.operator}` : ""}`;
  showNavigation(path[0] ?? "");
  showBanners();
  if (isFirst) return;
  scrollTo({ top: 0 });
  // Where the keyboard goes on: at the top of the new view.
  main.focus({ preventScroll: true });
  announce(view?.title ?? "No such page");
}

/** Changes the query of the address. */
function go(change, { replace = false } = {}) {
  const { path, query } = parse(location.hash);
  const next = format(path, { ...query, ...change });
  if (!replace) {
    location.hash = next;
    return;
  }
  // Each letter of a filter is no step of the history.
  history.replaceState(null, "", next);
  route();
}

/**
 * Calls `listener` with what changed: `tasks` and `services`, or `more` where they are too many to name, `change`, `warning`
 * (a warning or its end), or `isReset` where events were lost; returns the function that ends it.
 */
function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const tell = (what) => listeners.forEach((listener) => listener(what));
live.addEventListener("tasks", ({ detail }) => tell({ more: true, ...detail }));
live.addEventListener("change", ({ detail }) => detail && tell({ change: detail }));
for (const type of ["warning", "resolved"]) live.addEventListener(type, ({ detail }) => detail && tell({ warning: detail }));
live.addEventListener("begin", () => tell({ more: true }));
live.addEventListener("reset", () => tell({ isReset: true }));

function showNavigation(current) {
  const { services, tasks, warnings } = status?.counts ?? {};
  const totals = { services, tasks, warnings };
  render(
    document.getElementById("nav"),
    h(
      "ul",
      {},
      NAVIGATION.map(([name, label, key]) =>
        h(
          "li",
          { key: name },
          h("a", { href: name ? `#/${name}` : "#/", "aria-current": name === current ? "page" : null, title: `${label} (g ${key})` }, label, totals[name] !== undefined && h("span", { class: `nav-count${name === "warnings" && totals[name] ? " warn" : ""}` }, count(totals[name]))),
        ),
      ),
    ),
  );
}

function showConnection() {
  const labels = { connecting: "Connecting…", live: "Live", lost: `Disconnected since ${clock(live.lostAt)}` };
  const marks = { connecting: ["quiet", "pending"], live: ["ok", "ok"], lost: ["bad", "bad"] };
  const [tone, symbol] = marks[live.state];
  const region = document.getElementById("connection");
  region.className = `connection ${tone}`;
  render(region, icon(symbol, `icon ${tone}`), h("span", { class: "connection-text" }, labels[live.state]));
}

function banner(key, tone, symbol, ...content) {
  return h("div", { key, class: `banner ${tone}`, role: tone === "bad" ? "alert" : "status" }, icon(symbol, `icon ${tone}`), h("p", {}, content));
}

function showBanners() {
  const tripped = status?.guards.filter((guard) => guard.tripped) ?? [];
  const retry = live.retryAt ? Math.max(0, live.retryAt - Date.now()) : 0;
  const shown = live.currentAt ? ` The page shows the state of ${clock(live.currentAt)}.` : "";
  const isStandby = status?.role === "standby";
  render(
    document.getElementById("banners"),
    live.state === "lost" && banner("lost", "bad", "bad", h("strong", {}, `Disconnected since ${clock(live.lostAt)}.`), shown, h("span", { class: "retry", "aria-hidden": "true" }, retry > 0 ? ` Next attempt in ${duration(retry)}.` : " Connecting…")),
    live.state !== "lost" && failure && banner("failure", "bad", "bad", h("strong", {}, "The last read failed: "), failure.message, " The page shows older data until the next attempt succeeds."),
    isStandby && banner("standby", "info", "held", h("strong", {}, "This copy is a standby."), ` It reads, and writes nothing.${status.leader ? ` The leader is ${status.leader}.` : ""}`),
    status && !status.ready && !isStandby && banner("pending", "warn", "pending", h("strong", {}, "Not ready. "), `Waiting for: ${status.pending.join("; ") || "the start"}.`),
    tripped.length > 0 && banner("guard", "bad", "held", h("strong", {}, `The guard of ${tripped.map(({ binding }) => binding).join(", ")} has tripped. `), `${plural(tripped.reduce((sum, { held }) => sum + held, 0), "removal")} held. `, h("a", { href: "#/status" }, "Status")),
  );
}

function currentTheme() {
  return document.documentElement.dataset.theme ?? "";
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(currentTheme()) + 1) % names.length];
  if (next) document.documentElement.dataset.theme = next;
  else delete document.documentElement.dataset.theme;
  try {
    localStorage.setItem("ecs-mesh.theme", next);
  } catch {
    // Storage may be denied: the choice lasts as long as the page.
  }
  showTheme();
  announce(THEMES[next][1]);
}

function showTheme() {
  const [symbol, label] = THEMES[currentTheme()];
  const button = document.getElementById("theme");
  button.title = `${label} (d)`;
  button.setAttribute("aria-label", `Colours: ${label}. Change`);
  render(button, icon(symbol));
}

function onConnection() {
  showConnection();
  showBanners();
}

onTokenNeeded(askForToken);
const search = new Search(document.getElementById("search"), sources);
listenForKeys({ search: () => search.focus(), theme: nextTheme });
document.getElementById("theme").addEventListener("click", nextTheme);
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address is that of the view, so the anchor is followed by hand.
  event.preventDefault();
  main.focus();
});
addEventListener("load-failed", ({ detail }) => {
  failure = detail;
  showBanners();
});
addEventListener("load-done", () => {
  if (!failure) return;
  failure = null;
  showBanners();
});
live.addEventListener("state", () => {
  onConnection();
  announce(live.state === "live" ? "Connected" : "Disconnected");
});
// Counts down to the next attempt.
setInterval(() => live.state === "lost" && showBanners(), 1_000);
addEventListener("hashchange", route);
showTheme();
onConnection();
route();
live.start();
sources.status.subscribe((value) => {
  status = value;
  document.getElementById("operator-id").textContent = value.operator;
  document.title = `${view?.title ?? "No such page"} · ecs-mesh-operator ${value.operator}`;
  showNavigation(parse(location.hash).path[0] ?? "");
  showBanners();
});
