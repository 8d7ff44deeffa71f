// The score: panels over one time axis, under one playhead.  Column t of every picture is step t.

/** A panel: a heading, a picture with a legend, and a table of the same numbers. */
class Panel {
  constructor(id, heading, note) {
    this.id = id;
    this.heading = heading;
    this.note = note;
    this.plot = el("div", { class: "plot" });
    this.end = el("div", { class: "end", "aria-hidden": "true" });
    this.legend = el("div", { class: "legend" });
    this.tableBox = el("div", { class: "data" });
    this.noteBox = el("p", { class: "note" });
    this.element = el("section", { class: "panel", id: `panel-${id}`, "aria-label": this.title },
      el("div", { class: "label" },
        el("h2", {}, heading),
        this.noteBox, this.legend,
        el("details", { class: "more" },
          el("summary", { "aria-label": `table and pictures of ${this.title}` }, "···"),
          el("button", { type: "button", onclick: () => this.toggleTable() }, "table"),
          el("button", { type: "button", onclick: () => savePicture(this, "png") }, "PNG"),
          el("button", { type: "button", onclick: () => savePicture(this, "svg") }, "SVG"))),
      this.plot, this.end, this.tableBox);
    this.plot.addEventListener("pointermove", (event) => this.hover(event));
    this.plot.addEventListener("pointerleave", () => hideTip());
    this.plot.addEventListener("click", (event) => this.click(event));
  }

  get title() {
    return this.heading.textContent || String(this.heading);
  }

  /** The step under a pointer. */
  stepAt(event) {
    const box = this.plot.getBoundingClientRect();
    return Math.max(0, Math.min(MODEL.T - 1, Math.floor(((event.clientX - box.left) / box.width) * MODEL.T)));
  }

  hover(event) {
    const words = this.words(this.stepAt(event), event);
    if (words) showTip(words, event);
  }

  click(event) {
    go({ t: this.stepAt(event) });
  }

  words() {
    return null;
  }

  toggleTable(open = !this.tableBox.firstChild) {
    if (!open) return this.tableBox.replaceChildren();
    const { caption, columns, rows } = this.table();
    this.tableBox.replaceChildren(el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, makeTable(caption, columns, rows)));
  }

  drawLegend(scale) {
    const bar = el("canvas", { width: 256, height: 1, "data-low": exact(round(scale.low)), "data-high": exact(round(scale.high)), "data-root": scale.root ? "1" : null, "aria-hidden": "true" });
    const pixels = bar.getContext("2d").createImageData(256, 1);
    scale.colours.forEach((colour, k) => pixels.data.set([...colour, 255], 4 * k));
    bar.getContext("2d").putImageData(pixels, 0, 0);
    this.legend.replaceChildren(bar, el("div", { class: "ticks" }, scale.ticks().map((tick) =>
      el("span", { style: { left: `${100 * tick.place}%` } }, rough(tick.value)))));
  }

  /** Draw for a view; the table, if it is open, follows. */
  draw(view) {
    this.view = view;
    this.noteBox.replaceChildren(...[this.noteFor(view)].flat().filter(Boolean));
    this.drawPicture(view);
    if (this.tableBox.firstChild) this.toggleTable(true);
  }

  noteFor() {
    return this.note;
  }

  /** Follow the playhead and the chosen unit. */
  point() {}
}

/** A grid of colours: time to the right, `rows` down, each a list of T values or null for a gap. */
function drawGrid(canvas, rows, scale) {
  canvas.classList.toggle("wide", MODEL.T > 300); // more steps than a screen has room for are averaged by the browser
  canvas.width = MODEL.T;
  canvas.height = Math.max(rows.length, 1);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const pixels = context.createImageData(canvas.width, canvas.height);
  rows.forEach((row, y) => {
    if (!row) return;
    for (let t = 0; t < MODEL.T; t++) pixels.data.set([...scale.colour(row[t]), 255], 4 * (y * MODEL.T + t));
  });
  context.putImageData(pixels, 0, 0);
}

const column = (t) => `${(100 * (t + 0.5)) / MODEL.T}%`;

