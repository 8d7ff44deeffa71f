// Sums of products: every term of a pre-activation, of a product inside the cell, and of a gradient.
//
// Each gives {total, groups: [{title, terms: [{name, left, right}]}]}: `total` is the engine's, the terms are products
// of numbers of the engine, and what the page adds up itself is compared with the total.

/** The name of an entry of a matrix: W[180, 20]. */
const entry = (matrix, row, column) => el("span", {}, el("i", {}, matrix), column === undefined ? `[${row}]` : `[${row}, ${column}]`);

const element = (vector, index, step) => el("span", {}, el("i", {}, vector), el("sub", {}, step ? `${step}, ${index}` : `${index}`));

/** The row of a gate and unit in the arrays of the file; `layer.row` is that in the model, which is what is printed. */
const rowOf = (gate, unit) => MODEL.gates.indexOf(gate) * MODEL.H + unit;

/** What the units that are not in the file add, as a group of one term. */
function restOf(pass, layer, name, place) {
  const rest = pass.rest(layer, name);
  if (!rest) return [];
  const count = MODEL.units - MODEL.H;
  return [{ title: "not in the file", terms: [{ name: `the other ${count} units`, left: rest[place], right: 1, alone: true }] }];
}

/** The product of the cell that has this gate's rows of U, where there is one: {value, gate, of, bias}. */
function productOf(gate) {
  for (const [value, product] of Object.entries(CELL.products || {})) if (product.gate === gate) return { value, ...product };
  return null;
}

/** a = W x_t + U h_{t-1} + b of one gate of a unit. */
function preActivationSum(pass, layer, gate, t, unit) {
  const row = rowOf(gate, unit);
  const x = pass.inputs(layer);
  const W = WEIGHTS.get(layer.name, "W");
  const groups = [{
    title: el("i", {}, "W x"),
    terms: Array.from({ length: layer.inputs }, (_, k) => (
      { name: [entry("W", layer.row(gate, unit), layer.inputId(k)), " · ", element("x", layer.inputId(k))],
        left: W[row * layer.inputs + k], right: x[t * layer.inputs + k] })),
  }];
  if (!productOf(gate)) groups.push(recurrentTerms(pass, layer, gate, unit, "h", layer.before(t)));
  groups.push(...restOf(pass, layer, "a", (t * MODEL.gates.length + MODEL.gates.indexOf(gate)) * MODEL.H + unit));
  if (WEIGHTS.has(layer.name, "b")) {
    groups.push({ title: el("i", {}, "b"), terms: [
      { name: entry("b", layer.row(gate, unit)), left: WEIGHTS.get(layer.name, "b")[row], right: 1, alone: true }] });
  }
  return { total: pass.preAt(layer, gate, t, unit), groups };
}

/** The terms of U's row with h, or with another vector of the cell, at a step. */
function recurrentTerms(pass, layer, gate, unit, letter, step) {
  const U = WEIGHTS.get(layer.name, "U");
  const row = rowOf(gate, unit);
  return {
    title: el("i", {}, `U ${letter}`),
    terms: Array.from({ length: MODEL.H }, (_, j) => (
      { name: [entry("U", layer.row(gate, unit), layer.id(j)), " · ", element(letter, layer.id(j))],
        left: U[row * MODEL.H + j], right: pass.at(layer, letter, step, j) })),
  };
}

/** m = U_n q + b_n, a product that the cell makes inside its step. */
function innerSum(pass, layer, value, t, unit) {
  const product = CELL.products[value];
  const { name, at } = parseFactor(product.of);
  const groups = [recurrentTerms(pass, layer, product.gate, unit, name, at < 0 ? layer.before(t) : t)];
  groups.push(...restOf(pass, layer, value, t * MODEL.H + unit));
  if (product.bias && WEIGHTS.has(layer.name, product.bias)) {
    groups.push({ title: el("i", {}, product.bias), terms: [
      { name: entry(product.bias, layer.id(unit)), left: WEIGHTS.get(layer.name, product.bias)[unit], right: 1, alone: true }] });
  }
  return { total: pass.at(layer, value, t, unit), groups };
}

/** What arrives at a vector of the cell through the rows of U: U^T da, over these gates. */
function backThroughU(pass, layer, gates, step, unit, read, title) {
  const U = WEIGHTS.get(layer.name, "U");
  const terms = [];
  for (const gate of gates) {
    for (let j = 0; j < MODEL.H; j++) {
      terms.push({ name: [entry("U", layer.row(gate, j), layer.id(unit)), " · ", element(title(gate), layer.id(j))],
        left: U[rowOf(gate, j) * MODEL.H + unit], right: read(gate, j, step) });
    }
  }
  return terms;
}

/** The column of a unit in the matrices that read this layer's outputs, by its number in the model. */
const outputId = (layer, unit) => (layer.reverse ? MODEL.units : 0) + layer.id(unit);

