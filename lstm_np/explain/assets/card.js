// The card: one value of one unit at one step, with every term of its sum, forward and backward.

const TOP = 5; // terms of a group that are shown before the rest is asked for
const unfolded = new Set(); // groups of terms that a reader has opened stay open from card to card

/** The table of a sum: the largest terms first, the rest folded, then what the page adds up and the engine's total. */
function sumTable(caption, sum, totalSymbol, of) {
  let added = 0;
  const bodies = sum.groups.filter((group) => group.terms.length).map((group, place) => {
    const terms = group.terms.map(withProduct);
    terms.forEach((term) => (added += term.product));
    const sorted = [...terms].sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
    const key = `${of}/${place}`;
    const fold = sorted.length > TOP + 2 && !unfolded.has(key);
    const rows = (fold ? largest(sorted) : sorted).map(termRow);
    const body = el("tbody", { "data-group": place }, rows);
    if (sorted.length > TOP + 2) body.append(foldRow(group, sorted, key, fold, body));
    return body;
  });
  const rest = sum.total === null ? null : sum.total - added;
  return el("table", { class: "sum" },
    el("caption", {}, caption),
    bodies,
    el("tfoot", {},
      el("tr", {}, el("th", { scope: "row" }, "sum of the terms"), el("td", {}), el("td", { class: "number", "data-sum": "" }, computed(added))),
      rest === null ? null : el("tr", { class: "quiet" }, el("th", { scope: "row" }, "rounding"), el("td", {}), el("td", { class: "number", "data-rest": "" }, computed(rest))),
      sum.total === null ? null : el("tr", { class: "total" }, el("th", { scope: "row" }, totalSymbol), el("td", {}, currentPass().inPage ? "of the page" : "the engine's"), el("td", {}, engine(sum.total, of)))));
}

const withProduct = (term) => ({ ...term, product: term.left * term.right });

/** The terms that are shown while the rest is folded: the largest that are not 0. */
const largest = (sorted) => sorted.slice(0, TOP).filter((term) => term.product !== 0);

function termRow(term) {
  const factors = term.alone ? el("span", { "data-left": "" }, exact(term.left)) : [
    el("span", { "data-left": "" }, exact(term.left)), " × ", el("span", { "data-right": "" }, exactOrComputed(term.right))];
  return el("tr", {}, el("th", { scope: "row" }, term.name), el("td", {}, factors), el("td", { class: "number", "data-term": "" }, computed(term.product)));
}

/** A factor may be a number of the engine, or made of two by the page. */
function exactOrComputed(x) {
  return round(x) === x ? exact(x) : computed(x);
}

function foldRow(group, sorted, key, fold, body) {
  const hidden = sorted.slice(largest(sorted).length);
  const rest = hidden.reduce((sum, term) => sum + term.product, 0);
  const toggle = el("button", { type: "button", class: "link", "aria-expanded": fold ? "false" : "true", onclick: () => {
    if (unfolded.has(key)) unfolded.delete(key);
    else unfolded.add(key);
    const open = unfolded.has(key);
    const row = foldRow(group, sorted, key, !open, body);
    body.replaceChildren(...(open ? sorted : largest(sorted)).map(termRow), row);
    row.querySelector("button").focus();
  } }, fold ? `show ${hidden.length}${hidden.length < sorted.length ? " more" : ""}` : "show fewer");
  return el("tr", { class: "quiet fold" },
    el("th", { scope: "row" }, toggle, " ", fold ? ["of ", clone(group.title)] : null), el("td", {}),
    fold ? el("td", { class: "number", "data-folded": hidden.length }, computed(rest)) : el("td", {}));
}

const clone = (node) => (node instanceof Node ? node.cloneNode(true) : node);

