"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const { runs, groups } = report;
const alone = runs.length === 1;

const FIGURES = [["miou", "mIoU"], ["mean_accuracy", "mean accuracy"], ["pixel_accuracy", "pixel accuracy"],
  ["miou_at_size", "mIoU at training size"], ["map", "mAP of tags"], ["mean_f1", "mean F1 of tags"]];

/** [key, heading] of every figure that some result has: the usual ones first, then what a method adds. */
function figuresOf(results) {
  const usual = FIGURES.map(([key]) => key);
  const found = new Set(results.flatMap((figures) => Object.keys(figures).filter((key) =>
    typeof (Array.isArray(figures[key]) ? figures[key][0] : figures[key]) === "number")));
  const added = [...found].filter((key) => !usual.includes(key) && key !== "images" && !key.startsWith("per_class."));
  return [...FIGURES.filter(([key]) => found.has(key)), ...added.map((key) => [key, key.replaceAll("_", " ")])];
}

const resultName = (name, position) =>
  el("span", {}, name, position === 0 ? el("span", { class: "tag" }, "main") : null);

const citation = (paper, name) =>
  typeof paper[name] === "number" ? el("span", { class: "paper" }, share(paper[name])) : NOTHING;

const papersFigure = (paper) => `the paper's ${paper.figure ? paper.figure.replaceAll("_", " ") : "mIoU"}`;
const PAPERS_OWN = "The paper's figures are those in the config, for the settings of its file; "
  + "runs with other settings are not comparable.";
const COVERED = "Void pixels of a mask count as wrong. Coverage is the share of the others (mean coverage: over the classes "
  + "of the truth), precision the share of these that are right, and covered miou their mIoU.";
const withPaper = (paper) => Object.values(paper).some((value) => typeof value === "number");