// ---- the image, on its side

class ImagePanel extends Panel {
  constructor() {
    super("image", el("span", {}, MODEL.isImage ? "image" : "input"), null);
    this.canvas = el("canvas", { class: "grid", "data-map": "image" });
    this.unread = el("div", { class: "unread" });
  }

  /** Few values, or none of an image, are drawn as curves. */
  get asCurves() {
    return MODEL.D === 1 || (!MODEL.isImage && MODEL.D <= 12);
  }

  noteFor({ pass }) {
    const scaled = pass.get("raw") ? ", as the model reads them; a pointer shows those of the file too" : "";
    if (this.asCurves) return `${MODEL.D === 1 ? "one value" : `${MODEL.D} values`} a ${MODEL.step}${scaled}`;
    return MODEL.isImage && MODEL.view === "rows" ? "on its side: row t stands in column t" : `what step t reads stands in column t`;
  }

  drawPicture({ pass }) {
    const x = pass.get("x");
    this.scale = new Scale("ink", x.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    if (x.some((value) => value < 0)) this.scale = new Scale("signed", this.scale.high);
    if (this.asCurves) {
      const colour = (k) => (k === 0 ? "var(--ink)" : `var(--class-${((k - 1) % 4) + 1})`);
      const lines = Array.from({ length: MODEL.D }, (_, k) => ({ values: Array.from({ length: MODEL.T }, (_, t) => x[t * MODEL.D + k]), class: "curve thin", colour: colour(k) }));
      const [low, high] = [this.scale.low, this.scale.high];
      this.plot.replaceChildren(curves(lines, low, high), this.unread);
      this.plot.style.height = "96px";
      this.end.style.height = "96px";
      if (MODEL.D > 1) endLabels(this.end, lines.map((line, k) => ({ place: 1 - (line.values[MODEL.T - 1] - low) / (high - low), text: shortName(featureName(k, `x${k}`)), colour: line.colour })), 96);
      this.legend.replaceChildren(el("p", { class: "note" }, `${rough(low)} … ${rough(high)}`));
      return;
    }
    // turned to the left: the image's first column is at the bottom
    const rows = Array.from({ length: MODEL.D }, (_, k) => MODEL.D - 1 - k).map((k) => Array.from({ length: MODEL.T }, (_, t) => x[t * MODEL.D + k]));
    drawGrid(this.canvas, rows, this.scale);
    this.plot.replaceChildren(this.canvas, this.unread);
    this.plot.style.height = `${Math.max(72, Math.min(4 * MODEL.D, 128))}px`;
    this.drawLegend(this.scale);
  }

  point({ t }) {
    this.unread.style.left = `${(100 * (t + 1)) / MODEL.T}%`;
  }

  words(t, event) {
    const box = this.plot.getBoundingClientRect();
    const k = MODEL.D - 1 - Math.floor(((event.clientY - box.top) / box.height) * MODEL.D);
    if (this.asCurves) return `${MODEL.step} ${t + 1}: ${Array.from({ length: MODEL.D }, (_, k) => this.value(t, k)).join(", ")}`;
    if (k < 0 || k >= MODEL.D) return null;
    return `${MODEL.step} ${t + 1}, ${MODEL.features ? "" : `value ${k}: `}${this.value(t, k)}`;
  }

  /** What the model reads; before it, where there is one, what the file has, from which that was made. */
  value(t, k) {
    const { pass } = this.view;
    const raw = pass.get("raw");
    const read = exact(pass.get("x")[t * MODEL.D + k]);
    const name = featureName(k, "");
    return `${name}${name && " "}${raw ? `${Number(raw[t * MODEL.D + k].toPrecision(7))}, read as ` : ""}${read}`;
  }

  table() {
    const x = this.view.pass.get("x");
    return { caption: `what each ${MODEL.step} reads`, columns: [MODEL.step, ...Array.from({ length: MODEL.D }, (_, k) => featureName(k))],
      rows: Array.from({ length: MODEL.T }, (_, t) => [`${t + 1}`, ...Array.from(x.subarray(t * MODEL.D, (t + 1) * MODEL.D), exact)]) };
  }
}

// ---- curves

/** An SVG of curves over the steps; `low` and `high` are the limits of the values. */
function curves(lines, low, high) {
  const y = (value) => (100 * (1 - (value - low) / (high - low || 1))).toFixed(3);
  return svg("svg", { class: "curves", viewBox: `0 0 ${MODEL.T} 100`, preserveAspectRatio: "none", "aria-hidden": "true" },
    lines.map((line) => svg("polyline", { class: line.class, stroke: line.colour || null,
      points: line.values.map((value, t) => (Number.isFinite(value) ? `${t + 0.5},${y(value)}` : "")).join(" ") })));
}

/** Labels at the right end of curves, pushed apart where they would overlap: [{place 0 ... 1 from the top, text, colour}]. */
function endLabels(box, labels, height) {
  const gap = 13 / height;
  const sorted = [...labels].sort((a, b) => a.place - b.place);
  let free = -Infinity;
  for (const label of sorted) {
    label.place = Math.max(label.place, free);
    free = label.place + gap;
  }
  const over = free - gap - 1;
  if (over > 0) for (let k = sorted.length - 1, limit = 1; k >= 0; k--, limit = sorted[k + 1].place - gap) sorted[k].place = Math.min(sorted[k].place, limit);
  box.replaceChildren(...sorted.map((label) => el("span", { class: "end-label", style: { top: `${100 * label.place}%`, color: label.colour } }, label.text)));
}

/** The colours of classes: the accent for the answer, others for what was the answer for a while. */
function classColours(pass) {
  const colours = new Map([[pass.answer, "var(--accent)"]]);
  const winners = [...new Set(pass.runs.map((run) => run.k))].filter((k) => k !== null && k !== pass.answer);
  winners.forEach((k, place) => colours.set(k, place < 4 ? `var(--class-${place + 1})` : "var(--quiet)"));
  return colours;
}

class ProbabilityPanel extends Panel {
  constructor() {
    super("p", el("span", {}, el("i", {}, "p"), "(class)"), null);
  }

