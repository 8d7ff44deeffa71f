// The equations of each cell, as data: the cards print them with numbers in place, and the page's own forward pass
// computes with them.  They are those of lstm_np/cells, under the same numbers.
//
// A term is a list of factors that are multiplied:
//   "f" a value of this step          "c<" of the step before             "z>" of the step after
//   "a.f" a pre-activation            "d.h" the gradient of h             "d.a.f" the gradient of a pre-activation
//   "1-z" one minus it                "1-g2" one minus its square         "h<-n" a difference         "on.h" 1 where h > 0

const NAMES = {
  i: "input gate", f: "forget gate", o: "output gate", g: "candidate", c: "cell state", tanh_c: "tanh of the cell state",
  h: "hidden state", r: "reset gate", z: "update gate", m: "inner product", n: "candidate", s: "state after reset",
};

const gate = (name, number) => ({ value: name, number, apply: "sigmoid", terms: [[`a.${name}`]] });
const undoSigmoid = (name, number) => ({ value: `a.${name}`, number, terms: [[`d.${name}`, name, `1-${name}`]] });
const UNIT = { map: "share", limit: 1 };
const SIGNED = { map: "signed", limit: 1 };
const FREE = { map: "signed", root: true };

const RNN = (apply, undo) => ({
  maps: ["h"], scales: { h: apply === "tanh" ? SIGNED : FREE },
  forward: [{ value: "h", number: "2", apply, terms: [["a.h"]] }],
  backward: [{ value: "a.h", number: "2'", terms: [["d.h", undo]] }],
  carries: {},
});

const CELLS = {
  lstm: {
    maps: ["f", "i", "o", "g", "c", "tanh_c", "h"],
    scales: { i: UNIT, f: UNIT, o: UNIT, g: SIGNED, c: FREE, tanh_c: SIGNED, h: SIGNED },
    keeps: "f", // the gate that says how much of the old state stays
    opens: "o", // the gate that says how much of it is shown
    forward: [
      gate("i", "2"), gate("f", "2"), gate("o", "2"),
      { value: "g", number: "3", apply: "tanh", terms: [["a.g"]] },
      { value: "c", number: "4", terms: [["f", "c<"], ["i", "g"]] },
      { value: "tanh_c", number: "5", apply: "tanh", terms: [["c"]] },
      { value: "h", number: "5", terms: [["o", "tanh_c"]] },
    ],
    backward: [
      { value: "o", number: "5'", terms: [["d.h", "tanh_c"]] },
      { value: "tanh_c", number: "5'", terms: [["d.h", "o"]] },
      { value: "c", number: "5'", terms: [["d.c>", "f>"], ["d.tanh_c", "1-tanh_c2"]] },
      { value: "f", number: "4'", terms: [["d.c", "c<"]] },
      { value: "i", number: "4'", terms: [["d.c", "g"]] },
      { value: "g", number: "4'", terms: [["d.c", "i"]] },
      { value: "a.g", number: "3'", terms: [["d.g", "1-g2"]] },
      undoSigmoid("i", "2'"), undoSigmoid("f", "2'"), undoSigmoid("o", "2'"),
    ],
    carries: { h: [] },
  },
  gru: {
    maps: ["z", "r", "m", "n", "h"],
    scales: { r: UNIT, z: UNIT, m: FREE, n: SIGNED, h: SIGNED },
    keeps: "z",
    products: { m: { gate: "n", of: "h<", bias: "b_n" } },
    forward: [
      gate("r", "2"), gate("z", "2"),
      { value: "m", number: "3", product: true },
      { value: "n", number: "4", apply: "tanh", terms: [["a.n"], ["r", "m"]] },
      { value: "h", number: "5", terms: [["1-z", "n"], ["z", "h<"]] },
    ],
    backward: [
      { value: "z", number: "5'", terms: [["d.h", "h<-n"]] },
      { value: "n", number: "5'", terms: [["d.h", "1-z"]] },
      { value: "a.n", number: "4'", terms: [["d.n", "1-n2"]] },
      { value: "r", number: "4'", terms: [["d.a.n", "m"]] },
      { value: "m", number: "4'", terms: [["d.a.n", "r"]] },
      undoSigmoid("r", "2'"), undoSigmoid("z", "2'"),
    ],
    carries: { h: [["d.h>", "z>"]] },
  },
  gru_reset_before: {
    maps: ["z", "r", "s", "m", "n", "h"],
    scales: { r: UNIT, z: UNIT, s: SIGNED, m: FREE, n: SIGNED, h: SIGNED },
    keeps: "z",
    products: { m: { gate: "n", of: "s", bias: null } },
    forward: [
      gate("r", "2"), gate("z", "2"),
      { value: "s", number: "3", terms: [["r", "h<"]] },
      { value: "m", number: "3", product: true },
      { value: "n", number: "4", apply: "tanh", terms: [["a.n"], ["m"]] },
      { value: "h", number: "5", terms: [["1-z", "n"], ["z", "h<"]] },
    ],
    backward: [
      { value: "z", number: "5'", terms: [["d.h", "h<-n"]] },
      { value: "n", number: "5'", terms: [["d.h", "1-z"]] },
      { value: "a.n", number: "4'", terms: [["d.n", "1-n2"]] },
      { value: "m", number: "4'", terms: [["d.a.n"]] },
      { value: "s", number: "3'", product: true },
      { value: "r", number: "3'", terms: [["d.s", "h<"]] },
      undoSigmoid("r", "2'"), undoSigmoid("z", "2'"),
    ],
    carries: { h: [["d.h>", "z>"], ["d.s>", "r>"]] },
  },
  rnn: RNN("tanh", "1-h2"),
  rnn_relu: RNN("relu", "on.h"),
};

