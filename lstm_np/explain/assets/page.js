// The page: what is shown (kept in the address), the keyboard, and who draws what.

const DEFAULTS = { s: 0, layer: LAYERS[LAYERS.length - MODEL.directions].name, t: MODEL.T - 1, u: null, v: CELL.maps[0], tab: "forward", order: CELL.keeps ? "role" : "influence", all: false, hold: null, with: "", target: "loss" };
const STATE = { ...DEFAULTS };
let panels = [];
let groups = [];
let extra = null; // a unit that is shown because it was asked for, although it is not among the most influential
let playing = null;

const currentPass = () => heldPass(PASSES[STATE.s]);
const currentLayer = () => LAYERS.find((layer) => layer.name === STATE.layer);
const view = () => ({ pass: currentPass(), layer: currentLayer(), t: STATE.t, unit: STATE.u, v: STATE.v, tab: STATE.tab, groups, other: otherPass(currentPass()) });
const visibleUnits = () => groups.flatMap((group) => group.units);

function subtitle({ pass, layer }) {
  return [pass.name, MODEL.cellName + (layer.label ? `, ${layer.label}` : ""), `${MODEL.units} units`].join(" · ");
}

// ---- the address: #s=18&t=15&v=f&u=52

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (name, from, to) => {
    const text = given.get(name);
    const number = Number(text);
    return text !== null && Number.isInteger(number) && number >= from && number <= to ? number : null;
  };
  const among = (name, choices) => (choices.includes(given.get(name)) ? given.get(name) : null);
  const sample = PASSES.findIndex((pass) => pass.name === given.get("s") || String(pass.stored.index) === given.get("s"));
  const step = whole("t", 1, MODEL.T);
  const found = {
    s: sample < 0 ? null : sample,
    layer: among("layer", LAYERS.map((layer) => layer.name)),
    t: step === null ? null : step - 1,
    v: among("v", MODEL.values),
    tab: among("tab", Object.keys(TABS)),
    order: among("order", Object.keys(ORDERS)),
    all: given.get("units") === "all" ? true : null,
    hold: holdFromText(given.get("hold")),
    with: among("with", comparisons({ name: null }).map(([key]) => key)),
    target: among("target", [...targets(), "path"]),
  };
  const state = { ...DEFAULTS, ...Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null)) };
  const unit = LAYERS.find((layer) => layer.name === state.layer).ids.indexOf(whole("u", 0, MODEL.units - 1));
  return { ...state, u: unit < 0 ? null : unit };
}

function writeAddress() {
  const pass = currentPass();
  const parts = [["s", pass.stored.index ?? pass.name], ["t", STATE.t + 1], ["v", STATE.v], ["u", currentLayer().id(STATE.u)]];
  for (const name of ["layer", "tab", "order"]) if (STATE[name] !== DEFAULTS[name]) parts.push([name, STATE[name]]);
  if (STATE.all) parts.push(["units", "all"]);
  for (const name of ["target", "with"]) if (STATE[name] !== DEFAULTS[name]) parts.push([name, STATE[name]]);
  if (STATE.hold) parts.push(["hold", holdToText(STATE.hold)]);
  const hash = `#${new URLSearchParams(parts)}`;
  if (hash !== location.hash) history.replaceState(null, "", hash);
}

// ---- what changes when

/** Go to another value, step, unit, sample or arrangement; what is not named stays. */
function go(change) {
  const before = { ...STATE };
  for (const [key, value] of Object.entries(change)) if (value !== undefined && value !== null) STATE[key] = value;
  if (STATE.hold === "none") STATE.hold = null;
  STATE.t = Math.max(0, Math.min(MODEL.T - 1, STATE.t));
  follow(before);
}

/** Draw what a change of the state has changed. */
function follow(before) {
  const rearranged = ["s", "layer", "order", "all"].some((key) => STATE[key] !== before[key]);
  if (rearranged) extra = null;
  show(rearranged || ["hold", "target", "with"].some((key) => STATE[key] !== before[key]));
}

function show(everything) {
  const pass = currentPass();
  const layer = currentLayer();
  STATE.u ??= arrange(pass, layer, "influence", false, null)[0].units[0];
  const arrangement = () => arrange(pass.heldFrom || pass, layer, STATE.order, STATE.all, extra ?? STATE.u);
  const still = DRAWING.open && pass.name === DRAWN && groups.length; // rows that jump while one draws cannot be followed
  if (everything && !still) groups = arrangement();
  if (!visibleUnits().includes(STATE.u)) {
    extra = STATE.u;
    groups = arrangement();
    everything = true;
  }
  if (everything) drawAll();
  point();
  writeAddress();
}