  noteFor() {
    const both = MODEL.directions > 1 && MODEL.readOut === "final_state" ? "after as many steps in each direction" : null;
    return ["The read-out, asked after every ", MODEL.step, ". It was trained on the last one only: before that this is a probe", both ? `, ${both}.` : "."];
  }

  drawPicture({ pass, other }) {
    const colours = classColours(pass);
    const height = 120;
    const lines = Array.from({ length: MODEL.K }, (_, k) => k)
      .sort((a, b) => (colours.has(a) ? 1 : 0) - (colours.has(b) ? 1 : 0) || (a === pass.answer ? 1 : -1))
      .map((k) => ({ k, values: Array.from({ length: MODEL.T }, (_, t) => pass.probability(t, k)),
        class: k === pass.answer ? "curve answer" : colours.has(k) ? "curve" : "curve faint", colour: colours.get(k) || "var(--faint)" }));
    const peaks = pass.runs.filter((run) => run.k !== null && run.to < MODEL.T - 1).map((run) => {
      let best = run.from;
      for (let t = run.from; t <= run.to; t++) if (pass.probability(t, run.k) > pass.probability(best, run.k)) best = t;
      const p = pass.probability(best, run.k);
      return el("span", { class: "peak", style: { left: column(best), top: `${100 * (1 - p)}%`, color: colours.get(run.k) } }, shortName(className(run.k)));
    });
    const strip = el("div", { class: "strip" }, pass.runs.map((run) => {
      const sure = Math.max(...Array.from({ length: run.to - run.from + 1 }, (_, k) => (run.k === null ? 0 : pass.probability(run.from + k, run.k))));
      return el("div", { class: run.k === null ? "run none" : "run", title: `${answerOf(run)}: ${MODEL.step} ${run.from + 1} to ${run.to + 1}, up to ${percent(sure)}`,
        style: { left: `${(100 * run.from) / MODEL.T}%`, width: `${(100 * (run.to - run.from + 1)) / MODEL.T}%`, "--of": run.k === null ? "var(--faint)" : colours.get(run.k) } },
      el("span", {}, run.k === null ? "?" : shortName(className(run.k))));
    }));
    const pale = other || pass.heldFrom;
    if (pale) {
      const shown = new Map([...classColours(pale), ...colours]);
      const ghosts = [...shown].map(([k, colour]) => ({ values: Array.from({ length: MODEL.T }, (_, t) => pale.probability(t, k)), class: "curve ghost", colour }));
      lines.unshift(...ghosts);
    }
    this.chart = curves(lines, 0, 1);
    this.plot.replaceChildren(el("div", { class: "chart", style: { height: `${height}px` } }, el("div", { class: "rule", style: { top: "50%" } }), this.chart, peaks), strip);
    const last = Array.from({ length: MODEL.K }, (_, k) => ({ k, p: pass.probability(MODEL.T - 1, k) })).sort((a, b) => b.p - a.p).filter(({ p }, place) => place === 0 || (p >= 0.05 && place < 3));
    endLabels(this.end, last.map(({ k, p }) => ({ place: 1 - p, text: `${shortName(className(k), 8)}  ${(100 * p).toFixed(1)} %`, colour: colours.get(k) || "var(--quiet)" })), height);
    this.end.style.height = `${height}px`;
    this.legend.replaceChildren(el("p", { class: "note" }, "0 … 1, dotted at ½"));
  }

