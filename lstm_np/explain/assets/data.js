// What the file holds: the model, its weights, its layers, and the passes that were recorded.

const DATA = JSON.parse(byId("data").textContent);
const MODEL = DATA.model;
const CELL = describeCell();
const WEIGHTS = new Weights(DATA.weights);
const LAYERS = MODEL.names.map((name) => new Layer(name, (DATA.ids || {})[name]));
const PASSES = DATA.passes.map((stored) => new Pass(stored));

/** What a class is called: its label in the data, else its number. */
const className = (k) => (MODEL.classes ? MODEL.classes[k] : `${k}`);
/** What a feature is called, `otherwise` where the data have no names. */
const featureName = (k, otherwise = `${k}`) => (MODEL.features ? MODEL.features[k] : otherwise);
/** As much of a name as a picture has room for. */
const shortName = (name, room = 12) => (name.length > room ? `${name.slice(0, room - 1)}…` : name);
