"use strict";
// Functions that make elements. Text is inserted as text and never as markup, so no string of a run becomes HTML.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);

const SVG = "http://www.w3.org/2000/svg";
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

let serial = 0;
const freshId = () => `e${serial++}`;

const NOTHING = "-";
const known = (value) => value !== null && value !== undefined;

/** A figure for people: shares with 4 decimals, counts with separators, the rest to 4 figures. */
function show(value) {
  if (!known(value)) return NOTHING;
  if (typeof value !== "number") return typeof value === "string" ? value : JSON.stringify(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  if (Math.abs(value) <= 1 && Math.abs(value) >= 1e-3) return value.toFixed(4);
  return String(Number(value.toPrecision(4)));
}

const share = (value) => (known(value) ? value.toFixed(4) : NOTHING);
const percent = (value) => (known(value) ? `${(100 * value).toFixed(1)} %` : NOTHING);

/** Seconds as people read them: 9.3 s, 6 min 55 s, 2 h 5 min. */
function duration(value) {
  if (!known(value)) return NOTHING;
  if (value < 60) return `${value.toFixed(1)} s`;
  const minutes = Math.floor(Math.round(value) / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(value) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A table in a box of its own that scrolls when it is wider than the page. A cell is a text, a number or a node. */
function table(columns, rows, { caption = null, label = caption, kind = null, marked = () => null } = {}) {
  const numeric = columns.map((_, j) => {
    const cells = rows.map((row) => row[j]).filter((cell) => known(cell) && cell !== NOTHING);
    return cells.length > 0 && cells.every((cell) => typeof cell === "number" || /^[-±0-9.,% hmins]+$/.test(cell));
  });
  const cellOf = (cell, j) =>
    el(j ? "td" : "th", { scope: j ? null : "row", class: j && numeric[j] ? "number" : null },
      cell instanceof Node ? cell : show(cell));
  const head = columns.map((name, j) => el("th", { scope: "col", class: j && numeric[j] ? "number" : null }, name));
  const made = el("table", { class: kind },
    caption ? el("caption", {}, caption) : null,
    el("thead", {}, el("tr", {}, head)),
    el("tbody", {}, rows.map((row) => el("tr", { class: marked(row) }, row.map(cellOf)))));
  return scrolling(made, label || columns.join(", "));
}

/** Wide content that scrolls inside its box, also with the keyboard. */
const scrolling = (content, label) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, content);

const faint = (...text) => el("p", { class: "faint" }, ...text);

const folded = (title, ...content) => el("details", {}, el("summary", {}, title), ...content);

const swatch = (colour) =>
  el("span", { class: "swatch", style: `background: rgb(${colour.map(Number).join(" ")})` });

const SERIES = 8;
const seriesColour = (k) => `var(--series-${k % SERIES})`;
const dashed = (k) => k >= SERIES;
const seriesKey = (k) =>
  el("span", { class: dashed(k) ? "key dashed" : "key", style: `color: ${seriesColour(k)}` });

/** A label and a select with these [value, text] options. */
function choice(text, options, chosen, onchange) {
  const id = freshId();
  const select = el("select", { id, onchange: () => onchange(select.value) },
    options.map(([value, label]) => el("option", { value, selected: String(value) === String(chosen) }, label)));
  return [el("label", { for: id }, text), select];
}