function drawAll() {
  const now = view();
  document.documentElement.style.setProperty("--steps", MODEL.T);
  drawHeading(now);
  drawControls();
  byId("compared").hidden = !now.other;
  if (now.other) byId("compared").replaceChildren(...comparisonInWords(now.other));
  byId("held").hidden = !STATE.hold;
  if (STATE.hold) byId("held-words").replaceChildren("What if: ", el("strong", {}, holdInWords(STATE.hold)), ". All that is shown is computed in the page; pale curves are the recorded pass.");
  panels.forEach((panel) => panel.draw(now));
  if (DRAWING.open) return; // what stands below the score follows when the drawing is done
  drawSaturation(now.layer);
  drawTensors(now);
}

/** Follow the playhead: what depends on the step and the unit alone. */
function point() {
  const now = view();
  document.documentElement.style.setProperty("--now", STATE.t);
  byId("slider").value = STATE.t + 1;
  panels.forEach((panel) => panel.point(now));
  pointDigit(now);
  byId("now").replaceChildren(...nowInWords(now));
  drawCard(now);
}

// ---- the heading: the digit, what was answered, and when

function drawHeading({ pass }) {
  const right = pass.label === null || pass.label === undefined ? null : pass.label === pass.answer;
  byId("title").replaceChildren(`${article(MODEL.cellName)} reads ${MODEL.isImage ? "a " : "class "}`, el("em", {}, className(pass.label ?? pass.answer)));
  const colours = classColours(pass);
  byId("verdict").replaceChildren("Its answer: ", ...mindInParts(pass).map((part) =>
    (typeof part === "string" ? part : part.k === null ? answerOf(part) : el("b", { style: { color: colours.get(part.k) } }, answerOf(part)))), ".");
  byId("about").replaceChildren(
    [pass.name, right === null ? null : `${right ? "right" : "wrong"}: the label is ${className(pass.label)}`,
      `${className(pass.answer)} with ${percent(pass.probability(MODEL.T - 1, pass.answer))}`, `${MODEL.units} units`,
      pass.inPage ? "computed in the page" : "every number is the engine's"].filter(Boolean).join(" · "));
  const canvas = byId("digit");
  const image = MODEL.isImage ? pass.get("image") : null;
  if (image) drawImage(canvas, image, MODEL.shape);
  byId("upright").hidden = !image;
  byId("samples").replaceChildren(...PASSES.map((other, place) => {
    const picture = el("canvas", { "aria-hidden": "true" });
    if (MODEL.isImage) drawImage(picture, other.get("image"), MODEL.shape);
    return el("button", { type: "button", class: "sample", "aria-pressed": place === STATE.s ? "true" : "false", title: other.name, onclick: () => go({ s: place }) }, MODEL.isImage ? picture : null, el("span", {}, other.name));
  }));
}

const article = (name) => `${/^[AEIOL]/.test(name) || name === "RNN" ? "An" : "A"} ${name}`;

function drawImage(canvas, image, [rows, columns]) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(columns, rows);
  const scale = new Scale("ink", 1);
  image.forEach((value, k) => pixels.data.set([...scale.colour(value), 255], 4 * k));
  context.putImageData(pixels, 0, 0);
}

