// Follows the operator's stream of events, and says since when it does not.

import { request } from "./api.js";

// Three missed heartbeats.
const SILENCE = 45_000;
const FIRST_RETRY = 1_000;
const LAST_RETRY = 30_000;

/** Splits a stream's text into events; keeps an unfinished one for the next call. */
export class EventParser {
  #rest = "";

  /** The events that end in this text: `{ event, id, data }`. */
  push(text) {
    const blocks = (this.#rest + text).replace(/\r\n?/g, "\n").split("\n\n");
    this.#rest = blocks.pop();
    return blocks.map(parseBlock).filter(({ data }) => data !== undefined);
  }
}

function parseBlock(block) {
  const found = { event: "message" };
  for (const line of block.split("\n")) {
    const [, field, value] = /^([^:]+): ?(.*)$/s.exec(line) ?? [];
    if (field === "data") found.data = found.data === undefined ? value : `${found.data}\n${value}`;
    else if (field === "event" || field === "id") found[field] = value;
  }
  return found;
}

/** The connection. Events: `state` when it comes or goes, `begin` at the first one, `reset` when all data may have changed, and those of the API. */
export class Live extends EventTarget {
  /** `connecting`, `live` or `lost`. */
  state = "connecting";
  /** When data was last known to be current. */
  currentAt = null;
  /** When the connection was lost. */
  lostAt = null;
  /** When the next attempt begins. */
  retryAt = null;
  #lastId = null;
  #attempts = 0;
  #timer = null;
  #abort = null;

  start() {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.retryAt) this.#connect();
    });
    addEventListener("online", () => this.retryAt && this.#connect());
    this.#connect();
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.retryAt = null;
    this.#abort = new AbortController();
    try {
      const headers = { Accept: "text/event-stream", ...(this.#lastId && { "Last-Event-ID": this.#lastId }) };
      const response = await request("stream", { headers, signal: this.#abort.signal });
      await this.#read(response.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // Shown as lost, below; the cause is in the browser's network log.
    }
    this.#lose();
  }

  async #read(reader) {
    const parser = new EventParser();
    const wasLost = this.lostAt !== null;
    Object.assign(this, { state: "live", lostAt: null, currentAt: Date.now() });
    this.#attempts = 0;
    this.#emit("state");
    // A change may have been missed between two connections, whatever the ring still has.
    if (wasLost) this.#emit("reset");
    // Nor is a change known that came between a first read and the stream.
    else this.#emit("begin");
    for (;;) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#abort.abort(), SILENCE);
      const { done, value } = await reader.read();
      if (done) return;
      this.currentAt = Date.now();
      for (const { event, id, data } of parser.push(value)) {
        if (id) this.#lastId = id;
        this.#emit(event, parseJson(data));
      }
    }
  }

  #lose() {
    clearTimeout(this.#timer);
    this.#abort.abort();
    const delay = Math.min(LAST_RETRY, FIRST_RETRY * 2 ** this.#attempts) * (0.75 + Math.random() / 2);
    this.#attempts += 1;
    Object.assign(this, { state: "lost", lostAt: this.lostAt ?? Date.now(), retryAt: Date.now() + delay });
    this.#timer = setTimeout(() => this.#connect(), delay);
    this.#emit("state");
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * Calls `load` now, and again after `soon` while events come in: never twice at a time, and with pauses of several times
 * what a load takes, so that a page that follows a busy mesh takes a small share of the operator's time.
 */
export class Refresher {
  #load;
  #timer = null;
  #running = null;
  #isDue = false;
  #pause = 1_000;
  #ended = 0;

  constructor(load) {
    this.#load = load;
  }

  now() {
    this.#isDue = true;
    if (!this.#running) this.#run();
  }

  soon() {
    this.#isDue = true;
    if (this.#running || this.#timer) return;
    this.#timer = setTimeout(() => this.#run(), Math.max(0, this.#ended + this.#pause - Date.now()));
  }

  stop() {
    clearTimeout(this.#timer);
    this.#running?.abort();
    this.#load = null;
  }

  async #run() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#isDue = false;
    const controller = new AbortController();
    this.#running = controller;
    const began = performance.now();
    let retry = false;
    try {
      await this.#load?.(controller.signal);
    } catch (error) {
      retry = !controller.signal.aborted;
      if (retry) dispatchEvent(new CustomEvent("load-failed", { detail: error }));
    }
    this.#running = null;
    if (!this.#load) return;
    this.#ended = Date.now();
    this.#pause = retry ? 5_000 : Math.min(30_000, Math.max(1_000, 4 * (performance.now() - began)));
    if (!retry) dispatchEvent(new CustomEvent("load-done"));
    if (this.#isDue || retry) this.soon();
  }
}
