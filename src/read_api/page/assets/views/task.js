// One task: verdict, evidence, role and its tags, registrations, history.

import { get, path } from "../lib/api.js";
import { h, icon, render } from "../lib/dom.js";
import { ago, arnName, timeOf } from "../lib/format.js";
import { HistoryCard } from "../lib/history.js";
import { Refresher } from "../lib/live.js";
import { card, facts, fixOf, mono, notice, serviceLink } from "../lib/parts.js";
import { format } from "../lib/routes.js";
import { badge, taskBadge } from "../lib/states.js";

const KINDS = { dataplane: "Dataplane", zoneIngress: "Zone ingress", zoneEgress: "Zone egress", catalogService: "Catalog service", token: "Token" };

export class Task {
  #bodies = null;

  constructor([name]) {
    this.name = name;
    this.title = `Task ${name}`;
  }

  mount(root, context) {
    this.history = new HistoryCard({ path: ["tasks", this.name], query: () => context.query, withTask: false });
    for (const part of ["head", "verdict", "registrations", "bodies", "about", "tags"]) this[part] = h("div", { class: part });
    this.bodies.setAttribute("aria-live", "polite");
    const read = h("button", { type: "button", class: "small-button", on: { click: (event) => this.#read(event.currentTarget) } }, "Read from the control plane");
    this.body = h(
      "div",
      { class: "columns" },
      h(
        "div",
        { class: "main-column" },
        card("Verdict", {}, this.verdict),
        card("Registrations", { tools: read }, this.registrations, this.bodies),
        card("Role tags", {}, this.tags),
      ),
      h("div", { class: "side" }, card("Details", {}, this.about), this.history.element),
    );
    root.append(this.head, this.body);
    render(this.head, h("h1", { class: "mono" }, this.name));
    this.refresher = new Refresher((signal) => this.#load(signal));
    this.end = context.onChange((changed) => this.#isConcerned(changed) && this.refresher.soon());
    this.refresher.now();
  }

  update() {
    this.history.update();
  }

  destroy() {
    this.refresher.stop();
    this.end();
  }

  #isConcerned({ tasks, change, warning, more, isReset }) {
    return isReset || more || tasks?.includes(this.name) || warning?.examples?.includes(this.name) || [change, warning].some((one) => arnName(one?.task) === this.name);
  }

  async #load(signal) {
    try {
      // By the ARN, entries are found without a look at all of the history.
      const [task, entries] = await Promise.all([get(path("tasks", this.name), { signal }), HistoryCard.load({ task: this.arn ?? this.name }, signal)]);
      this.arn = task.arn;
      this.#show(task);
      this.history.show(entries);
    } catch (error) {
      if (error.status !== 404) throw error;
      render(
        this.head,
        h("p", { class: "kind" }, "Task"),
        h("h1", { class: "mono" }, this.name),
        badge({ tone: "quiet", symbol: "ignored", label: "Gone" }),
        h("a", { href: format(["changes"], { q: this.name, warnings: true }) }, "Changes and warnings of this task"),
        notice("The operator knows no task of this id now. A stopped task is shown for 15 minutes."),
      );
      this.body.hidden = true;
    }
  }

  #show(task) {
    this.body.hidden = false;
    render(this.head, h("p", { class: "kind" }, "Task"), h("h1", { class: "mono" }, this.name), taskBadge(task.state));
    this.#showVerdict(task);
    this.#showRegistrations(task);
    this.#showTags(task);
    this.#showDetails(task);
  }

  #showVerdict({ reason, verdict, warnings }) {
    // The same sentence may be the reason and a part of the verdict or of a warning.
    const isSaid = (text, others) => others.some((other) => other.includes(text));
    const warned = warnings.map(({ message }) => message);
    const texts = verdict.map(({ text }) => text);
    // The message of a warning may have the sentence after words of its own.
    const isRepeated = (message) => isSaid(message, texts) || (reason?.message && isSaid(reason.message, texts) && message.includes(reason.message));
    render(
      this.verdict,
      reason && !isSaid(reason.message, [...warned, ...texts]) && h("p", { class: "reason" }, reason.message, " ", h("code", { class: "label" }, reason.key)),
      verdict.length === 0 && !reason && notice("The task has not been evaluated yet."),
      verdict.length > 0 && h("ul", { class: "verdicts" }, verdict.map(({ controlPlane, text, change }) => h("li", { key: controlPlane }, h("span", { class: "plane" }, controlPlane), h("span", { class: change ? "verdict-text due" : "verdict-text" }, dedented(text))))),
      warnings.map((warning) => h("div", { class: "warning", key: `${warning.reason}\n${warning.message}` }, h("p", {}, icon("warn", "icon warn"), !isRepeated(warning.message) && h("span", {}, warning.message), h("code", { class: "label" }, warning.reason)), fixOf(warning.fix))),
    );
  }

  #showRegistrations({ registrations }) {
    if (!registrations.length) {
      render(this.registrations, notice("No registration stands for this task."));
      return;
    }
    render(
      this.registrations,
      table(
        ["Kind", "Service", "Control plane", "State", "Read", "Name"],
        registrations.map((one) => [KINDS[one.kind] ?? one.kind, one.service ? serviceLink(one) : "–", [one.controlPlane, one.mesh].filter(Boolean).join(" / "), readiness(one), timeOf(one.readinessObservedAt), mono(one.name)]),
      ),
    );
  }