/** The row that is being read, boxed; the rows after it, dimmed. */
function pointDigit({ t }) {
  const [rows, columns] = MODEL.shape || [1, 1];
  const box = byId("reading").style;
  const dim = byId("to-come").style;
  const place = (style, left, top, width, height) => Object.assign(style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * width}%`, height: `${100 * height}%` });
  if (MODEL.view === "rows") {
    place(box, 0, t / rows, 1, 1 / rows);
    place(dim, 0, (t + 1) / rows, 1, 1 - (t + 1) / rows);
  } else if (MODEL.view === "columns") {
    place(box, t / columns, 0, 1 / columns, 1);
    place(dim, (t + 1) / columns, 0, 1 - (t + 1) / columns, 1);
  } else if (MODEL.view === "pixels") {
    const row = Math.floor(t / columns);
    place(box, (t % columns) / columns, row / rows, 1 / columns, 1 / rows);
    place(dim, 0, (row + 1) / rows, 1, 1 - (row + 1) / rows);
  } else {
    place(box, 0, 0, 0, 0);
    place(dim, 0, 0, 0, 0);
  }
}

function nowInWords({ pass, t }) {
  const best = Array.from({ length: MODEL.K }, (_, k) => k).sort((a, b) => pass.probability(t, b) - pass.probability(t, a)).slice(0, 2);
  return [el("strong", {}, `${MODEL.step} ${t + 1}`), ` of ${MODEL.T}: `, best.map((k) => `${className(k)} ${percent(pass.probability(t, k))}`).join(", ")];
}

// ---- controls

function choices(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => {
    const option = el("option", { value }, text);
    option.selected = value === chosen;
    return option;
  }));
}

function drawControls() {
  const known = Object.entries(ORDERS).filter(([key]) => (["role", "keeps"].includes(key) ? CELL.keeps : key === "weight" ? currentLayer().top : true));
  choices(byId("order"), known, STATE.order);
  choices(byId("layer"), LAYERS.map((layer) => [layer.name, layer.label || "layer 0"]), STATE.layer);
  const pass = currentPass();
  const goals = (pass.stored.dxOfLogits ? targets() : ["loss"]).map((target) => [target, targetName(target)]);
  if (pass.stored.integrated) goals.push(["path", "integrated gradients"]);
  choices(byId("target"), goals, STATE.target);
  const others = comparisons(pass);
  choices(byId("with"), others, otherPass(pass) ? STATE.with : "");
  byId("with-box").hidden = others.length < 2;
  byId("target-box").hidden = !pass.hasGradients;
  byId("layer-box").hidden = LAYERS.length === 1;
  byId("all-box").hidden = MODEL.H <= MANY;
  byId("all").checked = STATE.all;
  byId("all-text").textContent = `all ${MODEL.H} units`;
  byId("left-out").textContent = MODEL.H < MODEL.units ? leftOut() : "";
}

function leftOut() {
  const layer = currentLayer();
  const missing = Array.from({ length: MODEL.units }, (_, unit) => unit).filter((unit) => !layer.ids.includes(unit));
  const ranges = missing.reduce((found, unit) => {
    const last = found[found.length - 1];
    if (last && last[1] === unit - 1) last[1] = unit;
    else found.push([unit, unit]);
    return found;
  }, []).map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`));
  return `The file holds the ${MODEL.H} of ${MODEL.units} units with the largest read-out weights, to stay below its limit; left out: ${ranges.join(", ")}. ` +
    "A larger --megabytes keeps all, and lets you draw and hold gates.";
}

function listenToControls() {
  const slider = byId("slider");
  slider.max = MODEL.T;
  slider.setAttribute("aria-label", MODEL.step);
  slider.addEventListener("input", () => go({ t: Number(slider.value) - 1 }));
  byId("order").addEventListener("change", (event) => go({ order: event.target.value }));
  byId("with").addEventListener("change", (event) => go({ with: event.target.value }));
  byId("target").addEventListener("change", (event) => go({ target: event.target.value }));
  byId("layer").addEventListener("change", (event) => go({ layer: event.target.value }));
  byId("all").addEventListener("change", (event) => go({ all: event.target.checked }));
  byId("play").addEventListener("click", play);
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    show(true);
  });
  byId("copy").addEventListener("click", copyCommand);
  byId("let-go").addEventListener("click", () => go({ hold: "none" }));
  byId("draw").hidden = !canCompute() || !MODEL.isImage || MODEL.view === "permuted";
  listenToDrawing();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => show(true));
  addEventListener("hashchange", () => {
    const before = { ...STATE };
    Object.assign(STATE, readAddress());
    follow(before);
  });
}

async function copyCommand() {
  try {
    await navigator.clipboard.writeText(byId("command").textContent);
    byId("copy").textContent = "copied";
  } catch {
    getSelection().selectAllChildren(byId("command")); // a browser that does not let a page copy: it is marked instead
    byId("copy").textContent = "marked: copy it";
  }
}

function play() {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else {
    if (STATE.t === MODEL.T - 1) go({ t: 0 });
    playing = setInterval(() => {
      if (STATE.t === MODEL.T - 1) play();
      else go({ t: STATE.t + 1 });
    }, Math.max(40, Math.min(350, 12000 / MODEL.T)));
  }
  byId("play").textContent = playing ? "pause" : "play";
}

// ---- the keyboard