  words(t) {
    const { pass } = this.view;
    const best = Array.from({ length: MODEL.K }, (_, k) => k).sort((a, b) => pass.probability(t, b) - pass.probability(t, a)).slice(0, 3);
    return `after ${MODEL.step} ${t + 1}: ${best.map((k) => `${className(k)} ${percent(pass.probability(t, k))}`).join(", ")}`;
  }

  table() {
    const { pass } = this.view;
    return { caption: `class probabilities after every ${MODEL.step}`, columns: [MODEL.step, ...Array.from({ length: MODEL.K }, (_, k) => className(k)), "answer", "margin", "entropy in bits"],
      rows: Array.from({ length: MODEL.T }, (_, t) => {
        const p = Array.from({ length: MODEL.K }, (_, k) => pass.probability(t, k));
        const sorted = [...p].sort((a, b) => b - a);
        const entropy = -p.reduce((sum, share) => sum + (share > 0 ? share * Math.log2(share) : 0), 0);
        return [`${t + 1}`, ...p.map(exact), className(pass.answers[t]), rough(sorted[0] - sorted[1]), rough(entropy)];
      }) };
  }
}

// ---- maps of units over time

class MapPanel extends Panel {
  constructor(value, gradient = false) {
    const heading = el("span", {}, gradient ? "d" : null, valueSymbol(value, null), " ", el("span", { class: "plain" }, gradient ? "its gradient" : nameOf(value)));
    super(gradient ? `d-${value}` : value, heading, null);
    this.value = value;
    this.gradient = gradient;
    this.canvas = el("canvas", { class: "grid", "data-map": this.id });
    this.cursor = el("div", { class: "cursor" });
    this.rowMark = el("div", { class: "row-mark" });
    this.plot.setAttribute("tabindex", 0);
    this.plot.setAttribute("role", "application");
    this.plot.setAttribute("aria-roledescription", "map");
  }

  noteFor({ pass, layer, other }) {
    if (other && !this.gradient) return "difference";
    const scale = this.scaleOf(pass, layer);
    if (scale.root && this.value === "c" && !this.gradient) return "not held to ±1; colours by square root";
    return scale.root ? "colours by square root" : null;
  }

  scaleOf(pass, layer) {
    const wanted = this.gradient ? FREE : CELL.scales[this.value] || FREE;
    if (wanted.limit) return new Scale(wanted.map, wanted.limit);
    const largest = (one) => (one.values(layer, this.value, this.gradient) || []).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    // one scale for all samples of the file, so that they can be compared
    const limit = pass.array(`limit ${layer.name} ${this.id}`, () => Math.max(largest(pass), ...(pass.inPage ? [] : PASSES.map(largest))));
    return new Scale("signed", limit, true);
  }