const APPLY = { sigmoid, tanh: Math.tanh, relu: (a) => Math.max(a, 0) };
const APPLY_SIGN = { sigmoid: "σ", tanh: "tanh", relu: "max(0, ·) of" };

/** The description of the model's cell; for a cell of somebody's own only what its declaration says. */
function describeCell() {
  if (CELLS[MODEL.cell]) return CELLS[MODEL.cell];
  const products = Object.fromEntries(Object.entries(MODEL.products).map(([value, gate]) => [value, { gate, of: null }]));
  return { own: true, maps: MODEL.values, scales: {}, products, forward: [], backward: [], carries: {} };
}

const nameOf = (value) => NAMES[value] || value;

/** A factor of a term, taken apart: {kind, name, at} with `at` -1, 0 or 1 step away. */
function parseFactor(text) {
  const difference = text.match(/^(\w+)<-(\w+)$/);
  if (difference) return { kind: "difference", name: difference[1], minus: difference[2], at: 0 };
  const [, kind, name, square, shift] = text.match(/^(d\.a\.|d\.|a\.|on\.|1-|)(\w+?)(2?)([<>]?)$/);
  const kinds = { "": "value", "a.": "pre", "d.": "gradient", "d.a.": "preGradient", "on.": "on", "1-": "rest" };
  return { kind: square ? "restOfSquare" : kinds[kind], name, at: shift === "<" ? -1 : shift === ">" ? 1 : 0 };
}

/** The symbol of a value or gradient: c with t below it. */
function valueSymbol(name, step = "t") {
  return name === "tanh_c" ? el("span", { class: "symbol" }, "tanh ", symbol("c", step)) : symbol(name, step);
}

function preSymbol(name) {
  return symbol("a", name);
}

/** What a factor is called in an equation. */
function factorSymbol(factor) {
  const step = ["t−1", "t", "t+1"][factor.at + 1];
  switch (factor.kind) {
    case "value": return valueSymbol(factor.name, step);
    case "pre": return preSymbol(factor.name);
    case "gradient": return el("span", {}, "d", valueSymbol(factor.name, step));
    case "preGradient": return el("span", {}, "d", preSymbol(factor.name));
    case "rest": return el("span", {}, "(1 − ", valueSymbol(factor.name, step), ")");
    case "restOfSquare": return el("span", {}, "(1 − ", valueSymbol(factor.name, step), el("sup", {}, "2"), ")");
    case "difference": return el("span", {}, "(", valueSymbol(factor.name, "t−1"), " − ", valueSymbol(factor.minus), ")");
    case "on": return el("span", {}, "[", valueSymbol(factor.name), " > 0]");
  }
}