/** A word of a command, quoted where a shell would split it, and broken over lines only where it must be. */
function commandWord(word) {
  const quoted = /^[\w./:=,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
  return [el("span", { class: "word" }, quoted), " "];
}

/** A setting as it is written: texts as they are, the rest as JSON. */
const written = (value) => (value === undefined ? NOTHING : typeof value === "string" ? value : JSON.stringify(value));

/** How many of each kind: "8 x NVIDIA H100". */
const counted = (kinds) =>
  [...new Set(kinds)].map((kind) => `${kinds.filter((other) => other === kind).length} x ${kind}`).join(", ");

function header() {
  const facts = [
    ["method", (run) => run.method],
    ["dataset", (run) => `${run.dataset} ${run.versions.dataset || ""}`],
    ["config", (run) => run.config_name],
    ["label budget", (run) => Object.entries(run.budget).map(([role, count]) => `${count} ${role}`).join(", ")],
    ["seed", (run) => String(run.seed)],
    ["state", (run) => (run.finished ? "finished" : "not finished")],
    ["devices", (run) => counted(run.devices)],
    ["time", (run) => duration(run.seconds)],
    ["written", (run) => run.written],
    ["git revision", (run) => el("code", {}, run.git_revision || NOTHING)],
    ["command", (run) => el("code", {}, run.command.map(commandWord))],
    ["folder", (run) => el("code", {}, run.path)],
  ];
  const columns = ["", ...runs.map((run) => run.name)];
  const rowsOf = (entries, get) => entries.map((key) => [key, ...runs.map((run) => get(run, key))]);
  const union = (get) => [...new Set(runs.flatMap((run) => Object.keys(get(run))))];
  const settings = rowsOf(union((run) => run.settings), (run, key) => written(run.settings[key]));
  const versions = rowsOf(union((run) => run.versions), (run, key) => run.versions[key] || NOTHING);
  const differs = (row) => (row.slice(1).some((value) => value !== row[1]) ? "differs" : null);
  return [
    table(columns, facts.map(([name, get]) => [name, ...runs.map(get)]), { kind: "wide", label: "Facts of the runs" }),
    folded("All settings", table(columns, settings, { label: "All settings", marked: differs })),
    folded("Versions", table(columns, versions, { label: "Versions", marked: differs })),
  ];
}

function resultTable(run) {
  const entries = Object.entries(run.results);
  const figures = figuresOf(entries.map(([, values]) => values));
  const cited = withPaper(run.paper);
  const rows = entries.map(([name, values], k) => [resultName(name, k), ...figures.map(([key]) => share(values[key])),
    values.images, values.split, ...(cited ? [citation(run.paper, name)] : [])]);
  const columns = ["result", ...figures.map(([, text]) => text), "images", "split",
    ...(cited ? [papersFigure(run.paper)] : [])];
  return table(columns, rows, { label: `Results of ${run.name}` });
}

/** [mean, spread, how many] as text; the spread of one is not worth a word. */
function meanAndSpread(found) {
  const [mean, spread, count] = found || [null, 0, 0];
  return count > 1 ? `${share(mean)} ± ${share(spread)}` : share(mean);
}

function groupTable() {
  const all = groups.flatMap((group) => Object.values(group.results));
  const figures = figuresOf(all);
  const cited = groups.some((group) => withPaper(group.paper));
  const rows = groups.flatMap((group) => Object.entries(group.results).map(([name, values], k) => [
    el("span", {}, group.name), resultName(name, k), group.seeds.join(", "),
    ...figures.map(([key]) => meanAndSpread(values[key])), ...(cited ? [citation(group.paper, name)] : [])]));
  const headings = [...new Set(groups.filter((group) => withPaper(group.paper)).map((group) => papersFigure(group.paper)))];
  const columns = ["settings", "result", "seeds", ...figures.map(([, text]) => text),
    ...(cited ? [headings.join(" or ")] : [])];
  return table(columns, rows,
    { caption: "Mean over seeds ± half the range. The runs of a group differ only in their seed." });
}

/** A paper's further figures: lists of equal length are the columns of a table. */
function paperTables() {
  const entries = groups.flatMap((group) => Object.entries(group.paper).map(([name, value]) => [group, name, value]));
  return entries.filter(([, , value]) => value && typeof value === "object").map(([group, name, value]) => {
    const caption = `${group.name}: ${name.replaceAll("_", " ")}, the paper's figures`;
    const columns = Object.keys(value);
    const lists = columns.length && columns.every((key) => Array.isArray(value[key]));
    const length = lists ? Math.max(...columns.map((key) => value[key].length)) : 0;
    const rows = lists
      ? [...Array(length).keys()].map((k) => columns.map((key) => value[key][k]))
      : Object.entries(value).map(([key, item]) => [key, show(item)]);
    return el("div", { class: "paper" }, table(lists ? columns : ["", "value"], rows, { caption }));
  });
}

function results() {
  if (!runs.some((run) => Object.keys(run.results).length)) return [el("p", {}, "No result is measured yet.")];
  const shown = alone
    ? [resultTable(runs[0])]
    : [groupTable(), differences(), folded("Every run", runs.map((run) => [el("h3", {}, run.name), resultTable(run)]))];
  return [faint("Figures at the native size of the images. mIoU is the mean over the classes in the truth or the prediction."),
    runs.some((run) => Object.values(run.results).some((figures) => "coverage" in figures)) ? faint(COVERED) : null,
    runs.some((run) => withPaper(run.paper)) ? faint(PAPERS_OWN) : null, shown, paperTables()];
}

function differences() {
  const cell = (value) => (known(value) ? written(value) : NOTHING);
  const rows = Object.entries(report.differences).map(([key, values]) => [key, ...values.map(cell)]);
  if (!rows.length) return null;
  return folded("What differs between the settings",
    table(["", ...groups.map((group) => group.name)], rows, { label: "Differences", kind: "wide" }));
}

function curves() {
  const stages = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))];
  if (!stages.length) return [el("p", {}, "Nothing is logged yet.")];
  const has = (key, end) => key === end || key.endsWith(`/${end}`) || key.endsWith(` ${end}`);
  const charts = [["loss", (key) => has(key, "loss") && !key.startsWith("eval ")],
    ["learning rate", (key) => has(key, "lr") || has(key, "learning_rate")],
    ["mIoU while training", (key) => key.startsWith("eval ") && key.endsWith("miou")]];
  const chart = (stageName, title, wanted) => {
    const series = runs.flatMap((run, k) => Object.entries(run.curves[stageName] || {})
      .map(([key, [steps, values]]) => ({ run: k, key, steps, values })))
      .filter((s) => wanted(s.key) && s.values.some(known));
    if (!series.length) return null;
    const keys = [...new Set(series.map((s) => s.key))];
    return lineChart(title, series.map((s) => ({
      ...s,
      label: [alone ? null : runs[s.run].name, keys.length > 1 || alone ? s.key : null].filter(known).join(" "),
      number: s.run + runs.length * keys.indexOf(s.key),
    })));
  };
  const usual = stages.flatMap((name) =>
    charts.map(([title, wanted]) => chart(name, `${name}: ${title}`, wanted)));
  const rest = stages.flatMap((name) => [...new Set(runs.flatMap((run) => Object.keys(run.curves[name] || {})))]
    .filter((key) => !charts.some(([, wanted]) => wanted(key))).map((key) => [name, key]));
  const further = folded("Other logged values");
  // Drawn when they are opened, because a hidden chart has no width.
  further.addEventListener("toggle", () => {
    if (further.open && further.children.length === 1) {
      further.append(el("div", { class: "charts" },
        rest.map(([name, key]) => chart(name, `${name}: ${key}`, (other) => other === key))));
    }
  });
  return [el("div", { class: "charts" }, usual), rest.length ? further : null];
}