  drawPicture(view) {
    const { layer, groups, pass } = view;
    this.element.hidden = this.gradient && !pass.hasGradients;
    if (this.element.hidden) return;
    this.rows = groups.flatMap((group, k) => (k ? [null, ...group.units] : group.units));
    const values = this.rows.map((unit) => (unit === null ? null : Array.from({ length: MODEL.T }, (_, t) => this.shown(t, unit))));
    const largest = () => Math.max(...values.filter(Boolean).flat().map(Math.abs));
    this.scale = view.other && !this.gradient ? new Scale("signed", largest(), true) : this.scaleOf(pass, layer);
    drawGrid(this.canvas, values, this.scale);
    this.canvas.dataset.rows = this.rows.map((unit) => (unit === null ? "" : layer.id(unit))).join(",");
    const height = this.rows.length <= 40 ? 7 : 3;
    this.plot.style.height = `${height * this.rows.length}px`;
    this.end.style.height = this.plot.style.height;
    this.plot.replaceChildren(this.canvas, this.rowMark, this.cursor);
    let above = 0;
    this.end.replaceChildren(...groups.map((group) => {
      const top = above;
      above += group.units.length + 1;
      if (!group.title) return null;
      return el("span", { class: "group", title: group.title, style: { top: `${(100 * top) / this.rows.length}%`, height: `${(100 * group.units.length) / this.rows.length}%` } }, group.title.split(":")[0]);
    }).filter(Boolean));
    this.drawLegend(this.scale);
    this.plot.setAttribute("aria-label", `${this.title}: ${this.rows.filter((unit) => unit !== null).length} units over ${MODEL.T} ${MODEL.steps}, from ${rough(this.scale.low)} to ${rough(this.scale.high)}; arrow keys move`);
  }

  point({ t, unit, v }) {
    if (this.element.hidden) return;
    const row = this.rows.indexOf(unit);
    const box = { top: `${(100 * row) / this.rows.length}%`, height: `${100 / this.rows.length}%`, display: row < 0 ? "none" : "block" };
    Object.assign(this.rowMark.style, box);
    Object.assign(this.cursor.style, box, { left: `${(100 * t) / MODEL.T}%`, width: `${100 / MODEL.T}%` });
    this.element.classList.toggle("chosen", v === this.value);
  }

  /** The number that a place in the map stands for: a value, a gradient, or a difference. */
  shown(t, unit) {
    const { pass, layer, other } = this.view;
    const number = pass.at(layer, this.value, t, unit, this.gradient);
    return other && !this.gradient ? number - other.at(layer, this.value, t, unit) : number;
  }

  unitAt(event) {
    const box = this.plot.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows.length);
    return this.rows[Math.max(0, Math.min(this.rows.length - 1, row))];
  }

  click(event) {
    const unit = this.unitAt(event);
    if (unit === null) return;
    go({ t: this.stepAt(event), u: unit, v: this.value, tab: this.gradient ? "backward" : STATE.tab === "backward" ? "forward" : STATE.tab });
    openCard();
  }

  words(t, event) {
    const unit = this.unitAt(event);
    if (unit === null) return null;
    return `${this.gradient ? "d" : ""}${this.value}, unit ${this.view.layer.id(unit)}, ${MODEL.step} ${t + 1}: ${this.view.other && !this.gradient ? `difference ${computed(this.shown(t, unit))}` : exact(this.shown(t, unit))}`;
  }

  table() {
    const { layer } = this.view;
    const units = this.rows.filter((unit) => unit !== null);
    return { caption: `${this.title}: units down, ${MODEL.steps} to the right`, columns: ["unit", ...Array.from({ length: MODEL.T }, (_, t) => `${t + 1}`)],
      rows: units.map((unit) => [`${layer.id(unit)}`, ...Array.from({ length: MODEL.T }, (_, t) => (this.view.other ? computed : exact)(this.shown(t, unit)))]) };
  }
}

// ---- the axis

