// What was recorded: weights, and passes of the model over one sequence each, with every value by name.
//
// Steps are counted from 0 here and in Python, from 1 on the screen.  `trace.gate(name)[0, t, unit]` is `at(...)`.

/** Weights of the file, unpacked when first asked for. */
class Weights {
  constructor(packed) {
    this.packed = packed;
    this.arrays = {};
  }

  has(layer, name) {
    return Boolean(this.packed[layer] && this.packed[layer][name]);
  }

  get(layer, name) {
    const key = `${layer}.${name}`;
    return (this.arrays[key] ??= unpack(this.packed[layer][name]));
  }
}

/**
 * A layer in one direction: where it stands and which way it reads.
 *
 * Where the file is not to grow beyond its limit it holds some units alone.  Everything here then counts the units that
 * it holds, 0 ... MODEL.H - 1; `id` gives a unit's number in the model, of MODEL.units, and what the others add to a
 * sum is stored as one number.
 */
class Layer {
  constructor(name, ids) {
    this.name = name;
    this.number = Number(name.match(/\d+/)[0]);
    this.reverse = name.endsWith("_reverse");
    this.top = this.number === MODEL.layers - 1;
    this.ids = ids || Array.from({ length: MODEL.H }, (_, unit) => unit);
    this.inputs = this.number ? MODEL.H * MODEL.directions : MODEL.projection || MODEL.D;
  }

  id(unit) {
    return this.ids[unit];
  }

  /** The number in the model of an input of this layer. */
  inputId(k) {
    if (!this.number) return k;
    const below = LAYERS.filter((other) => other.number === this.number - 1);
    return Math.floor(k / MODEL.H) * MODEL.units + below[Math.floor(k / MODEL.H)].id(k % MODEL.H);
  }

  /** The row of a gate and unit in the model's matrices. */
  row(gate, unit) {
    return MODEL.gates.indexOf(gate) * MODEL.units + this.id(unit);
  }

  /** The step whose state this step reads, or null at the beginning. */
  before(t) {
    return this.step(t, -1);
  }

  /** The step that reads this one's state, or null at the end. */
  after(t) {
    return this.step(t, 1);
  }

  step(t, by) {
    const other = this.reverse ? t - by : t + by;
    return other >= 0 && other < MODEL.T ? other : null;
  }

  /** The first and the last step that it reads. */
  get first() {
    return this.reverse ? MODEL.T - 1 : 0;
  }

  get last() {
    return this.reverse ? 0 : MODEL.T - 1;
  }

  /** The step whose output the classifier reads. */
  get readAt() {
    return MODEL.readOut === "final_state" ? this.last : MODEL.T - 1;
  }

  get label() {
    const parts = [MODEL.layers > 1 ? `layer ${this.number}` : null, this.reverse ? "backwards" : MODEL.directions > 1 ? "forwards" : null];
    return parts.filter(Boolean).join(", ");
  }

  /** What `trace.gate` and its like are given in Python to mean this layer. */
  get python() {
    return `${this.number ? `, layer=${this.number}` : ""}${this.reverse ? ", reverse=True" : ""}`;
  }
}

/** One pass over one sequence, recorded by the engine or computed in the page. */
class Pass {
  constructor(stored) {
    this.stored = stored;
    this.name = stored.name;
    this.label = stored.label;
    this.inPage = Boolean(stored.inPage);
    this.cache = {};
  }

  array(key, find) {
    if (!(key in this.cache)) {
      const found = find();
      this.cache[key] = found && found.data !== undefined ? unpack(found) : found || null;
    }
    return this.cache[key];
  }

  /** x (T, D), image (rows, columns), logits (K), probabilities (T, K), dlogits (K), dx (T, D). */
  get(name) {
    return this.array(name, () => this.stored[name]);
  }

  /** What a layer reads: (T, inputs), the images' rows, their projection, or the outputs of the layer below. */
  inputs(layer) {
    if (layer.number) {
      return this.array(`inputs ${layer.number}`, () => {
        const below = LAYERS.filter((other) => other.number === layer.number - 1).map((other) => this.hidden(other));
        const joined = new below[0].constructor(MODEL.T * layer.inputs);
        below.forEach((h, part) => {
          for (let t = 0; t < MODEL.T; t++) {
            joined.set(h.subarray(t * MODEL.H, (t + 1) * MODEL.H), t * layer.inputs + part * MODEL.H);
          }
        });
        return joined;
      });
    }
    return this.get(MODEL.projection ? "projected" : "x");
  }

