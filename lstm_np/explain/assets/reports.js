// What stands below the score: saturation of the gates (V12), and the tensors of the recorded run (V11).

// ---- saturation

/** A square of units: how often each is shut (to the right) and open (upwards). */
function scatter(title, shut, open) {
  const points = Array.from(shut, (share, unit) => svg("circle", { cx: 100 * share, cy: 100 * (1 - open[unit]), r: 2.2 }, svg("title", {}, `unit ${unit}: shut ${percent(share)}, open ${percent(open[unit])}`)));
  return el("figure", { class: "scatter" }, el("figcaption", {}, title),
    svg("svg", { viewBox: "-4 -4 108 108", role: "img", "aria-label": `${title}: ${shut.length} units by how often they are shut and open` },
      svg("rect", { x: 0, y: 0, width: 100, height: 100, class: "frame" }), svg("line", { x1: 0, y1: 0, x2: 100, y2: 100, class: "frame" }), points),
    el("p", { class: "note" }, "→ share of steps below 0.1", el("br"), "↑ share above 0.9"));
}

function drawSaturation(layer) {
  const reports = DATA.saturation;
  byId("saturation").hidden = !reports;
  if (!reports) return;
  const parts = reports.map((report) => {
    const found = report.layers[layer.name];
    const unpacked = Object.fromEntries(Object.entries(found).map(([name, shares]) => [name, Object.fromEntries(Object.entries(shares).map(([kind, packed]) => [kind, unpack(packed)]))]));
    const mean = (values) => percent(values.reduce((sum, value) => sum + value, 0) / values.length);
    const count = (values, limit) => `${values.filter((value) => value > limit).length}`;
    return el("div", {}, el("h3", {}, `${report.title}, ${report.count} ${MODEL.samples}`),
      el("div", { class: "scatters" }, Object.entries(unpacked).filter(([, shares]) => shares.shut).map(([name, shares]) => scatter(el("span", {}, valueSymbol(name, null), " ", nameOf(name)), shares.shut, shares.open))),
      makeTable(`shares over units, steps and ${MODEL.isImage ? "images" : "sequences"}`, ["value", "below 0.1", "above 0.9", "size above 0.99", "units that hardly move"],
        Object.entries(unpacked).map(([name, shares]) => [nameOf(name), shares.shut ? mean(shares.shut) : "", shares.open ? mean(shares.open) : "", shares.flat ? mean(shares.flat) : "", count(shares.still, 0.5)])));
  });
  byId("saturation-body").replaceChildren(...parts);
}

// ---- tensors of the recorded run

function statistics(values) {
  let [low, high, sum, bad] = [Infinity, -Infinity, 0, 0];
  for (const value of values) {
    if (Number.isNaN(value)) bad++;
    else {
      low = Math.min(low, value);
      high = Math.max(high, value);
      sum += value;
    }
  }
  return { low, high, mean: sum / (values.length - bad), bad };
}

