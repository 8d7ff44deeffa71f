// What the file holds: the model, its weights, its layers, and the passes that were recorded.

const DATA = JSON.parse(byId("data").textContent);
const MODEL = DATA.model;
const CELL = describeCell();
const WEIGHTS = new Weights(DATA.weights);
const LAYERS = MODEL.names.map((name) => new Layer(name, (DATA.ids || {})[name]));
const PASSES = DATA.passes.map((stored) => new Pass(stored));