function perClass() {
  const lists = new Map();
  for (const group of groups) {
    const run = runs[group.runs[0]];
    // With several groups only the main results are shown at first; with one, as many as can be distinguished.
    const shown = {};
    Object.entries(group.results).forEach(([name, values]) => {
      const figure = values.map ? "average precision of tags" : "IoU";
      const key = JSON.stringify([run.dataset, run.classes, figure]);
      if (!lists.has(key)) lists.set(key, { run, figure, series: [] });
      shown[figure] ??= 0;
      lists.get(key).series.push({ label: groups.length > 1 ? `${group.name}: ${name}` : name, values,
        on: shown[figure] < (groups.length > 1 ? 1 : 6) });
      shown[figure] += 1;
    });
  }
  return [...lists.values()].map(({ run, figure, series }) => {
    // All figures have one width, so that all bars have one scale.
    const spread = series.some((s) => Object.values(s.values).some(([, , count]) => count > 1));
    const bars = el("dl", { class: spread ? "classes spread" : "classes" });
    const on = series.map((s) => s.on);
    const draw = () => bars.replaceChildren(...run.classes.flatMap((name, i) => [
      el("dt", {}, swatch(run.palette[i]), " ", name),
      el("dd", {}, series.map((s, k) => (on[k] ? bar(s, k, name) : null)))]));
    draw();
    const boxes = series.map((s, k) => el("label", {},
      el("input", { type: "checkbox", checked: on[k], onchange: (event) => { on[k] = event.target.checked; draw(); } }),
      seriesKey(k), s.label));
    return [lists.size > 1 ? el("h3", {}, `${run.dataset}: ${figure}`) : null,
      el("fieldset", { class: "choices", "aria-label": "Results shown" }, boxes), bars];
  });
}

function bar(s, k, name) {
  const found = s.values[`per_class.${name}`];
  const text = meanAndSpread(found);
  const colour = seriesColour(k);
  const fillOf = dashed(k) ? `repeating-linear-gradient(90deg, ${colour} 0 6px, transparent 6px 9px)` : colour;
  return el("div", { class: "bar", title: `${s.label}: ${text}` },
    el("i", {}, found ? el("b", { style: `width: ${100 * found[0]}%; background: ${fillOf}` }) : null),
    el("span", {}, text));
}

