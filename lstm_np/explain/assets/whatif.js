// What if a gate were held?  A second pass, computed in the page, beside the recorded one.

/** The pass that is shown: the recorded one, or what becomes of it while a value is held. */
const HELD = { key: null, pass: null };

function heldPass(recordedPass) {
  const hold = STATE.hold;
  if (!hold) return recordedPass;
  const key = JSON.stringify([recordedPass.name, hold]);
  if (HELD.key !== key || HELD.of !== recordedPass) {
    const stored = forwardPass(WEIGHTS, recordedPass.get("x"), {
      name: recordedPass.name, image: recordedPass.get("image"), label: recordedPass.label, holds: [hold] });
    stored.index = recordedPass.stored.index;
    Object.assign(HELD, { key, of: recordedPass, pass: new Pass(stored) });
    HELD.pass.heldFrom = recordedPass;
  }
  return HELD.pass;
}

function holdInWords(hold) {
  const whose = hold.unit === null ? "of all units" : `of unit ${hold.unit}`; // all units are there, or nothing is held
  return `${hold.v} ${whose} held at ${rough(hold.number)} from ${MODEL.step} ${hold.from + 1} on`;
}

/** "f,52,1,15": a hold in the address; all units are "all". */
function holdToText(hold) {
  return [hold.layer, hold.v, hold.unit ?? "all", hold.number, hold.from + 1].join(",");
}

function holdFromText(text) {
  const [layer, v, unit, number, from] = (text || "").split(",");
  const hold = { layer, v, unit: unit === "all" ? null : Number(unit), number: Number(number), from: Number(from) - 1 };
  const good = LAYERS.some((one) => one.name === layer) && MODEL.values.includes(v) && Number.isFinite(hold.number) &&
    Number.isInteger(hold.from) && hold.from >= 0 && hold.from < MODEL.T && (hold.unit === null || (Number.isInteger(hold.unit) && hold.unit >= 0 && hold.unit < MODEL.H));
  return good && canCompute() ? hold : null;
}

/** The form in the card that holds the value it shows. */
function holdForm({ layer, t, unit, v }) {
  if (!canCompute()) return null;
  const present = STATE.hold;
  const all = el("select", { "aria-label": "units" }, el("option", { value: "one" }, `of unit ${unit}`), el("option", { value: "all" }, "of all units"));
  if (present && present.unit === null) all.value = "all";
  const number = el("input", { type: "number", step: "any", value: present && present.v === v ? present.number : (CELL.scales[v] || FREE).map === "share" ? 1 : 0, "aria-label": "held at" });
  const from = el("input", { type: "number", min: 1, max: MODEL.T, value: present ? present.from + 1 : t + 1, "aria-label": `from ${MODEL.step}` });
  const apply = () => {
    const hold = { layer: layer.name, v, unit: all.value === "all" ? null : unit, number: Number(number.value), from: Math.max(0, Math.min(MODEL.T - 1, Math.round(Number(from.value)) - 1)) };
    if (Number.isFinite(hold.number)) hold.number = round(hold.number);
    if (Number.isFinite(hold.number) && Number.isFinite(hold.from)) go({ hold });
  };
  return el("form", { class: "hold", onsubmit: (event) => {
    event.preventDefault();
    apply();
  } }, el("h3", {}, "What if"), el("p", {}, "hold ", valueSymbol(v, null), " ", all, " at ", number, ` from ${MODEL.step} `, from, " on ",
    el("button", { type: "submit" }, "hold"), present ? el("button", { type: "button", onclick: () => go({ hold: "none" }) }, "let go") : null));
}
