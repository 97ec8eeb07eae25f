"use strict";

/** Round numbers in [low, high], about `count` of them; `around` adds those just outside, so that they enclose it. */
function ticks(low, high, count, around = false) {
  const raw = (high - low) / count || Math.abs(low) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const [down, up] = around ? [Math.floor, Math.ceil] : [Math.ceil, Math.floor];
  const first = down(low / step - (around ? -1e-9 : 1e-9)), last = up(high / step + (around ? -1e-9 : 1e-9));
  return [...Array(last - first + 1).keys()].map((k) => Number(((first + k) * step).toPrecision(12)));
}

function short(value) {
  const extreme = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3);
  return extreme ? value.toExponential(0) : value.toLocaleString("en");
}

/**
 * Lines over steps. Pointing at it, or the arrow keys, show the values at a step.
 * series: [{label, steps, values, number}], where `number` gives colour and dash.
 */
function lineChart(title, series) {
  const box = el("figure", { class: "chart" }, el("h4", {}, title));
  const drawing = svg("svg", { role: "img", tabindex: "0",
    "aria-label": `${title}: ${series.map(described).join("; ")}. Arrow keys show the values.` });
  const told = series.map(() => el("output", {}));
  const stepTold = el("li", { class: "faint" }, "");
  const legend = el("ul", { class: "legend" }, series.map((s, k) =>
    el("li", {}, seriesKey(s.number), s.label, told[k])), stepTold);
  box.append(drawing, legend);

  const steps = [...new Set(series.flatMap((s) => s.steps))].sort((a, b) => a - b);
  const values = series.flatMap((s) => s.values).filter(known);
  const first = steps[0], last = steps[steps.length - 1];
  let low = Math.min(...values), high = Math.max(...values);
  if (low > 0 && low < 0.7 * high) low = 0;
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const marks = ticks(low, high, 4, true);
  [low, high] = [Math.min(low, marks[0]), Math.max(high, marks[marks.length - 1])];
  let at = null;

  const size = { left: 46, right: 24, top: 8, bottom: 34, height: 230 };
  let width = 0;
  const x = (step) => size.left + ((step - first) / (last - first || 1)) * (width - size.left - size.right);
  const tall = size.height - size.top - size.bottom;
  const y = (value) => size.height - size.bottom - ((value - low) / (high - low)) * tall;

  function draw() {
    width = Math.max(drawing.clientWidth, 120);
    drawing.setAttribute("viewBox", `0 0 ${width} ${size.height}`);
    drawing.setAttribute("height", size.height);
    const bottom = size.height - size.bottom;
    const across = marks.map((value) => [
      svg("line", { class: "grid", x1: size.left, x2: width - size.right, y1: y(value), y2: y(value) }),
      svg("text", { x: size.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value))]);
    const along = ticks(first, last, Math.max(2, Math.floor(width / 70))).filter(Number.isInteger).map((step) =>
      svg("text", { x: x(step), y: bottom + 15, "text-anchor": "middle" }, short(step)));
    const lines = series.map((s) => {
      const points = s.steps.map((step, k) => [step, s.values[k]]).filter((point) => known(point[1]));
      const colour = { style: `stroke: ${seriesColour(s.number)}; fill: none` };
      if (points.length === 1) {
        return svg("circle", { ...colour, cx: x(points[0][0]), cy: y(points[0][1]), r: 3, "stroke-width": 2 });
      }
      const places = points.map(([step, value]) => `${x(step).toFixed(1)} ${y(value).toFixed(1)}`);
      return svg("path", { ...colour, d: `M${places.join("L")}`, "stroke-dasharray": dashed(s.number) ? "6 4" : null });
    });
    drawing.replaceChildren(...[across, along,
      svg("text", { x: (size.left + width - size.right) / 2, y: size.height - 3, "text-anchor": "middle" }, "step"),
      lines].flat(Infinity));
    if (at !== null) drawing.append(svg("line", { class: "cursor", x1: x(at), x2: x(at), y1: size.top, y2: bottom }));
  }

  function point(step) {
    at = step;
    series.forEach((s, k) => {
      const position = step === null ? -1 : nearest(s.steps, step);
      told[k].textContent = position < 0 ? "" : show(s.values[position]);
    });
    stepTold.textContent = step === null ? "" : `at step ${step.toLocaleString("en")}`;
    draw();
  }

  function follow(event) {
    const place = drawing.getBoundingClientRect();
    const along = (event.clientX - place.left - size.left) / (width - size.left - size.right);
    point(steps[nearest(steps, first + along * (last - first))]);
  }

  drawing.addEventListener("pointermove", follow);
  drawing.addEventListener("pointerdown", follow);
  drawing.addEventListener("pointerleave", () => point(null));
  drawing.addEventListener("blur", () => point(null));
  drawing.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const now = at === null ? (move > 0 ? -1 : steps.length) : steps.indexOf(at);
    point(steps[Math.min(Math.max(now + move, 0), steps.length - 1)]);
  });
  // In the next frame, because drawing inside the observer may change the size that it reports.
  const redraw = () => { if (drawing.clientWidth !== width) draw(); };
  new ResizeObserver(() => requestAnimationFrame(redraw)).observe(drawing);
  return box;
}