function confusionMatrix() {
  const measured = runs.filter((run) => run.measured);
  if (!measured.length) return [el("p", {}, "Not measured; see the list of what is left out.")];
  const place = el("div", {});
  const draw = (position) => {
    const { measured: found, classes, palette, name } = measured[position];
    const over = found.classes_measured < classes.length
      ? ` over ${found.classes_measured} of ${classes.length} classes` : "";
    place.replaceChildren(
      faint(measured.length > 1 ? `${name}: ` : "",
        `${found.result} on ${found.images} images of the split ${found.split}, measured for this report: `,
        `mIoU ${share(found.miou)}${over}, mean accuracy ${share(found.mean_accuracy)}, `,
        `pixel accuracy ${share(found.pixel_accuracy)}.`),
      heatMap(found.confusion, classes, palette));
  };
  draw(0);
  const options = measured.map((run, k) => [k, run.name]);
  return [options.length > 1 ? el("p", {}, choice("Run ", options, 0, draw)) : null, place];
}

function pictures() {
  const shown = report.galleries.filter((gallery) => gallery.pictures.length);
  if (!shown.length) return [el("p", {}, "No images; see the list of what is left out, or give --images a number above 0.")];
  const chosenIn = (gallery) => (gallery.runs.length > 1 ? ` in ${runs[gallery.runs[0]].name}` : "");
  return shown.map((gallery) => [
    faint(`${gallery.pictures.length} images of ${gallery.dataset}, split ${gallery.split}: the best, the worst and `,
      `others evenly between by the mIoU of a single image${chosenIn(gallery)}. `,
      "Drag over the overlay to swipe. Masks are black where they have no label, and where a class is black, as a background often is."),
    galleryView(gallery, runs)]);
}

function timing() {
  const source = (read) => `${read.images} images of ${read.dataset}/${read.split} (${read.ids})`;
  const rows = runs.flatMap((run) => run.stages.map((stage) => [
    ...(alone ? [] : [run.name]), stage.name,
    stage.done ? "done" : stage.at ? `at step ${stage.at} of ${stage.steps}` : "not done",
    known(stage.steps) ? `${stage.steps} steps` : known(stage.examples) ? `${stage.examples} images` : NOTHING,
    duration(stage.seconds), duration(stage.compile_seconds),
    known(stage.images_per_second) ? stage.images_per_second.toFixed(1) : NOTHING, percent(stage.data_wait),
    Object.values(stage.read || {}).map(source).join("; ") || NOTHING]));
  const columns = ["stage", "state", "length", "time", "compilation", "images/s", "waiting for data", "reads"];
  const caption = "Images/s is the median and waiting for data the mean of the logged intervals, without the first one, "
    + "which includes the compilation.";
  return [table([...(alone ? [] : ["run"]), ...columns], rows, { caption })];
}

function tables() {
  return runs.flatMap((run) => Object.entries(run.tables).map(([name, { columns, rows, caption }]) =>
    [el("h3", {}, alone ? name : `${run.name}: ${name}`), table(columns, rows, { caption, label: name })]));
}

function leftOut() {
  if (!report.left_out.length) return null;
  return el("div", { class: "left-out" }, el("p", {}, el("strong", {}, "Left out")),
    el("ul", {}, report.left_out.map((line) => el("li", {}, line))));
}

const sections = [
  ["runs", alone ? "Run" : "Runs", header],
  ["results", "Results", results],
  ["curves", "Training curves", curves],
  ["per-class", "Figures by class", perClass],
  ["confusion", "Confusion matrix", confusionMatrix],
  ["images", "Images", pictures],
  ["timing", "Timing", timing],
  ["tables", "Tables", tables],
];

document.getElementById("title").append(
  alone ? `${runs[0].name}: ${runs[0].method} on ${runs[0].dataset}` : `${runs.length} runs compared`);
const main = document.getElementById("content");
main.replaceChildren(...[leftOut()].filter(known));
for (const [id, title, make] of sections) {
  const content = make().flat(Infinity).filter(known);
  if (!content.length) continue;
  main.append(el("section", { "aria-labelledby": id }, el("h2", { id }, title), content));
  document.getElementById("contents").append(el("li", {}, el("a", { href: `#${id}` }, title)));
}

const theme = document.getElementById("theme");
theme.addEventListener("click", () => {
  const { style } = document.documentElement;
  const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  style.colorScheme = (style.colorScheme || preferred) === "dark" ? "light" : "dark";
});