  async #read(button) {
    button.disabled = true;
    try {
      const { registrations } = await get(path("tasks", this.name, "registrations"));
      this.#bodies = registrations;
      render(
        this.bodies,
        h("p", { class: "hint" }, "As the control plane has it, read at ", timeOf(new Date().toISOString())),
        registrations.length === 0 && notice("No registration of this task is known."),
        registrations.map(({ controlPlane, mesh, name, body, error }) => h("figure", { key: `${controlPlane}/${mesh}/${name}` }, h("figcaption", {}, [controlPlane, mesh, name].filter(Boolean).join(" / ")), body ? h("pre", { tabindex: "0" }, JSON.stringify(body, null, 2)) : notice(error ?? "The control plane does not show one."))),
      );
    } catch (error) {
      render(this.bodies, notice(error.message, "bad"));
    }
    button.disabled = false;
  }

  #showTags({ role, roleTags }) {
    if (!roleTags.length) {
      render(this.tags, notice(role ? "No rule applies to the tags of this role, or they have not been read yet." : "The task has no role."));
      return;
    }
    const none = h("span", { class: "muted" }, "not set");
    render(
      this.tags,
      table(
        ["", "Tag", "Value", "Expected"],
        roleTags.map(({ key, value, expected, ok }) => [badge(ok ? { tone: "ok", symbol: "ok", label: "Allowed" } : { tone: "bad", symbol: "bad", label: "Violated" }), mono(key), value === undefined ? none.cloneNode(true) : mono(value), expected === undefined ? "–" : mono(expected)]),
      ),
    );
  }

  #showDetails(task) {
    const { evidence } = task;
    render(
      this.about,
      facts([
        ["Service", task.service && (task.controlPlane ? serviceLink({ ...task, mesh: task.registrations.find(({ mesh }) => mesh)?.mesh }) : task.service)],
        ["Workloads", task.workloads.join(", ")],
        ["Binding", task.binding],
        ["ECS service", task.ecsService],
        ["Task definition", arnName(task.definition)],
        ["Cluster", h("span", { title: task.cluster }, arnName(task.cluster))],
        ["Account, Region", `${task.account}, ${task.region}`],
        ["Role", task.role && h("span", { title: task.role }, arnName(task.role))],
        ["Address", task.address && mono(task.address)],
        ["Created", task.createdAt && h("span", {}, timeOf(task.createdAt), " (", ago(task.createdAt), ")")],
        ["ECS status", evidence ? `${evidence.lastStatus}, desired ${evidence.desiredStatus}` : "ECS does not show the task"],
        ["Evidence", evidence && h("span", {}, `version ${evidence.version}`, evidence.seenBy && `, by ${evidence.seenBy}`, evidence.seenAt && [" at ", timeOf(evidence.seenAt)])],
      ]),
    );
  }
}

// The plan indents its lines.
function dedented(text) {
  const lines = text.trimEnd().split("\n");
  const indent = Math.min(...lines.filter((line) => line.trim()).map((line) => line.search(/\S/)));
  return lines.map((line) => line.slice(indent)).join("\n");
}

function readiness({ kind, ready, drained }) {
  if (kind === "token") return "–";
  if (drained) return badge({ tone: "quiet", symbol: "drained", label: `Drained: ${drained}` });
  if (ready === undefined) return badge({ tone: "quiet", symbol: "undeclared", label: "Not read yet" });
  return ready ? badge({ tone: "ok", symbol: "ok", label: "Ready" }) : badge({ tone: "warn", symbol: "pending", label: "Not ready" });
}

/** A short table. */
export function table(columns, rows) {
  return h(
    "div",
    { class: "plain-scroll" },
    h(
      "table",
      { class: "plain" },
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell))))),
    ),
  );
}
