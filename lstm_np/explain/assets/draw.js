// Draw your own digit: ink is scaled and centred as the makers of MNIST did, and the model reads it while you draw.

const PEN = { side: 280, width: 24, step: 10 }; // the drawing in pixels; `step`: how far an arrow key moves the pen
const DRAWING = { strokes: [], open: false, pen: { x: 140, y: 60, down: false }, due: false };

/** The share of each old pixel in each new one where `before` pixels become `after`: rows of (after, before). */
function areaWeights(before, after) {
  const wide = before / after;
  return Array.from({ length: after }, (_, k) => Array.from({ length: before }, (_, old) =>
    Math.max(0, Math.min((k + 1) * wide, old + 1) - Math.max(k * wide, old)) / wide));
}

/**
 * An image (rows, columns) of the model's size from a drawing (side, side) with values 0 ... 1, or null without ink.
 *
 * The ink is scaled by area so that its longer side has the share of the frame that it has in the data set, and placed
 * with its centre of mass in the middle; lstm_np.data.images does the same with pictures.
 */
function fitInk(ink, side) {
  const [rows, columns] = MODEL.shape;
  const filled = (along) => Array.from({ length: side }, (_, k) => {
    for (let j = 0; j < side; j++) if (ink[along ? k * side + j : j * side + k] > 0.2) return true;
    return false;
  });
  const [down, across] = [filled(true), filled(false)];
  if (!down.includes(true)) return null;
  const [top, left] = [down.indexOf(true), across.indexOf(true)];
  const [height, width] = [down.lastIndexOf(true) - top + 1, across.lastIndexOf(true) - left + 1];
  const scale = MODEL.inkShare * Math.min(rows / height, columns / width);
  const inner = [Math.min(Math.max(Math.round(scale * height), 1), rows), Math.min(Math.max(Math.round(scale * width), 1), columns)];
  const [vertical, horizontal] = [areaWeights(height, inner[0]), areaWeights(width, inner[1])];
  const narrow = Array.from({ length: height }, (_, r) => horizontal.map((shares) =>
    shares.reduce((sum, share, c) => (share ? sum + share * ink[(top + r) * side + left + c] : sum), 0)));
  const small = vertical.map((shares) => Array.from({ length: inner[1] }, (_, c) =>
    shares.reduce((sum, share, r) => (share ? sum + share * narrow[r][c] : sum), 0)));
  const most = Math.max(...small.flat());
  const total = small.flat().reduce((a, b) => a + b, 0);
  const middle = (axis) => small.reduce((sum, row, r) => sum + row.reduce((s, value, c) => s + value * ((axis ? c : r) + 0.5), 0), 0) / total;
  const corner = [rows, columns].map((size, axis) => Math.min(Math.max(Math.round(size / 2 - middle(axis)), 0), size - inner[axis]));
  const Numbers = MODEL.type === "f8" ? Float64Array : Float32Array;
  const image = new Numbers(rows * columns);
  small.forEach((row, r) => row.forEach((value, c) => (image[(corner[0] + r) * columns + corner[1] + c] = value / most)));
  return { image, inner, corner };
}

function openDrawing() {
  DRAWING.open = true;
  byId("drawing").hidden = false;
  byId("pad").focus();
  paint();
}

function closeDrawing() {
  DRAWING.open = false;
  byId("drawing").hidden = true;
  show(true);
  byId("draw").focus();
}

/** Draw all strokes, then let the model read them, at most once a frame. */
function paint() {
  const pad = byId("pad");
  const context = pad.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#000";
  context.fillRect(0, 0, PEN.side, PEN.side);
  Object.assign(context, { strokeStyle: "#fff", fillStyle: "#fff", lineWidth: PEN.width, lineCap: "round", lineJoin: "round" });
  for (const stroke of DRAWING.strokes) {
    context.beginPath();
    stroke.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    if (stroke.length === 1) context.lineTo(stroke[0][0] + 0.01, stroke[0][1]);
    context.stroke();
  }
  const mark = byId("pen").style;
  mark.left = `${(100 * DRAWING.pen.x) / PEN.side}%`;
  mark.top = `${(100 * DRAWING.pen.y) / PEN.side}%`;
  if (DRAWING.due) return;
  DRAWING.due = true;
  requestAnimationFrame(() => {
    DRAWING.due = false;
    readDrawing();
  });
}

function readDrawing() {
  const pixels = byId("pad").getContext("2d").getImageData(0, 0, PEN.side, PEN.side).data;
  const ink = new Float64Array(PEN.side * PEN.side);
  for (let k = 0; k < ink.length; k++) ink[k] = pixels[4 * k] / 255;
  const fitted = fitInk(ink, PEN.side);
  const preview = byId("fitted");
  if (!fitted) {
    byId("fit-words").textContent = "Draw a digit: the model reads it while you draw.";
    preview.hidden = true;
    return;
  }
  preview.hidden = false;
  drawImage(preview, fitted.image, MODEL.shape);
  byId("fit-words").textContent = `Ink scaled to ${fitted.inner[0]} × ${fitted.inner[1]} of ${MODEL.shape[0]} × ${MODEL.shape[1]} pixels, its centre of mass in the middle.`;
  const pass = new Pass(forwardPass(WEIGHTS, sequenceOf(fitted.image), { name: DRAWN, image: fitted.image }));
  const place = PASSES.findIndex((one) => one.name === DRAWN);
  if (place < 0) PASSES.push(pass);
  else PASSES[place] = pass;
  STATE.s = place < 0 ? PASSES.length - 1 : place;
  STATE.t = MODEL.T - 1;
  show(true);
}

const DRAWN = "your digit";

function listenToDrawing() {
  const pad = byId("pad");
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * PEN.side, ((event.clientY - box.top) / box.height) * PEN.side];
  };
  byId("draw").addEventListener("click", () => (DRAWING.open ? closeDrawing() : openDrawing()));
  byId("clear").addEventListener("click", () => {
    DRAWING.strokes = [];
    paint();
  });
  byId("undo").addEventListener("click", () => {
    DRAWING.strokes.pop();
    paint();
  });
  byId("done").addEventListener("click", closeDrawing);
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    DRAWING.strokes.push([at(event)]);
    paint();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    const between = event.getCoalescedEvents?.() ?? []; // where the pointer was since the last frame
    for (const point of between.length ? between : [event]) DRAWING.strokes[DRAWING.strokes.length - 1].push(at(point));
    paint();
  });
  // without a pointer: arrow keys move the pen, the space bar puts it down and lifts it
  pad.addEventListener("keydown", (event) => {
    const pen = DRAWING.pen;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === " ") {
      pen.down = !pen.down;
      if (pen.down) DRAWING.strokes.push([[pen.x, pen.y]]);
    } else if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      pen.x = Math.max(0, Math.min(PEN.side, pen.x + PEN.step * dx));
      pen.y = Math.max(0, Math.min(PEN.side, pen.y + PEN.step * dy));
      if (pen.down) DRAWING.strokes[DRAWING.strokes.length - 1].push([pen.x, pen.y]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
    byId("live").textContent = `pen ${pen.down ? "down" : "up"} at ${pen.x}, ${pen.y} of ${PEN.side}`;
    paint();
  });
}
