// Where the answer comes from: gradients over time (V7), what mattered in the input (V8), and the whole test set (V6).

const targets = () => ["loss", ...Array.from({ length: MODEL.K }, (_, k) => `${k}`)];
const targetName = (target) => (target === "loss" ? "the loss" : `the logit of ${className(Number(target))}`);
const targetPlace = (target) => Math.max(0, targets().indexOf(target)); // integrated gradients have no norms: the loss's

/** How the cell passes its state on by itself: the gate that multiplies it. */
const DIRECT = { lstm: "Π f", gru: "Π z", gru_reset_before: "Π z" };

class FlowPanel extends Panel {
  constructor() {
    super("flow", el("span", {}, "‖d", el("i", {}, "h"), "‖ ", el("span", { class: "plain" }, "gradient flow")), null);
  }

  noteFor() {
    return `norms of the gradient of ${targetName(STATE.target === "path" ? "loss" : STATE.target)}, log scale`;
  }

  /** The norms over all units, per step: {h, c, direct}, those that the cell has. */
  norms({ pass, layer }) {
    const stored = pass.stored.norms && pass.stored.norms[layer.name];
    if (!stored) return null;
    const from = targetPlace(STATE.target) * MODEL.T;
    return Object.fromEntries(Object.keys(stored).map((name) => {
      const all = pass.array(`norms ${layer.name} ${name}`, () => stored[name]);
      return [name, all.subarray(from, from + MODEL.T)];
    }));
  }

  drawPicture(view) {
    const norms = this.norms(view);
    this.element.hidden = !norms;
    if (!norms) return;
    const labels = { h: "‖dh‖", c: "‖dc‖", direct: DIRECT[MODEL.cell] };
    const colours = { h: "var(--quiet)", c: "var(--accent)", direct: "var(--class-1)" };
    const log = Object.entries(norms).map(([name, values]) => ({ name, values: Array.from(values, (value) => (value > 0 ? Math.log10(value) : NaN)) }));
    const finite = log.flatMap((line) => line.values).filter(Number.isFinite);
    if (!finite.length) return this.plot.replaceChildren(el("p", { class: "note" }, "every gradient is 0"));
    const high = Math.ceil(Math.max(...finite));
    const low = Math.max(Math.floor(Math.min(...finite)), high - 12);
    const decades = Array.from({ length: high - low + 1 }, (_, k) => low + k).filter((power) => (high - low <= 4 ? true : (high - power) % Math.ceil((high - low) / 4) === 0));
    const place = (value) => 1 - (value - low) / (high - low || 1);
    this.plot.style.height = "110px";
    this.end.style.height = "110px";
    this.plot.replaceChildren(
      ...decades.map((power) => el("div", { class: "rule", style: { top: `${100 * place(power)}%` } }, el("span", {}, "10", el("sup", {}, `${power}`)))),
      curves(log.map((line) => ({ values: line.values.map((value) => (Number.isFinite(value) ? Math.max(value, low) : NaN)), class: line.name === "direct" ? "curve dashed" : "curve", colour: colours[line.name] })), low, high));
    const last = view.layer.readAt;
    const first = view.layer.first;
    endLabels(this.end, log.map((line) => {
      const known = line.values.filter(Number.isFinite);
      return { place: place(Math.max(low, known[known.length - 1] ?? low)), text: labels[line.name] || line.name, colour: colours[line.name] };
    }), 110);
    const main = norms.c ? "c" : "h";
    const ratio = norms[main][first] / norms[main][last];
    this.legend.replaceChildren(el("p", { class: "note" }, `‖d${main}‖ at the first ${MODEL.step} is ${rough(ratio)} of that at the last. `,
      norms.direct ? `Dashed: what comes by the direct path alone, ${DIRECT[MODEL.cell]} times the last.` : null));
  }

  words(t) {
    const norms = this.norms(this.view);
    return norms && `${MODEL.step} ${t + 1}: ${Object.entries(norms).map(([name, values]) => `${name === "direct" ? "direct path" : `‖d${name}‖`} ${rough(values[t])}`).join(", ")}`;
  }

  table() {
    const norms = this.norms(this.view) || {};
    const names = Object.keys(norms);
    return { caption: `norms of the gradient of ${targetName(STATE.target)}`, columns: [MODEL.step, ...names.map((name) => (name === "direct" ? "direct path" : `‖d${name}‖`))],
      rows: Array.from({ length: MODEL.T }, (_, t) => [`${t + 1}`, ...names.map((name) => exact(norms[name][t]))]) };
  }
}

class PixelPanel extends Panel {
  constructor() {
    super("dx", el("span", {}, "d", el("i", {}, "x"), " ", el("span", { class: "plain" }, "what mattered")), null);
    this.canvas = el("canvas", { class: "grid", "data-map": "dx" });
  }

  noteFor({ pass }) {
    const integrated = pass.stored.integrated;
    if (STATE.target === "path" && integrated) {
      return `integrated gradients of the logit of ${className(integrated.of)} from ${MODEL.isImage ? "a black image" : "an input of zeros"}, ${integrated.steps} points; their sum misses the change of the logit by ${rough(integrated.gap)}`;
    }
    return `gradient of ${targetName(STATE.target)}; bars: sum of sizes`;
  }

