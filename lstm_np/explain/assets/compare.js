// Two passes side by side: two samples, or one sample with a second set of weights.  Maps show the difference.

const OTHERS = (DATA.others || []).map((other) => ({ title: other.title, weights: new Weights(other.weights), passes: new Map() }));

/** What a pass can be compared with: [[key, words]]; samples by their names, weights by their titles. */
function comparisons(pass) {
  return [
    ["", "nothing"],
    ...PASSES.filter((other) => other.name !== pass.name).map((other) => [`sample ${other.name}`, other.name]),
    ...OTHERS.map((other) => [`weights ${other.title}`, `the same sample, ${other.title}`]),
  ];
}

/** The pass that the one shown is compared with, or null. */
function otherPass(pass) {
  const key = STATE.with;
  if (!key) return null;
  const sample = PASSES.find((other) => `sample ${other.name}` === key && other.name !== pass.name);
  if (sample) return sample;
  const other = OTHERS.find((one) => `weights ${one.title}` === key);
  if (!other || CELL.own || MODEL.H < MODEL.units) return null;
  if (!other.passes.has(pass)) {
    const name = `${pass.name}, ${other.title}`;
    other.passes.set(pass, new Pass(forwardPass(other.weights, pass.get("x"), { name, image: pass.get("image"), label: pass.label })));
  }
  return other.passes.get(pass);
}

function comparisonInWords(other) {
  return ["Compared with ", el("strong", {}, other.name), `, which says ${inWords(other)}. Maps show the difference, this less that; pale curves and small numbers are of that one`,
    other.inPage ? ", computed in the page." : "."];
}
