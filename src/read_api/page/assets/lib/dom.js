// Elements from plain values. Text is inserted as text, never as HTML: names come from manifests, tags and control planes.

const SVG = "http://www.w3.org/2000/svg";

// Control characters and others without a width would be invisible, so that two names look the same, and those of direction
// would reverse the text around them.
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** The text with unprintable characters made visible. */
export function printable(text) {
  return String(text).replace(UNPRINTABLE, "\ufffd");
}

/**
 * An element. `props`: `class`, `text`, `key` (identity for `render`), `on` (listeners by type), `style` (custom
 * properties and others by name), and attributes by name; `true` sets an attribute, `false` and absent values leave it out.
 */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** An element of SVG. */
export function s(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "key") element.renderKey = value;
    else if (name === "on") listen(element, value);
    else if (name === "text") element.append(printable(value));
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : printable(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) append(element, child);
    else element.append(child instanceof Node ? child : printable(child));
  }
}

// One listener for each type looks the handler up when it is called, so that `render` can replace handlers.
function listen(element, on) {
  element.handlers = on;
  element.handled ??= new Set();
  for (const type of Object.keys(on)) {
    if (element.handled.has(type)) continue;
    element.handled.add(type);
    element.addEventListener(type, (event) => element.handlers?.[type]?.(event));
  }
}

/** Replaces the children of `container`, keeping the elements that stay: focus, selection and scroll position remain. */
export function render(container, ...children) {
  const fresh = document.createDocumentFragment();
  append(fresh, children);
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  morphChildren(container, fresh);
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

function morphChildren(parent, fresh) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.renderKey !== undefined) keyed.set(child.renderKey, child);
  let cursor = parent.firstChild;
  for (const next of [...fresh.childNodes]) {
    const match = next.renderKey === undefined ? cursor : keyed.get(next.renderKey);
    if (!match || !isSameKind(match, next)) {
      parent.insertBefore(next, cursor);
      continue;
    }
    keyed.delete(next.renderKey);
    if (match === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(match, cursor);
    morph(match, next);
  }
  while (cursor) {
    const { nextSibling } = cursor;
    cursor.remove();
    cursor = nextSibling;
  }
}

function isSameKind(one, other) {
  return one.nodeName === other.nodeName && one.renderKey === other.renderKey;
}

function morph(node, next) {
  if (node.nodeType !== Node.ELEMENT_NODE) {
    if (node.data !== next.data) node.data = next.data;
    return;
  }
  for (const { name } of [...node.attributes]) if (!next.hasAttribute(name)) node.removeAttribute(name);
  for (const { name, value } of next.attributes) {
    // The policy forbids style attributes; properties are set below.
    if (name !== "style" && node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  if (next.style?.cssText !== node.style?.cssText) node.style.cssText = next.style.cssText;
  if (next.handlers) listen(node, next.handlers);
  else node.handlers = undefined;
  if (node.nodeName === "SELECT") node.value = next.value;
  morphChildren(node, next);
}

/** A symbol of `icons.svg`; the text beside it has the meaning. */
export function icon(name, className = "icon") {
  return s("svg", { class: className, "aria-hidden": "true" }, s("use", { href: `assets/icons.svg#${name}` }));
}

let announcing = 0;

/** Reads a text out to users of screen readers. */
export function announce(text) {
  const region = document.getElementById("announcer");
  clearTimeout(announcing);
  // A short delay joins announcements of one moment, and lets the same text be read again.
  region.textContent = "";
  announcing = setTimeout(() => (region.textContent = printable(text)), 150);
}
