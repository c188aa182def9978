/* Small helpers: elements whose text is always text. */

export const $ = (id) => document.getElementById(id);
export const read = (id) => JSON.parse($(id).textContent);

/* A record that came compressed; null where the page has none. */
export async function unpack(id) {
  if (!$(id)) return null;
  const bytes = Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

/* An element with attributes (functions become listeners) and children; strings become text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "style") Object.assign(node.style, value);
    else if (value !== null && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

export const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/* A line swatch for legends: the same dash and colour as the line it explains. */
export function swatch(stroke, dash = "", width = 2) {
  return svg(
    "svg",
    { width: 26, height: 10, "aria-hidden": "true" },
    svg("line", {
      x1: 1,
      x2: 25,
      y1: 5,
      y2: 5,
      "stroke-width": width,
      "stroke-dasharray": dash,
      style: { stroke },
    }),
  );
}

/* A text of spaces alone with a sign for each, which would be nothing to see otherwise. */
export const seen = (text) => (/^\s+$/.test(text) ? text.replace(/\s/g, "␣") : text);