/** dh_t of a unit: from the read-out, from the layer above, and from the step that read this state. */
function hiddenGradientSum(pass, layer, t, unit) {
  const groups = [];
  const H = MODEL.H;
  if (layer.top && t === layer.readAt) {
    const W = WEIGHTS.get("readout", "W");
    const width = W.shape[1];
    const column = unit + (layer.reverse ? H : 0);
    const dlogits = pass.get("dlogits");
    groups.push({ title: el("span", {}, "from the read-out"), terms: Array.from({ length: MODEL.K }, (_, k) => (
      { name: [entry("W_out", k, outputId(layer, unit)), " · d", element("z", k)], left: W[k * width + column], right: dlogits[k] })) });
  }
  for (const above of LAYERS.filter((other) => other.number === layer.number + 1)) {
    const W = WEIGHTS.get(above.name, "W");
    const column = unit + (layer.reverse ? H : 0);
    const terms = MODEL.gates.flatMap((gate) => Array.from({ length: H }, (_, j) => (
      { name: [entry("W", above.row(gate, j), outputId(layer, unit)), " · ", element(`da_${gate}`, above.id(j))],
        left: W[rowOf(gate, j) * above.inputs + column], right: pass.preAt(above, gate, t, j, true) })));
    groups.push({ title: `from ${above.label || "the layer above"}`, terms });
  }
  const next = layer.after(t);
  if (next !== null) {
    const plain = MODEL.gates.filter((gate) => !productOf(gate));
    groups.push({ title: el("span", {}, el("i", {}, "U"), el("sup", {}, "T"), "d", symbol("a", "t+1")),
      terms: backThroughU(pass, layer, plain, next, unit, (gate, j, step) => pass.preAt(layer, gate, step, j, true), (gate) => `da_${gate}`) });
    for (const [value, product] of Object.entries(CELL.products || {})) {
      if (product.of !== "h<") continue;
      groups.push({ title: el("span", {}, el("i", {}, "U"), el("sup", {}, "T"), "d", symbol(value, "t+1")),
        terms: backThroughU(pass, layer, [product.gate], next, unit, (_, j, step) => pass.at(layer, value, step, j, true), () => `d${value}`) });
    }
    const direct = (CELL.carries.h || []).map((term) => termOf(pass, layer, term, t, unit));
    if (direct.length) groups.push({ title: "inside the cell", terms: direct });
  }
  groups.push(...restOf(pass, layer, "dh", t * H + unit));
  return { total: pass.at(layer, "h", t, unit, true), groups };
}

/** The gradient of what a product of the cell multiplied: ds = U_n^T dm. */
function innerGradientSum(pass, layer, name, t, unit) {
  const [value, product] = Object.entries(CELL.products).find(([, one]) => one.of === name);
  return { total: pass.at(layer, name, t, unit, true), groups: [{
    title: el("span", {}, el("i", {}, "U"), el("sup", {}, "T"), "d", symbol(value, "t")),
    terms: backThroughU(pass, layer, [product.gate], t, unit, (_, j, step) => pass.at(layer, value, step, j, true), () => `d${value}`) },
  ...restOf(pass, layer, `d${name}`, t * MODEL.H + unit)] };
}

// ---- terms of the cell's own equations

/** {symbol, number, value, link}: a factor with its number; `value` names what a click on it opens. */
function factorOf(pass, layer, text, t, unit) {
  const factor = parseFactor(text);
  const step = factor.at < 0 ? layer.before(t) : factor.at > 0 ? layer.after(t) : t;
  const read = (name, gradient) => pass.at(layer, name, step, unit, gradient);
  const link = { v: factor.name, t: step };
  switch (factor.kind) {
    case "value": return { factor, link, number: read(factor.name, false), engine: true };
    case "pre": return { factor, link, number: pass.preAt(layer, factor.name, step, unit), engine: true };
    case "gradient": return { factor, link, number: read(factor.name, true), engine: true };
    case "preGradient": return { factor, link, number: pass.preAt(layer, factor.name, step, unit, true), engine: true };
    case "rest": return { factor, link, number: 1 - read(factor.name, false) };
    case "restOfSquare": return { factor, link, number: 1 - read(factor.name, false) ** 2 };
    case "difference": return { factor, link, number: pass.at(layer, factor.name, layer.before(t), unit) - read(factor.minus, false) };
    case "on": return { factor, link, number: read(factor.name, false) > 0 ? 1 : 0 };
  }
}

/** A term as {name, left, right, factors}: its product is left times right. */
function termOf(pass, layer, term, t, unit) {
  const factors = term.map((text) => factorOf(pass, layer, text, t, unit));
  const [first, ...others] = factors;
  const name = factors.flatMap((one, k) => [k ? " · " : "", factorSymbol(one.factor)]);
  return { name, factors, left: first.number, right: others.reduce((product, one) => product * one.number, 1), alone: factors.length === 1 };
}