  /** h, (T, H). */
  hidden(layer) {
    return this.values(layer, "h");
  }

  /** What the units that are not in the file add to a sum, (T, H) or, for a, (T, gates * H); null where all are. */
  rest(layer, name) {
    return this.array(`rest ${layer.name} ${name}`, () => (this.stored.layers[layer.name].rest || {})[name]);
  }

  /** (T, H) of a value, or of the gradient of the loss with respect to it. */
  values(layer, name, gradient = false) {
    const kind = gradient ? "gradients" : "values";
    return this.array(`${kind} ${layer.name} ${name}`, () => (this.stored.layers[layer.name][kind] || {})[name]);
  }

  /** (T, gates * H), the pre-activations, or the gradients of the loss with respect to them. */
  pre(layer, gradient = false) {
    const kind = gradient ? "da" : "a";
    return this.array(`${kind} ${layer.name}`, () => this.stored.layers[layer.name][kind]);
  }

  /** A value of a unit at a step; 0 before the beginning; null where there is none, as gradients of what the page made. */
  at(layer, name, t, unit, gradient = false) {
    if (t === null) return 0;
    const values = this.values(layer, name, gradient);
    return values === null ? null : values[t * MODEL.H + unit];
  }

  preAt(layer, gate, t, unit, gradient = false) {
    if (t === null) return 0;
    const values = this.pre(layer, gradient);
    return values === null ? null : values[(t * MODEL.gates.length + MODEL.gates.indexOf(gate)) * MODEL.H + unit];
  }

  get hasGradients() {
    return Boolean(this.stored.dlogits);
  }

  /** The class that is most probable after each step. */
  get answers() {
    return this.array("answers", () => {
      const p = this.get("probabilities");
      return Array.from({ length: MODEL.T }, (_, t) => argmax(p.subarray(t * MODEL.K, (t + 1) * MODEL.K)));
    });
  }

  get answer() {
    return argmax(this.get("logits"));
  }

  probability(t, k) {
    return this.get("probabilities")[t * MODEL.K + k];
  }

  /** Runs of the same answer: [{k, from, to}], `k` null while no class has 30 %. */
  get runs() {
    return this.array("runs", () => {
      const runs = [];
      for (let t = 0; t < MODEL.T; t++) {
        const k = this.probability(t, this.answers[t]) < UNDECIDED ? null : this.answers[t];
        const last = runs[runs.length - 1];
        if (last && last.k === k) last.to = t;
        else runs.push({ k, from: t, to: t });
      }
      return runs;
    });
  }

  /** The step from which on the answer is the final one. */
  get decided() {
    const runs = this.runs;
    return runs[runs.length - 1].from;
  }
}

const UNDECIDED = 0.3;

/**
 * The change of mind in words, as parts: texts and the runs that they are about, which a page may colour.
 *
 * "undecided until row 7, 5 until row 16, 8 from row 17, 3 at the last row"
 */
function mindInParts(pass) {
  const runs = pass.runs;
  const step = (t) => `${MODEL.step} ${t + 1}`;
  const last = runs[runs.length - 1];
  if (runs.length === 1) return [last, ` from the first ${MODEL.step} to the last`];
  if (runs.length > 7) return [`it changes ${runs.length - 1} times and is `, last, ` from ${step(last.from)} on`];
  return runs.flatMap((run, k) => {
    const comma = k ? [", "] : [];
    if (k === 0) return [run, ` ${run.to === run.from ? "at" : "until"} ${step(run.to)}`];
    if (run.from === MODEL.T - 1) return [...comma, run, ` at the last ${MODEL.step}`];
    if (run === last) return [...comma, run, ` from ${step(run.from)} on`];
    return [...comma, run, run.from === run.to ? ` at ${step(run.from)}` : ` from ${step(run.from)}`];
  });
}

const answerOf = (run) => (run.k === null ? "undecided" : className(run.k));
const inWords = (pass) => mindInParts(pass).map((part) => (typeof part === "string" ? part : answerOf(part))).join("");

// ---- which units, and in which order