function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    const inField = event.target.matches("input, select, textarea") || event.target.closest(".scroll"); // which scrolls by its own keys
    if (event.ctrlKey || event.metaKey || event.altKey || inField) return;
    const inScore = event.target.closest(".panel .plot");
    const action = keyAction(event, inScore, event.target.matches("button, summary, a"));
    if (!action) return;
    event.preventDefault();
    action();
    announce();
  });
}

function keyAction(event, inScore, onButton) {
  const order = visibleUnits();
  const place = order.indexOf(STATE.u);
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (sideways) return () => go({ t: STATE.t + sideways });
  if (inScore) {
    const vertical = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (vertical) return () => go({ u: order[place + vertical] });
    if (event.key === "Home") return () => go({ t: 0 });
    if (event.key === "End") return () => go({ t: MODEL.T - 1 });
    if (event.key === "Enter" && !onButton) return () => {
      const map = panels.find((panel) => panel.plot === event.target);
      if (map && map.value) go({ v: map.value });
      openCard();
    };
  }
  if (event.key === " " && !onButton && !event.target.closest("#card")) return play;
  if (event.key === "Escape") return closeCard;
  const number = Number(event.key);
  if (number >= 1 && number <= CELL.maps.length) return () => go({ v: CELL.maps[number - 1] });
  if (event.key === "b") return () => go({ tab: STATE.tab === "backward" ? "forward" : "backward" });
  if (event.key === "n") return () => go({ s: (STATE.s + 1) % PASSES.length });
  if (event.key === "p") return () => go({ s: (STATE.s + PASSES.length - 1) % PASSES.length });
  if (event.key === "a" && !byId("all-box").hidden) return () => go({ all: !STATE.all });
  return null;
}

/** Say the value to those who cannot see it move. */
function announce() {
  const { pass, layer, t, unit, v } = view();
  const value = pass.at(layer, v, t, unit);
  byId("live").textContent = `${nameOf(v)}, unit ${layer.id(unit)}, ${MODEL.step} ${t + 1}: ${value === null ? "not in the file" : exact(value)}`;
}

// ---- the card on a small screen lies over the score until it is closed

function openCard() {
  byId("card").classList.add("open");
}

function closeCard() {
  byId("card").classList.remove("open");
}

// ---- how to read the page

const KEYS = [
  ["← →", "the step before, the step after"],
  ["↑ ↓", "the unit above, the unit below (in a map)"],
  ["Home End", "the first step, the last step (in a map)"],
  ["1 … 9", "one of the maps, from the top"],
  ["Enter", "the card of a map's value"],
  ["b", "forward or backward"],
  ["space", "play, pause"],
  ["n p", "the next sample, the previous one"],
  ["a", "all units, or the most influential"],
  ["Esc", "close the card on a small screen"],
];

function drawHelp() {
  const list = (id, pairs) => byId(id).replaceChildren(...pairs.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));
  list("keys", KEYS);
  list("symbols", [
    ...MODEL.values.map((value) => [valueSymbol(value), nameOf(value)]),
    [symbol("a", MODEL.gates[0]), "pre-activation of a gate: W x + U h + b"],
    [el("span", {}, "d", symbol("c", "t")), "gradient of the loss with respect to a value"],
    [el("i", {}, "T, D, H, K"), `steps ${MODEL.T}, inputs ${MODEL.D}, units ${MODEL.units}, classes ${MODEL.K}`],
    ["counting", `${MODEL.steps} from 1, as in the equations; units, matrix entries and Python's steps from 0`],
  ]);
  list("provenance", DATA.provenance);
  byId("command").textContent = DATA.command;
}

// ---- begin

/** Panels of gradients and of the test set, where the file has them. */
function gradientPanels() {
  const found = [];
  if (PASSES.some((pass) => pass.hasGradients)) found.push(new FlowPanel(), new PixelPanel(), new MapPanel(CELL.maps.includes("c") ? "c" : "h", true));
  if (DATA.test) found.push(new TestPanel());
  return found;
}

function begin() {
  panels = [new ImagePanel(), new ProbabilityPanel(), ...CELL.maps.map((value) => new MapPanel(value)), ...gradientPanels()];
  drawAxis(byId("axis"));
  byId("panels").replaceChildren(...panels.map((panel) => panel.element));
  drawHelp();
  listenToControls();
  listenToKeys();
  Object.assign(STATE, readAddress());
  show(true);
  document.documentElement.dataset.ready = "yes";
  performance.mark("ready");
}

begin();