const described = (s) => `${s.label} from ${show(s.values[0])} to ${show(s.values[s.values.length - 1])}`;

function nearest(sorted, wanted) {
  let best = 0;
  sorted.forEach((value, k) => { if (Math.abs(value - wanted) < Math.abs(sorted[best] - wanted)) best = k; });
  return best;
}

/**
 * A confusion matrix, each row a true class with shares of its pixels. Pointing, or the arrow keys, tell the counts.
 * counts: K rows of K + 1 numbers, the last of them pixels to which no class was given.
 */
function heatMap(counts, classes, palette) {
  const columns = [...classes.keys()];
  if (counts.some((row) => row[classes.length] > 0)) columns.push(classes.length);
  const name = (j) => (j < classes.length ? classes[j] : "no class");
  const totals = counts.map((row) => row.reduce((a, b) => a + b, 0));
  const many = classes.length > 24;
  const told = el("p", { class: "told faint", role: "status" },
    "Point at a cell, or use the arrow keys, to see its pixels.");
  const cells = counts.map((row, i) => columns.map((j) => {
    const part = totals[i] ? row[j] / totals[i] : null;
    const cell = el("td", { class: part > 0.5 ? "strong" : null, "--share": part || 0 },
      many ? "" : wholePercent(part));
    const pixels = `${row[j].toLocaleString("en")} pixels, ${percent(part)} of the true ones`;
    cell.told = `true ${name(i)}, predicted ${name(j)}: ${pixels}`;
    return cell;
  }));
  const label = (i) => [i < classes.length ? swatch(palette[i]) : null, ` ${name(i)}`];
  const made = el("table", { class: many ? "confusion many" : "confusion", tabindex: "0",
    "aria-label": "Confusion matrix: rows are true classes, columns predicted ones, in percent of the row" },
    el("thead", {}, el("tr", {}, el("td", {}, "true \\ predicted, %"),
      columns.map((j) => el("th", { scope: "col" }, name(j))))),
    el("tbody", {}, cells.map((row, i) => el("tr", {}, el("th", { scope: "row" }, label(i)), row))));
  let at = null;
  function point(i, j) {
    if (at) at.classList.remove("at");
    at = cells[i][j];
    at.classList.add("at");
    told.textContent = at.told;
  }
  const position = (cell) => {
    const i = cells.findIndex((row) => row.includes(cell));
    return i < 0 ? null : [i, cells[i].indexOf(cell)];
  };
  for (const kind of ["pointerover", "pointerdown"]) {
    made.addEventListener(kind, (event) => {
      const found = position(event.target);
      if (found) point(...found);
    });
  }
  made.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    const [i, j] = at ? position(at) : [0, 0];
    const clamp = (k, count) => Math.min(Math.max(k, 0), count - 1);
    point(clamp(at ? i + move[0] : 0, cells.length), clamp(at ? j + move[1] : 0, columns.length));
    at.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  return el("div", {}, scrolling(made, "Confusion matrix"), told);
}

function wholePercent(part) {
  if (part === null) return NOTHING;
  if (part === 0) return "";
  return part < 0.005 ? "<1" : String(Math.round(100 * part));
}