/** The tensors of the pass in the order in which they come: {op, name, shape, values, flops}. */
function tensorsOf(pass, layer) {
  const { T, H, K, gates } = MODEL;
  const list = [{ op: "read", name: layer.number ? "outputs below" : "x", shape: [T, layer.inputs], values: pass.inputs(layer) }];
  gates.forEach((name, g) => {
    const rows = `[${g === 0 ? "" : `${g > 1 ? g : ""}H`}:${g + 1 > 1 ? g + 1 : ""}H]`;
    const W = WEIGHTS.get(layer.name, "W");
    list.push({ op: "weights", name: `W${rows}`, note: nameOf(name), shape: [H, layer.inputs], values: W.subarray(g * H * layer.inputs, (g + 1) * H * layer.inputs) });
    list.push({ op: "weights", name: `U${rows}`, note: nameOf(name), shape: [H, H], values: WEIGHTS.get(layer.name, "U").subarray(g * H * H, (g + 1) * H * H) });
  });
  list.push({ op: "W x + U h + b", name: "a", shape: [T, gates.length * H], values: pass.pre(layer), flops: 2 * T * gates.length * H * (layer.inputs + H) });
  for (const equation of CELL.forward) {
    const flops = equation.product ? 2 * T * H * H : T * H * ((equation.terms || []).flat().length + (equation.apply ? 1 : 0));
    list.push({ op: `(${equation.number}) ${equation.apply || "· +"}`, name: equation.value, note: nameOf(equation.value), shape: [T, H], values: pass.values(layer, equation.value), flops });
  }
  if (layer.top) {
    list.push({ op: "weights", name: "W_out", shape: [K, H * MODEL.directions], values: WEIGHTS.get("readout", "W") });
    list.push({ op: "W_out h + b_out", name: "logits", shape: [K], values: pass.get("logits"), flops: 2 * K * H * MODEL.directions });
    if (pass.hasGradients) list.push({ op: "softmax − label", name: "dlogits", shape: [K], values: pass.get("dlogits"), backward: true, flops: 3 * K });
  }
  if (pass.hasGradients) {
    for (const name of [...MODEL.values].reverse()) list.push({ op: "backward", name: `d${name}`, shape: [T, H], values: pass.values(layer, name, true), backward: true });
    list.push({ op: "backward", name: "da", shape: [T, gates.length * H], values: pass.pre(layer, true), backward: true, flops: 2 * T * gates.length * H * (layer.inputs + H) });
    if (!layer.number && !MODEL.projection) list.push({ op: "Wᵀ da", name: "dx", shape: [T, MODEL.D], values: pass.get("dx"), backward: true, flops: 2 * T * gates.length * H * MODEL.D });
  }
  return list.filter((one) => one.values);
}

function drawTensors({ pass, layer }) {
  const size = MODEL.type === "f8" ? 8 : 4;
  const rows = tensorsOf(pass, layer).map((one) => {
    const found = statistics(one.values);
    const cells = [el("span", {}, tensorName(one.name), one.note ? ` ${one.note}` : ""), one.op, one.shape.join(" × "), MODEL.type === "f8" ? "float64" : "float32",
      (size * one.values.length).toLocaleString("en"), rough(found.low), rough(found.mean), rough(found.high), `${found.bad}`, one.flops ? one.flops.toLocaleString("en") : ""];
    return { cells, backward: one.backward };
  });
  const table = makeTable(`${pass.name}, one sample, forward and back`, ["tensor", "made by", "shape", "dtype", "bytes", "least", "mean", "largest", "NaN", "operations"], rows.map((row) => row.cells));
  table.querySelectorAll("tbody tr").forEach((row, k) => row.classList.toggle("backward", Boolean(rows[k].backward)));
  byId("tensors-body").replaceChildren(drawFlow(), el("div", { class: "scroll tall", tabindex: 0, role: "region", "aria-label": "tensors of the recorded run" }, table));
}

/** The name of a tensor; that of a value leads to its map. */
function tensorName(name) {
  if (!MODEL.values.includes(name)) return el("b", {}, name);
  return el("button", { type: "button", class: "link", onclick: () => {
    go({ v: name });
    byId(`panel-${name}`).scrollIntoView({ block: "center" });
    byId(`panel-${name}`).querySelector(".plot").focus({ preventScroll: true });
  } }, el("b", {}, name));
}

/** The way of the data through the model, as boxes: what each holds, and its shape. */
function drawFlow() {
  const { T, D, H, K, gates } = MODEL;
  const boxes = [...(MODEL.isImage ? [["image", MODEL.shape.join(" × ")]] : []), [`${T} ${MODEL.steps}`, `${T} × ${D}`]];
  if (MODEL.projection) boxes.push(["projection", `${T} × ${MODEL.projection}`]);
  for (let number = 0; number < MODEL.layers; number++) {
    boxes.push([`a of ${gates.join(", ")}`, `${T} × ${gates.length * H}${MODEL.directions > 1 ? " × 2" : ""}`]);
    boxes.push([MODEL.layers > 1 ? `h of layer ${number}` : "h", `${T} × ${H * MODEL.directions}`]);
  }
  boxes.push(["h at the end", `${H * MODEL.directions}`], ["logits", `${K}`], ["p(class)", `${K}`]);
  return el("div", { class: "flow" }, boxes.map(([name, shape], k) => [k ? el("span", { class: "arrow", "aria-hidden": "true" }, "→") : null, el("div", { class: "box" }, el("b", {}, name), el("span", {}, shape))]));
}