  values({ pass }) {
    if (STATE.target === "path") return pass.stored.integrated ? pass.array("integrated", () => pass.stored.integrated.values) : null;
    if (STATE.target === "loss") return pass.get("dx");
    const all = pass.array("target dx", () => pass.stored.dxOfLogits);
    const size = MODEL.T * MODEL.D;
    return all && all.subarray(Number(STATE.target) * size, (Number(STATE.target) + 1) * size);
  }

  drawPicture(view) {
    const dx = this.values(view);
    this.element.hidden = !dx;
    if (!dx) return;
    this.scale = new Scale("signed", dx.reduce((most, value) => Math.max(most, Math.abs(value)), 0), true);
    const rows = Array.from({ length: MODEL.D }, (_, k) => MODEL.D - 1 - k).map((k) => Array.from({ length: MODEL.T }, (_, t) => dx[t * MODEL.D + k]));
    drawGrid(this.canvas, rows, this.scale);
    const sums = Array.from({ length: MODEL.T }, (_, t) => dx.subarray(t * MODEL.D, (t + 1) * MODEL.D).reduce((sum, value) => sum + Math.abs(value), 0));
    const most = Math.max(...sums) || 1;
    const bars = el("div", { class: "bars" }, sums.map((sum, t) => el("div", { style: { left: `${(100 * t) / MODEL.T}%`, width: `${100 / MODEL.T}%`, height: `${(100 * sum) / most}%` } })));
    this.canvas.style.height = `${Math.max(24, Math.min(4 * MODEL.D, 128))}px`;
    this.plot.replaceChildren(this.canvas, bars);
    this.drawLegend(this.scale);
  }

  words(t, event) {
    const box = this.canvas.getBoundingClientRect();
    const k = MODEL.D - 1 - Math.floor(((event.clientY - box.top) / box.height) * MODEL.D);
    return k < 0 || k >= MODEL.D ? null : `${MODEL.step} ${t + 1}, ${featureName(k, `value ${k}`)}: ${exact(this.values(this.view)[t * MODEL.D + k])}`;
  }

  table() {
    const dx = this.values(this.view);
    return { caption: this.noteFor(this.view), columns: [MODEL.step, ...Array.from({ length: MODEL.D }, (_, k) => featureName(k))],
      rows: Array.from({ length: MODEL.T }, (_, t) => [`${t + 1}`, ...Array.from(dx.subarray(t * MODEL.D, (t + 1) * MODEL.D), exact)]) };
  }
}

/** Accuracy against steps read, and at which step the answer was settled, over the test set. */
class TestPanel extends Panel {
  constructor() {
    super("test", el("span", {}, el("span", { class: "plain" }, "accuracy against steps read")), null);
    this.canvas = el("canvas", { class: "grid", "data-map": "test" });
  }

  noteFor() {
    const report = DATA.test;
    return `${report.count.toLocaleString("en")} ${MODEL.samples}. Below: when the answer became the last one and stayed, by label`;
  }

  drawPicture() {
    const report = DATA.test;
    const accuracy = report.correct.map((count) => count / report.count);
    const labels = report.settled;
    this.scale = new Scale("share", Math.max(...labels.flat().map((count) => count)));
    drawGrid(this.canvas, labels, this.scale);
    this.canvas.style.height = `${11 * MODEL.K}px`;
    this.plot.replaceChildren(
      el("div", { class: "chart", style: { height: "90px" } }, el("div", { class: "rule", style: { top: "50%" } }), curves([{ values: accuracy, class: "curve answer", colour: "var(--ink)" }], 0, 1)),
      el("div", { style: { height: "6px" } }), this.canvas);
    const curve = el("div", { class: "end", style: { height: "96px" } });
    endLabels(curve, [{ place: 1 - accuracy[MODEL.T - 1], text: percent(accuracy[MODEL.T - 1]), colour: "var(--ink)" }], 96);
    const rows = labels.map((_, k) => el("span", { class: "row-label", style: { top: `${(100 * (k + 0.5)) / MODEL.K}%` } }, shortName(className(k))));
    this.end.replaceChildren(curve, el("div", { class: "end", style: { height: `${11 * MODEL.K}px` } }, rows));
    this.drawLegend(this.scale);
  }

  words(t) {
    return `after ${MODEL.step} ${t + 1}: ${percent(DATA.test.correct[t] / DATA.test.count)} right`;
  }

  table() {
    const { correct, count, settled } = DATA.test;
    return { caption: `accuracy after every ${MODEL.step}, and ${MODEL.samples} of each label whose answer was settled there`,
      columns: [MODEL.step, "accuracy", ...Array.from({ length: MODEL.K }, (_, k) => className(k))],
      rows: correct.map((right, t) => [`${t + 1}`, percent(right / count), ...settled.map((row) => `${row[t]}`)]) };
  }
}