/** One equation with its numbers: c_t = f_t · c_{t−1} + i_t · g_t = 0.85 · 1.21 + 0.39 · 0.68 = 1.30. */
function equationLines(view, equation, gradient) {
  const { pass, layer, t, unit } = view;
  const isPre = equation.value.startsWith("a.");
  const name = isPre ? equation.value.slice(2) : equation.value;
  const left = [gradient ? "d" : null, isPre ? preSymbol(name) : valueSymbol(name)];
  const total = isPre ? pass.preAt(layer, name, t, unit, gradient) : pass.at(layer, name, t, unit, gradient);
  const chosen = name === view.v || (isPre && name === view.v);
  const terms = equation.product ? [] : equation.terms.map((term) => termOf(pass, layer, term, t, unit));
  const sign = equation.apply ? [APPLY_SIGN[equation.apply], "(", ] : [];
  const close = equation.apply ? ")" : null;
  const join = (parts) => parts.flatMap((part, k) => [k ? " + " : "", part]);
  const numbers = terms.map((term) => term.factors.flatMap((one, k) => [k ? " · " : "", factorNumber(view, one)]));
  const made = terms.reduce((sum, term) => sum + term.left * term.right, 0);
  const value = equation.product ? null : equation.apply ? APPLY[equation.apply](made) : made;
  return el("div", { class: chosen ? "equation chosen" : "equation" },
    el("p", { class: "formula" }, el("span", { class: "tag" }, `(${equation.number})`), left, " = ",
      equation.product ? productFormula(name, gradient) : [sign, join(terms.map((term) => term.name)), close]),
    el("p", { class: "values" }, equation.product ? null : ["= ", sign, join(numbers), close, " "],
      !gradient && isHeld(view, name) ? "→ held at " : "= ", engine(total, `${gradient ? "d." : ""}${equation.value}`)),
    !gradient && isHeld(view, name) ? null : chosen && value !== null
      ? el("p", { class: "check" }, "in double precision ", el("span", { "data-check": "" }, computed(value)), ", rounding ", computed(total - value))
      : null);
}

const isHeld = ({ layer, t, unit }, name) => {
  const hold = STATE.hold;
  return hold && hold.layer === layer.name && hold.v === name && t >= hold.from && (hold.unit === null || hold.unit === unit);
};

function productFormula(name, gradient) {
  if (gradient) return [el("i", {}, "U"), el("sup", {}, "T"), " d", symbol("m", "t")];
  const product = CELL.products[name];
  return [symbol("U", product.gate), " ", factorSymbol(parseFactor(product.of)), product.bias ? [" + ", el("i", {}, product.bias)] : null];
}

/** A number in an equation: a click shows where it comes from. */
function factorNumber(view, one) {
  if (!one.engine || one.link.t === null) return el("span", { class: "number" }, one.engine ? exact(one.number) : computed(one.number));
  const gradient = one.factor.kind === "gradient" || one.factor.kind === "preGradient";
  const step = one.link.t + 1;
  return el("button", { type: "button", class: "link number", title: `${nameOf(one.link.v)}, ${MODEL.step} ${step}`,
    onclick: () => go({ v: one.link.v, t: one.link.t, tab: gradient ? "backward" : "forward" }) }, exact(one.number));
}

// ---- the four tabs

/** The gates whose pre-activation makes this value, e.g. "f" for f, "n" for n; null for c. */
function gateBehind(value) {
  return MODEL.gates.includes(value) ? value : null;
}

function forwardTab(view) {
  const { pass, layer, t, unit, v } = view;
  const parts = [cellDiagram(view)];
  const gateName = gateBehind(v);
  if (gateName && pass.preAt(layer, gateName, t, unit) !== null) {
    parts.push(sumTable(
      el("span", {}, el("span", { class: "tag" }, "(1)"), preSymbol(gateName), " = ", el("i", {}, "W x"), el("sub", {}, "t"),
        productOf(gateName) ? null : [" + ", el("i", {}, "U h"), el("sub", {}, "t−1")], WEIGHTS.has(layer.name, "b") ? [" + ", el("i", {}, "b")] : null),
      preActivationSum(pass, layer, gateName, t, unit), preSymbol(gateName), `a.${gateName}`));
  } else if (CELL.products && CELL.products[v] && CELL.products[v].of) {
    parts.push(sumTable(el("span", {}, valueSymbol(v), " = ", productFormula(v, false)), innerSum(pass, layer, v, t, unit), valueSymbol(v), v));
  }
  parts.push(el("h3", {}, "All of this unit at this step"));
  if (CELL.own) {
    parts.push(el("p", {}, "A cell of its own: its equations are in its file, its values are these."),
      makeTable("values", ["value", "number"], MODEL.values.map((name) => [name, engine(pass.at(layer, name, t, unit), name)])));
  } else parts.push(CELL.forward.map((equation) => equationLines(view, equation, false)));
  if (layer.top && t === layer.readAt) parts.push(readOutTable(view));
  parts.push(holdForm(view));
  return parts;
}