/** What a unit of the top layer adds to the logit of the answer, or its part in the loss in a layer below. */
function influence(pass, layer) {
  return pass.array(`influence ${layer.name}`, () => {
    const H = MODEL.H;
    const h = pass.hidden(layer);
    if (layer.top) {
      const W = WEIGHTS.get("readout", "W");
      const width = W.shape[1];
      const offset = pass.answer * width + (layer.reverse ? H : 0);
      return Array.from({ length: H }, (_, unit) => W[offset + unit] * h[layer.readAt * H + unit]);
    }
    return Array.from({ length: H }, (_, unit) => {
      let sum = 0;
      for (let t = 0; t < MODEL.T; t++) sum += Math.abs(h[t * H + unit] * (pass.at(layer, "h", t, unit, true) ?? 1));
      return sum;
    });
  });
}

/** The mean of a value of a unit over the steps: the geometric mean where it multiplies the state again and again. */
function meanOf(pass, layer, name, unit, geometric = false) {
  let sum = 0;
  for (let t = 0; t < MODEL.T; t++) {
    const value = pass.at(layer, name, t, unit);
    sum += geometric ? Math.log(Math.max(value, 1e-30)) : value;
  }
  return geometric ? Math.exp(sum / MODEL.T) : sum / MODEL.T;
}

const LONG = 4; // steps after which half of the state is left
const QUICK = 2;
const OPEN = 0.9;

/** What a unit does in this pass, by its gates; null where the cell has no gate that keeps. */
function roleOf(pass, layer, unit) {
  if (!CELL.keeps) return null;
  const half = Math.log(0.5) / Math.log(meanOf(pass, layer, CELL.keeps, unit, true));
  if (half >= LONG) return `long memory: half of the state is left after ${LONG} ${MODEL.steps} or more`;
  if (half < QUICK) return `quick: half of the state is gone within ${QUICK} ${MODEL.steps}`;
  if (CELL.opens && meanOf(pass, layer, CELL.opens, unit) >= OPEN) return `always open: the mean of ${CELL.opens} is ${OPEN} or more`;
  return `in between: half of the state is left after ${QUICK} to ${LONG} ${MODEL.steps}`;
}

const ROLES = ["long memory", "always open", "in between", "quick"];

const ORDERS = {
  role: "by what they do",
  influence: "by influence on the answer",
  keeps: "by memory: mean of the gate that keeps",
  weight: "by read-out weight of the answer",
  first: "by the step at which they first respond",
  index: "by number",
};

const MANY = 24; // units that are shown unless all are asked for

/** Groups of units in the order in which they are drawn: [{title, units}]. */
function arrange(pass, layer, order, all, chosen) {
  const units = Array.from({ length: MODEL.H }, (_, unit) => unit);
  const push = influence(pass, layer).map(Math.abs);
  const strongest = [...units].sort((a, b) => push[b] - push[a] || a - b);
  const shown = all ? units : strongest.slice(0, MANY);
  if (chosen !== null && !shown.includes(chosen)) shown.push(chosen);
  const by = (measure) => [...shown].sort((a, b) => measure(b) - measure(a) || a - b);
  const one = (sorted) => [{ title: null, units: sorted }];
  if (order === "index") return one([...shown].sort((a, b) => a - b));
  if (order === "keeps" && CELL.keeps) return one(by((unit) => meanOf(pass, layer, CELL.keeps, unit)));
  if (order === "weight" && layer.top) {
    const W = WEIGHTS.get("readout", "W");
    const offset = pass.answer * W.shape[1] + (layer.reverse ? MODEL.H : 0);
    return one(by((unit) => Math.abs(W[offset + unit])));
  }
  if (order === "first") {
    const h = pass.hidden(layer);
    const responds = (unit) => {
      const path = Array.from({ length: MODEL.T }, (_, t) => Math.abs(h[t * MODEL.H + unit]));
      const most = Math.max(...path);
      return -path.findIndex((size) => size >= most / 2);
    };
    return one(by(responds));
  }
  if (order === "role" && CELL.keeps) {
    const groups = new Map();
    for (const unit of by((unit) => push[unit])) {
      const role = roleOf(pass, layer, unit);
      groups.set(role, [...(groups.get(role) || []), unit]);
    }
    const place = (title) => ROLES.findIndex((role) => title.startsWith(role));
    return [...groups].sort((a, b) => place(a[0]) - place(b[0])).map(([title, members]) => ({ title, units: members }));
  }
  return one(by((unit) => push[unit]));
}
