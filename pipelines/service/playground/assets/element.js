// Elements without markup: a string only ever becomes text, whatever it holds.

const SVG = "http://www.w3.org/2000/svg";

/** The element of the page with an id. */
export const byId = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} name Tag name.
 * @param {Object} attributes Attributes; true sets an empty one, false and null set none.
 * @param {...(Node|string|number|null)} children Nodes, or values that become text.
 */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Make an element of an SVG drawing; arguments as for `element`. */
export function drawn(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Text for screen readers only. */
export const unseen = (text) => element("span", { class: "unseen" }, text);

function filled(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, String(value));
  }
  for (const child of children) {
    if (child !== null && child !== undefined) made.append(child instanceof Node ? child : String(child));
  }
  return made;
}