/** What h adds to each logit at the step that the classifier reads. */
function readOutTable({ pass, layer, t, unit }) {
  const W = WEIGHTS.get("readout", "W");
  const column = unit + (layer.reverse ? MODEL.H : 0);
  const h = pass.at(layer, "h", t, unit);
  return el("table", { class: "sum" }, el("caption", {}, "What it adds to the logit of each class"),
    el("tbody", {}, Array.from({ length: MODEL.K }, (_, k) => termRow(withProduct(
      { name: [entry("W_out", k, outputId(layer, unit)), " · ", symbol("h", "T"), MODEL.classes ? ` (${shortName(className(k))})` : ""], left: W[k * W.shape[1] + column], right: h })))));
}

function backwardTab(view) {
  const { pass, layer, t, unit, v } = view;
  if (!pass.hasGradients) return [el("p", {}, "This pass goes forward only: it was computed in the page, or its label is not known.")];
  const parts = [el("p", { class: "note" }, `Gradients of the loss, −log p(${className(pass.label)}).`)];
  if (!CELL.own) parts.push(sumTable(el("span", {}, "d", valueSymbol("h"), ": what arrives at the hidden state"), hiddenGradientSum(pass, layer, t, unit),
    el("span", {}, "d", valueSymbol("h")), "d.h"));
  if (CELL.own) {
    parts.push(makeTable("gradients", ["value", "gradient"], MODEL.values.map((name) => [`d${name}`, engine(pass.at(layer, name, t, unit, true), `d.${name}`)])));
  }
  parts.push(el("h3", {}, "Back through the cell"));
  for (const equation of CELL.backward) {
    if (equation.product) {
      parts.push(sumTable(el("span", {}, "d", valueSymbol(equation.value), " = ", productFormula(equation.value, true)),
        innerGradientSum(pass, layer, equation.value, t, unit), el("span", {}, "d", valueSymbol(equation.value)), `d.${equation.value}`));
    } else parts.push(equationLines(view, equation, true));
  }
  const gateName = gateBehind(v) || MODEL.gates[0];
  parts.push(weightShares(view, gateName));
  return parts;
}

/** What this step adds to one row of dW and dU, and to db: the gradient of the pre-activation times what it read. */
function weightShares({ pass, layer, t, unit }, gateName) {
  const row = layer.row(gateName, unit);
  const da = pass.preAt(layer, gateName, t, unit, true);
  if (da === null) return null;
  const x = pass.inputs(layer);
  const before = layer.before(t);
  const groups = [{ title: el("i", {}, "dW"), terms: Array.from({ length: layer.inputs }, (_, k) => (
    { name: [entry("dW", row, layer.inputId(k)), " += ", element("x", layer.inputId(k))], left: da, right: x[t * layer.inputs + k] })) }];
  if (!productOf(gateName)) groups.push({ title: el("i", {}, "dU"), terms: Array.from({ length: MODEL.H }, (_, j) => (
    { name: [entry("dU", row, layer.id(j)), " += ", element("h", layer.id(j))], left: da, right: pass.at(layer, "h", before, j) })) });
  if (WEIGHTS.has(layer.name, "b")) groups.push({ title: el("i", {}, "db"), terms: [{ name: [entry("db", row), " +="], left: da, right: 1, alone: true }] });
  const bodies = groups.map((group, place) => {
    const sorted = group.terms.map(withProduct)
      .sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
    const key = `shares/${place}`;
    const fold = sorted.length > TOP + 2 && !unfolded.has(key);
    const body = el("tbody", {}, (fold ? largest(sorted) : sorted).map(termRow));
    if (sorted.length > TOP + 2) body.append(foldRow(group, sorted, key, fold, body));
    return body;
  });
  return el("table", { class: "sum" },
    el("caption", {}, "What this step adds to the gradients of the weights: d", preSymbol(gateName), " times what the gate read"), bodies);
}

function timeTab(view) {
  const { pass, layer, unit } = view;
  const charts = CELL.maps.map((name) => {
    const values = Array.from({ length: MODEL.T }, (_, t) => pass.at(layer, name, t, unit));
    return el("figure", { class: "spark" },
      el("figcaption", {}, valueSymbol(name), " ", nameOf(name)), sparkline(values, view.t, (CELL.scales[name] || FREE).map === "share"),
      el("span", { class: "number" }, exact(values[view.t])));
  });
  return [el("p", { class: "note" }, `Unit ${layer.id(unit)} over the ${MODEL.steps}.`), charts];
}

