// Reads the API. Paths are relative to the page, so that a proxy may serve it below a prefix.

const BASE = new URL("api/v1/", document.baseURI);
const TOKEN = "ecs-mesh.token";
const MAX_PAGE = 1000;
const MAX_ATTEMPTS = 4;

/** An answer that is no success. */
export class ApiError extends Error {
  constructor(status, { code, message, parameter } = {}) {
    super(message || `the operator answered with status ${status}`);
    Object.assign(this, { name: "ApiError", status, code, parameter });
  }
}

/** Set by the page: resolves with a token that a person has entered. */
let askForToken = null;
let asked = null;

export function onTokenNeeded(ask) {
  askForToken = ask;
}

function storedToken() {
  try {
    return sessionStorage.getItem(TOKEN);
  } catch {
    return null;
  }
}

// Kept for this tab alone, and only in memory where storage is denied.
let token = storedToken();

function keepToken(value) {
  token = value;
  try {
    sessionStorage.setItem(TOKEN, value);
  } catch {
    // Storage may be denied.
  }
}

/** A request with the token, if there is one; asks for it once where it is missing or wrong, for all requests together. */
export async function request(path, { params = {}, headers = {}, signal } = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  for (let attempt = 1; ; attempt += 1) {
    const sent = token;
    const bearer = sent ? { Authorization: `Bearer ${sent}` } : {};
    const response = await fetch(url, { headers: { ...bearer, ...headers }, signal, cache: "no-store" });
    if (response.ok) return response;
    if (response.status === 401 && askForToken) {
      if (token === sent) {
        asked ??= askForToken(sent !== null).then(keepToken).finally(() => (asked = null));
        await asked;
      }
      signal?.throwIfAborted();
      attempt = 0;
      continue;
    }
    const error = new ApiError(response.status, await response.json().catch(() => ({})));
    if (response.status !== 429 || attempt === MAX_ATTEMPTS) throw error;
    const seconds = Number(response.headers.get("Retry-After")) || attempt;
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    signal?.throwIfAborted();
  }
}

/** One object. */
export async function get(path, options) {
  return (await request(path, options)).json();
}

/** All items of a list, page by page; `onPage` is called with what is there so far and the total. */
export async function list(path, { params = {}, signal, onPage, most = Infinity } = {}) {
  const items = [];
  let next;
  do {
    const limit = Math.min(MAX_PAGE, most - items.length);
    const page = await get(path, { params: { ...params, limit, continue: next }, signal });
    items.push(...page.items);
    next = page.continue;
    onPage?.(items, page.total);
    if (!next || items.length >= most) return { items, total: page.total, next };
  } while (true);
}

/** A path of segments, each encoded. */
export const path = (...segments) => segments.map(encodeURIComponent).join("/");
