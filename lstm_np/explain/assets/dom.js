// Elements: made from names, properties and children; text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function make(namespace, name, properties, children) {
  const element = namespace ? document.createElementNS(namespace, name) : document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [rule, to] of Object.entries(value)) element.style.setProperty(rule, to);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const el = (name, properties, ...children) => make(null, name, properties, children);
const svg = (name, properties, ...children) => make(SVG, name, properties, children);

/** A symbol of an equation: symbol("a", "f") is an italic a with f below it. */
function symbol(letter, below) {
  return el("span", { class: "symbol" }, el("i", {}, letter), below === undefined || below === null ? null : el("sub", {}, below));
}

/** A number of the engine, as exact text; `of` says which, for whoever looks at the page by program. */
function engine(value, of) {
  return el("b", { class: "number", "data-engine": of }, exact(value));
}

/** A real table. */
function makeTable(caption, columns, rows) {
  return el("table", {},
    el("caption", {}, caption),
    el("thead", {}, el("tr", {}, columns.map((column) => el("th", { scope: "col" }, column)))),
    el("tbody", {}, rows.map((row) =>
      el("tr", {}, row.map((cell, k) => (k ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))));
}

const byId = (id) => document.getElementById(id);

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The colour that a custom property has now, for pictures that leave the page. */
const cssColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