/** A small curve with the present step marked. */
function sparkline(values, t, share) {
  const low = share ? 0 : Math.min(0, ...values);
  const high = share ? 1 : Math.max(0, ...values);
  const y = (value) => 30 - (28 * (value - low)) / (high - low || 1);
  const points = values.map((value, k) => `${k + 0.5},${y(value).toFixed(2)}`).join(" ");
  return svg("svg", { viewBox: `0 0 ${MODEL.T} 32`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: MODEL.T, y1: y(0), y2: y(0), class: "zero" }),
    svg("line", { x1: t + 0.5, x2: t + 0.5, y1: 0, y2: 32, class: "now" }),
    svg("polyline", { points, class: "curve" }));
}

function tableTab(view) {
  const { pass, layer, unit } = view;
  const names = MODEL.values;
  const rows = Array.from({ length: MODEL.T }, (_, t) => [
    el("button", { type: "button", class: "link", onclick: () => go({ t }) }, `${t + 1}`),
    ...names.map((name) => exact(pass.at(layer, name, t, unit)))]);
  return [el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `unit ${layer.id(unit)}, all values` },
    makeTable(`Unit ${layer.id(unit)}, every value`, [MODEL.step, ...names], rows))];
}

const TABS = { forward: ["forward", forwardTab], backward: ["backward", backwardTab], time: ["over time", timeTab], table: ["table", tableTab] };

/** The Python line that gives the same number. */
function pythonLine({ pass, layer, t, unit, v, tab }) {
  if (pass.inPage) return "computed in the page, from the weights in this file";
  const call = tab === "backward" ? `gradient("${v}"${layer.python})` : `value("${v}"${layer.python})`;
  return `trace.${call}[0, ${t}, ${layer.id(unit)}]`;
}

function drawCard(view) {
  const { pass, layer, t, unit, v } = view;
  const where = [nameOf(v), `unit ${layer.id(unit)}`, `${MODEL.step} ${t + 1}`, layer.label].filter(Boolean).join(" · ");
  const step = (label, text, change, disabled) => el("button", { type: "button", class: "step", "aria-label": label, title: label, disabled, onclick: () => go(change) }, text);
  const order = visibleUnits(view);
  const place = order.indexOf(unit);
  const chips = MODEL.values.filter((name) => pass.at(layer, name, t, unit) !== null).map((name) =>
    el("button", { type: "button", class: "chip", "data-value": name, "aria-pressed": name === v ? "true" : "false", title: nameOf(name), onclick: () => go({ v: name }) },
      valueSymbol(name), " ", engine(pass.at(layer, name, t, unit), name),
      view.other ? el("small", { class: "other" }, exact(view.other.at(layer, name, t, unit))) : null));
  const tabs = Object.entries(TABS).map(([key, [label]]) =>
    el("button", { type: "button", role: "tab", id: `tab-${key}`, "aria-selected": key === view.tab ? "true" : "false", "aria-controls": "tab-body",
      tabindex: key === view.tab ? 0 : -1, onclick: () => go({ tab: key }), onkeydown: moveTab }, label));
  const focused = document.activeElement && document.activeElement.id;
  byId("card").replaceChildren(
    el("header", {}, el("h2", { id: "card-title" }, where),
      el("div", { class: "steps" },
        step(`previous ${MODEL.step}`, "←", { t: t - 1 }, t === 0), step(`next ${MODEL.step}`, "→", { t: t + 1 }, t === MODEL.T - 1),
        step("unit above", "↑", { u: order[place - 1] }, place <= 0), step("unit below", "↓", { u: order[place + 1] }, place < 0 || place === order.length - 1),
        el("button", { type: "button", class: "step close", "aria-label": "close the card", onclick: () => closeCard() }, "×"))),
    el("div", { class: "chips", role: "group", "aria-label": "values of this unit at this step" }, chips),
    el("div", { class: "tabs", role: "tablist", "aria-label": "what the card shows" }, tabs),
    el("div", { id: "tab-body", role: "tabpanel", "aria-labelledby": `tab-${view.tab}`, tabindex: 0 }, TABS[view.tab][1](view).filter(Boolean)),
    el("footer", {}, el("code", {}, pythonLine(view)), pass.inPage ? null : el("span", { class: "quiet" }, " is this number in Python")));
  if (focused && focused.startsWith("tab-") && byId(focused)) byId(focused).focus();
}

/** Arrow keys move between tabs. */
function moveTab(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  event.stopPropagation();
  const keys = Object.keys(TABS);
  const next = keys[(keys.indexOf(STATE.tab) + by + keys.length) % keys.length];
  go({ tab: next });
  byId(`tab-${next}`).focus();
}
