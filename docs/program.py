"""A program that uses most of lstm_np.  `# %%` begins a cell where an editor or a notebook shows cells."""

# %% a layer: arrays are batch-first, (batch, time, features)
import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import lstm_np

State = tuple[Any, ...]
rng = np.random.default_rng(0)
lstm = lstm_np.LSTM(3, 8, num_layers=2, bidirectional=True)
y, (h_n, c_n), cache = lstm.forward(rng.standard_normal((4, 10, 3)))
dx, (dh_0, dc_0), grads = lstm.backward(cache, np.ones_like(y))  # of the loss y.sum()
optimizer: lstm_np.Optimizer = lstm_np.SGD(lstm.params, lr=0.01)
optimizer.step(grads)
y, _ = lstm(rng.standard_normal((4, 10, 3)), (h_n, c_n))  # no backward follows
lstm

# %% a model: does the first of ten steps lie above zero?
x = rng.standard_normal((400, 10, 3))
labels = x[:, 0, 0] > 0
model = lstm_np.SequenceClassifier(3, 16, 2, dtype=np.float32, seed=1)
adam = lstm_np.Adam(model.params, lr=0.01)
history: lstm_np.History = model.fit(x, labels, epochs=20, batch_size=20, optimizer=adam, validation_split=0.25)
accuracy: float = model.evaluate(x, labels).accuracy
print(f"{accuracy:.1%} right after {model.position.step} steps")
history

# %% copies go on where the model stands
other, its_adam = copy.deepcopy((model, adam))
sent: lstm_np.SequenceClassifier = pickle.loads(pickle.dumps(model))
for one, its in ((model, adam), (other, its_adam)):
    one.fit(x, labels, optimizer=its)
print(bool((model.params.flat == other.params.flat).all()), sent.position == lstm_np.Position(20, 0, 300))

# %% files hold no code
with TemporaryDirectory() as folder:
    model.save(Path(folder) / "model.safetensors")
    loaded = lstm_np.SequenceClassifier.load(Path(folder) / "model.safetensors")
print(np.array_equal(loaded.predict(x), model.predict(x)))


# %% a cell of one's own, checked and used
class Leaky:
    """h_t = (h_{t-1} + tanh(a)) / 2."""

    GATES, STATE, VALUES = ("n",), ("h",), ("n", "h")

    @staticmethod
    def forward(xp: Any, a: Any, state: State) -> tuple[State, dict[str, Any]]:
        n = xp.tanh(a)
        h = (state[0] + n) / 2
        return (h,), {"n": n, "h": h}

    @staticmethod
    def backward(xp: Any, dstate: State, state: State, values: Mapping[str, Any]) -> tuple[Any, State, dict[str, Any]]:
        dh = dstate[0]
        return dh / 2 * (1 - values["n"] ** 2), (dh / 2,), {"n": dh / 2, "h": dh}


lstm_np.register_cell("leaky", Leaky)
report = lstm_np.gradcheck(lstm_np.SequenceClassifier(3, 5, 2, cell="leaky"))
print(report.ok)
