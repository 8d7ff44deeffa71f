// The model's forward pass in the page, from the weights in the file: for digits that are drawn here, for values that
// are held, and for a second set of weights.  What it gives is labelled as computed in the page.
//
// Sums are made in double precision and every value is then rounded to the engine's type, so that it differs from the
// engine by rounding only.

/** Whether the page knows the equations and has the weights of all units. */
function canCompute() {
  return !CELL.own && MODEL.H === MODEL.units;
}

/**
 * A pass over x (T, D), as it is stored for `Pass`.
 *
 * holds: [{v, layer, unit: a number or null for all, number, from: a step}], the value that is gone on with.
 */
function forwardPass(weights, x, { name, image = null, label = null, holds = [] }) {
  const stored = { name, label, image, x, inPage: true, layers: {} };
  let inputs = x;
  if (MODEL.projection) {
    const W = weights.get("input_projection", "W");
    const b = weights.get("input_projection", "b");
    inputs = new x.constructor(MODEL.T * MODEL.projection);
    for (let t = 0; t < MODEL.T; t++) {
      for (let k = 0; k < MODEL.projection; k++) {
        inputs[t * MODEL.projection + k] = dot(W, k * MODEL.D, x, t * MODEL.D, MODEL.D) + b[k];
      }
    }
    stored.projected = inputs;
  }
  for (let number = 0; number < MODEL.layers; number++) {
    const directions = LAYERS.filter((layer) => layer.number === number);
    const outputs = directions.map((layer) => {
      stored.layers[layer.name] = runLayer(weights, layer, inputs, holds.filter((hold) => hold.layer === layer.name));
      return stored.layers[layer.name].values.h;
    });
    inputs = joined(outputs);
  }
  readOut(weights, stored);
  return stored;
}

function dot(a, from, b, start, length) {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += a[from + k] * b[start + k];
  return sum;
}

/** The outputs of the directions of a layer side by side, (T, directions * H). */
function joined(outputs) {
  if (outputs.length === 1) return outputs[0];
  const width = outputs.length * MODEL.H;
  const all = new outputs[0].constructor(MODEL.T * width);
  outputs.forEach((h, part) => {
    for (let t = 0; t < MODEL.T; t++) all.set(h.subarray(t * MODEL.H, (t + 1) * MODEL.H), t * width + part * MODEL.H);
  });
  return all;
}

/** One layer in one direction over a sequence: the equations of `CELL`, step by step. */
function runLayer(weights, layer, inputs, holds) {
  const { T, H, gates } = MODEL;
  const Numbers = inputs.constructor;
  const [W, U] = [weights.get(layer.name, "W"), weights.get(layer.name, "U")];
  const b = weights.has(layer.name, "b") ? weights.get(layer.name, "b") : null;
  const all = Object.fromEntries(MODEL.values.map((name) => [name, new Numbers(T * H)]));
  const pre = new Numbers(T * gates.length * H);
  const product = gates.map((name) => Boolean(productOf(name)));
  const zeros = new Numbers(H);
  let before = Object.fromEntries(MODEL.values.map((name) => [name, zeros]));
  for (let n = 0; n < T; n++) {
    const t = layer.reverse ? T - 1 - n : n;
    const a = {};
    gates.forEach((name, g) => {
      a[name] = pre.subarray((t * gates.length + g) * H, (t * gates.length + g + 1) * H);
      for (let j = 0; j < H; j++) {
        const row = g * H + j;
        let sum = dot(W, row * layer.inputs, inputs, t * layer.inputs, layer.inputs);
        if (!product[g]) sum += dot(U, row * H, before.h, 0, H);
        a[name][j] = sum + (b ? b[row] : 0);
      }
    });
    const now = Object.fromEntries(MODEL.values.map((name) => [name, all[name].subarray(t * H, (t + 1) * H)]));
    for (const equation of CELL.forward) {
      const into = now[equation.value];
      if (equation.product) innerProduct(weights, layer, U, equation.value, now, before, into);
      else evaluate(equation, a, now, before, into);
      if (equation.value === "c" && MODEL.clip) for (let j = 0; j < H; j++) into[j] = Math.max(-MODEL.clip, Math.min(MODEL.clip, into[j]));
      for (const hold of holds) {
        if (hold.v !== equation.value || t < hold.from) continue;
        if (hold.unit === null) into.fill(hold.number);
        else into[hold.unit] = hold.number;
      }
    }
    before = now;
  }
  return { a: pre, values: all };
}

/** One equation for all units: a sum of products, and what is applied to it. */
function evaluate(equation, a, now, before, into) {
  const terms = equation.terms.map((term) => term.map((text) => {
    const factor = parseFactor(text);
    const values = factor.kind === "pre" ? a[factor.name] : factor.at < 0 ? before[factor.name] : now[factor.name];
    return factor.kind === "rest" ? { values, rest: true } : { values };
  }));
  const apply = equation.apply ? APPLY[equation.apply] : null;
  for (let j = 0; j < MODEL.H; j++) {
    let sum = 0;
    for (const term of terms) {
      let part = 1;
      for (const { values, rest } of term) part *= rest ? 1 - values[j] : values[j];
      sum += part;
    }
    into[j] = apply ? apply(sum) : sum;
  }
}

function innerProduct(weights, layer, U, value, now, before, into) {
  const { gate: name, of, bias } = CELL.products[value];
  const factor = parseFactor(of);
  const operand = factor.at < 0 ? before[factor.name] : now[factor.name];
  const added = bias && weights.has(layer.name, bias) ? weights.get(layer.name, bias) : null;
  for (let j = 0; j < MODEL.H; j++) into[j] = dot(U, (MODEL.gates.indexOf(name) * MODEL.H + j) * MODEL.H, operand, 0, MODEL.H) + (added ? added[j] : 0);
}

/** Logits of the answer, and the probabilities that the read-out gives after every step. */
function readOut(weights, stored) {
  const top = LAYERS.filter((layer) => layer.top);
  const [W, b] = [weights.get("readout", "W"), weights.get("readout", "b")];
  const width = top.length * MODEL.H;
  const Numbers = stored.x.constructor;
  stored.probabilities = new Numbers(MODEL.T * MODEL.K);
  for (let t = 0; t < MODEL.T; t++) {
    const logits = new Numbers(MODEL.K);
    for (let k = 0; k < MODEL.K; k++) {
      let sum = b[k];
      top.forEach((layer, part) => {
        const step = layer.reverse && MODEL.readOut === "final_state" ? MODEL.T - 1 - t : t;
        sum += dot(W, k * width + part * MODEL.H, stored.layers[layer.name].values.h, step * MODEL.H, MODEL.H);
      });
      logits[k] = sum;
    }
    stored.probabilities.set(softmax(logits), t * MODEL.K);
    if (t === MODEL.T - 1) stored.logits = logits;
  }
}

/** The sequence (T, D) that the model reads of an image (rows, columns). */
function sequenceOf(image) {
  const [rows, columns] = MODEL.shape;
  if (MODEL.view !== "columns") return image; // rows, or one pixel after the other: as it lies
  const turned = new image.constructor(image.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = image[r * columns + c];
  return turned;
}
