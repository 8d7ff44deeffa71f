// Numbers: arrays out of the file, how a number is written, how it is coloured.

// the digits of the base 85: characters that neither JSON nor HTML has to escape
const DIGITS = Array.from({ length: 94 }, (_, k) => String.fromCharCode(33 + k)).filter((digit) => !"\"&'<>\\".includes(digit)).slice(0, 85);
const PLACES = new Uint8Array(128);
DIGITS.forEach((digit, place) => (PLACES[digit.charCodeAt(0)] = place));

/** A typed array from {type: "f4" | "f8", shape, data: 32 bits in five digits}: the bits that the engine had. */
function unpack({ type, shape, data }) {
  const words = new Uint32Array(data.length / 5);
  for (let k = 0, at = 0; k < words.length; k++) {
    let word = 0;
    for (const end = at + 5; at < end; at++) word = word * 85 + PLACES[data.charCodeAt(at)];
    words[k] = word;
  }
  const values = type === "f8" ? new Float64Array(words.buffer) : new Float32Array(words.buffer);
  values.shape = shape;
  return values;
}

/** The shortest text that reads back as the same number of the engine: a float32 has at most 9 digits. */
function exact(x) {
  if (MODEL.type === "f8" || !Number.isFinite(x)) return String(x);
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(x.toPrecision(digits));
    if (Math.fround(short) === x) return String(short);
  }
  return String(Number(x.toPrecision(9)));
}

/** A number that the page computed in double precision. */
function computed(x) {
  return x === 0 ? "0" : String(Number(x.toPrecision(9)));
}

/** A rough number for labels of axes and legends. */
function rough(x) {
  const size = Math.abs(x);
  return size !== 0 && (size < 0.001 || size >= 10000) ? x.toExponential(1) : String(Number(x.toPrecision(3)));
}

function percent(p) {
  return `${(100 * p).toFixed(2)} %`;
}

/** The next number of the same kind: what the page computes is rounded as the engine's arrays are. */
const round = (x) => (MODEL.type === "f8" ? x : Math.fround(x));

const sigmoid = (a) => (1 + Math.tanh(a / 2)) / 2;

function softmax(logits) {
  const top = Math.max(...logits);
  const parts = Array.from(logits, (z) => Math.exp(z - top));
  const sum = parts.reduce((a, b) => a + b, 0);
  return parts.map((part) => part / sum);
}

function argmax(values) {
  let best = 0;
  for (let k = 1; k < values.length; k++) if (values[k] > values[best]) best = k;
  return best;
}

// ---- colour maps: 256 colours between a few that are given

const ANCHORS = {
  // cividis, made for colour-vision deficiency (Nunez, Anderton and Renslow, PLOS ONE 13(7), 2018)
  share: { light: ["00204d", "233e6c", "575c6d", "7c7b78", "a69d75", "d3c164", "ffea46"] },
  // blue below zero, red above, the page's background at zero
  signed: {
    light: ["053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7", "fddbc7", "f4a582", "d6604d", "b2182b", "67001f"],
    dark: ["a9d3ff", "5c9fe0", "3470ab", "214a72", "16283c", "15171c", "35201d", "66302a", "a34b3f", "dd7563", "ffb5a3"],
  },
  ink: { light: ["ffffff", "1a2030"], dark: ["15171c", "f2efe8"] },
};

const TABLES = {};

/** 256 colours [red, green, blue] of a colour map in the theme that the page has. */
function table(name) {
  const theme = isDark() && ANCHORS[name].dark ? "dark" : "light";
  const key = `${name} ${theme}`;
  if (!TABLES[key]) {
    const anchors = ANCHORS[name][theme].map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
    TABLES[key] = Array.from({ length: 256 }, (_, index) => {
      const place = (index / 255) * (anchors.length - 1);
      const left = Math.min(Math.floor(place), anchors.length - 2);
      return anchors[left].map((from, c) => Math.round(from + (place - left) * (anchors[left + 1][c] - from)));
    });
    // no two neighbours are alike, so that a colour says which value it stands for
    TABLES[key].forEach((colour, k) => {
      if (k && colour.join() === TABLES[key][k - 1].join()) colour[2] += colour[2] < 255 ? 1 : -1;
    });
  }
  return TABLES[key];
}

/**
 * How values become colours, those of the theme at the time: made anew whenever a picture is drawn.
 *
 * `root`: by the square root, so that one large value does not wash out the rest.
 */
class Scale {
  constructor(map, limit, root = false) {
    this.colours = table(map);
    this.signed = map === "signed";
    this.high = limit || 1;
    this.low = this.signed ? -this.high : 0;
    this.root = root;
  }

  /** Where a value lies between the limits, 0 ... 1. */
  place(value) {
    const share = Math.min(Math.abs(value) / this.high, 1);
    const size = this.root ? Math.sqrt(share) : share;
    return this.signed ? (1 + Math.sign(value) * size) / 2 : value < 0 ? 0 : size;
  }

  colour(value) {
    return this.colours[Math.round(255 * this.place(value))];
  }

  /** Values that a legend names, with their places. */
  ticks() {
    return (this.signed ? [-1, 0, 1] : [0, 1]).map((share) => ({ value: share * this.high, place: this.place(share * this.high) }));
  }
}