function drawAxis(box) {
  const every = [1, 2, 3, 4, 5, 7, 14, 28, 56, 112].find((step) => MODEL.T / step <= 10) || Math.ceil(MODEL.T / 10);
  const steps = Array.from({ length: MODEL.T }, (_, t) => t).filter((t) => t % every === 0 || t === MODEL.T - 1)
    .filter((t) => t === MODEL.T - 1 || MODEL.T - 1 - t >= every / 2);
  box.replaceChildren(el("span", { class: "label" }, `${MODEL.step} t`), el("div", { class: "plot" }, steps.map((t) => el("span", { style: { left: column(t) } }, `${t + 1}`))), el("span", { class: "end" }));
}

// ---- what a pointer is over

function showTip(words, event) {
  const tip = byId("tip");
  tip.textContent = words;
  tip.hidden = false;
  tip.style.left = "0"; // where the edge of the window does not narrow it
  const { offsetWidth: width, offsetHeight: height } = tip;
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${event.clientY > height + 36 ? event.clientY - height - 10 : event.clientY + 20}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

// ---- pictures of a panel, to keep

/** A panel as a picture that stands by itself, with its heading, axis and limits. */
function pictureOf(panel) {
  const [left, width, top] = [40, 720, 64];
  const plot = panel.plot.getBoundingClientRect();
  const height = Math.max(plot.height, 60);
  const ink = cssColour("--ink");
  const parts = [
    svg("rect", { width: left + width + 90, height: top + height + 60, fill: cssColour("--paper") }),
    svg("text", { x: left, y: 28, fill: ink, "font-size": 18, "font-weight": 600 }, panel.title.trim()),
    svg("text", { x: left, y: 48, fill: cssColour("--quiet"), "font-size": 12 }, subtitle(panel.view)),
  ];
  const canvas = panel.plot.querySelector("canvas.grid");
  if (canvas) {
    parts.push(svg("image", { x: left, y: top, width, height, href: canvas.toDataURL(), preserveAspectRatio: "none", "image-rendering": "pixelated" }));
  }
  const drawn = panel.plot.querySelector("svg.curves");
  if (drawn) {
    const copy = svg("svg", { x: left, y: top, width, height, viewBox: drawn.getAttribute("viewBox"), preserveAspectRatio: "none" });
    drawn.querySelectorAll("polyline").forEach((line) => copy.append(svg("polyline", { points: line.getAttribute("points"), fill: "none",
      stroke: getComputedStyle(line).stroke, "stroke-width": getComputedStyle(line).strokeWidth, "vector-effect": "non-scaling-stroke" })));
    parts.push(copy);
  }
  for (let t = 0; t < MODEL.T; t += Math.max(1, Math.round(MODEL.T / 9))) {
    parts.push(svg("text", { x: left + (width * (t + 0.5)) / MODEL.T, y: top + height + 18, fill: ink, "font-size": 11, "text-anchor": "middle" }, `${t + 1}`));
  }
  const limits = panel.scale ? `${MODEL.step} t; colours from ${rough(panel.scale.low)} to ${rough(panel.scale.high)}${panel.scale.root ? ", by square root" : ""}` : `${MODEL.step} t`;
  parts.push(svg("text", { x: left, y: top + height + 42, fill: cssColour("--quiet"), "font-size": 12 }, limits));
  const all = { width: left + width + 90, height: top + height + 60 };
  const picture = svg("svg", { xmlns: SVG, width: all.width, height: all.height, viewBox: `0 0 ${all.width} ${all.height}`, "font-family": "Helvetica, Arial, sans-serif" }, parts);
  return { text: new XMLSerializer().serializeToString(picture), ...all };
}

async function savePicture(panel, kind) {
  const picture = pictureOf(panel);
  const name = `${panel.id}-${panel.view.pass.name}.${kind}`.replace(/[^\w.-]+/g, "-");
  if (kind === "svg") return download(new Blob([picture.text], { type: "image/svg+xml" }), name);
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture.text)}`;
  await image.decode();
  const canvas = el("canvas", { width: 2 * picture.width, height: 2 * picture.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => download(blob, name));
}

function download(blob, name) {
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
