// A drawing of the LSTM cell with the numbers of one unit at one step: a line is as thick as its gate is open.

function cellDiagram({ pass, layer, t, unit, v }) {
  if (MODEL.cell !== "lstm") return null;
  const at = (name, step = t) => pass.at(layer, name, step, unit);
  const before = layer.before(t);
  const [f, i, o] = [at("f"), at("i"), at("o")];
  const wide = (share) => 1 + 5 * Math.min(Math.max(share, 0), 1);
  const line = (d, width = 1.2) => svg("path", { d, class: "wire", "stroke-width": width.toFixed(2) });
  const operator = (x, y, sign) => svg("g", {}, svg("circle", { cx: x, cy: y, r: 9, class: "operator" }), svg("text", { x, y: y + 4, class: "sign" }, sign));
  const box = (x, y, name, sign) => svg("g", { class: name === v ? "box chosen" : "box" },
    svg("rect", { x: x - 21, y: y - 13, width: 42, height: 26, rx: 4 }), svg("text", { x, y: y + 4, class: "name" }, sign));
  const number = (x, y, value, anchor = "middle") => svg("text", { x, y, class: "value", "text-anchor": anchor }, rough(value));
  const state = (x, y, letter, below, anchor = "middle") => svg("text", { x, y, class: "state", "text-anchor": anchor }, letter, svg("tspan", { class: "below", dy: 3 }, below));
  return svg("svg", { class: "diagram", viewBox: "0 0 440 198", "aria-hidden": "true" },
    // the cell state runs along the top, the gates stand below it
    line("M 8 40 H 81"), line("M 99 40 H 179", wide(f)), line("M 197 40 H 432"),
    line("M 90 97 V 49", wide(f)), line("M 188 75 V 49"), line("M 150 97 V 84 H 179", wide(i)), line("M 226 97 V 84 H 197"),
    line("M 340 40 V 67"), line("M 340 93 V 111"), line("M 349 120 H 432", wide(o)), line("M 306 120 H 331", wide(o)),
    line("M 8 176 H 285"), ...[90, 150, 226, 285].map((x) => line(`M ${x} 176 V ${x === 285 ? 133 : 123}`)),
    operator(90, 40, "×"), operator(188, 40, "+"), operator(188, 84, "×"), operator(340, 120, "×"),
    box(90, 110, "f", "σ f"), box(150, 110, "i", "σ i"), box(226, 110, "g", "tanh g"), box(285, 120, "o", "σ o"), box(340, 80, "tanh_c", "tanh"),
    number(90, 138, f), number(150, 138, i), number(226, 138, at("g")), number(285, 148, o), number(370, 84, at("tanh_c"), "start"),
    state(8, 24, "c", "t−1", "start"), number(8, 58, at("c", before), "start"), state(432, 24, "c", "t", "end"), number(432, 58, at("c"), "end"),
    state(432, 106, "h", "t", "end"), number(432, 140, at("h"), "end"),
    svg("text", { x: 8, y: 192, class: "state", "text-anchor": "start" }, "x", svg("tspan", { class: "below", dy: 3 }, "t"), svg("tspan", { dy: -3 }, " and h"), svg("tspan", { class: "below", dy: 3 }, "t−1")));
}
