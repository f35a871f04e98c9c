// Addresses within the page. All state that a person may want to share is in them.

/** `{ path: ["tasks", "ID"], query }` of a fragment such as `#/tasks/ID?q=x`. */
export function parse(fragment) {
  const [path, query = ""] = fragment.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter(Boolean).map(decode), query: Object.fromEntries(new URLSearchParams(query)) };
}

// A fragment that is no valid encoding is taken as it is.
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The fragment of a path and a query; empty values are left out. */
export function format(path, query = {}) {
  const set = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(set).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const taskHref = (name) => format(["tasks", name]);

export const serviceHref = (service) => format(["services", ...serviceKey(service)]);

/** Control plane, mesh (`-` without one) and name: unique among services. */
export function serviceKey({ controlPlane, mesh, name }) {
  return [controlPlane, mesh ?? "-", name];
}

/** The key as one text, for maps and parameters. */
export const serviceId = (service) => serviceKey(service).map(encodeURIComponent).join("/");
