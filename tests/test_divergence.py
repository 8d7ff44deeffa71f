"""A value that is not finite is noticed in its step, before anything changes, and named."""

from __future__ import annotations

import numpy as np
import pytest

import lstm_np
from lstm_np.data import Batches
from lstm_np.divergence import NotFinite, in_arrays
from lstm_np.loop import Position, TrainingDivergedError, train
from lstm_np.steps import ModelSteps

VALUES = (np.nan, np.inf, -np.inf)
MODELS = {
    "lstm": {},
    "gru": {"cell": "gru", "bias": "double"},
    "stack": {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "input_projection": 3},
    "float64": {"dtype": "float64", "cell": "rnn_relu"},
}


def data(dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 5, 4)).astype(dtype), rng.integers(0, 3, 12)


def made(kind="lstm", optimizer=lstm_np.Adam, steps_class=ModelSteps):
    model = lstm_np.SequenceClassifier(4, 6, 3, **MODELS[kind])
    steps = steps_class(model, optimizer(model.params, lr=0.01))
    steps.step(data(), 1)
    return model, steps


def all_of(model, steps):
    return [model.params.flat.copy(), *(slot.copy() for slot in steps.optimizer.slots.values())]


def diverges(model, steps, batch):
    """The error of a step that must not change anything."""
    before = all_of(model, steps)
    with pytest.raises(TrainingDivergedError, match=r"^training diverged at step 2: ") as error:
        steps.step(batch, 2)
    for a, b in zip(before, all_of(model, steps), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", list(MODELS))
def test_in_x(kind, value):
    model, steps = made(kind)
    x, labels = data()
    x[3, 2, 1] = x[7, 4, 0] = value
    line = diverges(model, steps, (x, labels))
    expected = f"samples 3, 7 of the batch, first at time step 2, feature 1, where it is {value:g})"
    assert f" since x has values that are not finite in {model.dtype} ({expected}; " in line


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", list(MODELS))
def test_in_every_parameter(kind, value):
    names = list(made(kind)[0].params)
    for name in names:
        model, steps = made(kind)
        array = model.params[name]
        place = tuple(size - 1 for size in array.shape)
        array[place] = value
        line = diverges(model, steps, data())
        shown = ", ".join(map(str, place))
        assert f" since {name} was not finite already ([{shown}]" in line
        assert f" is {value:g})" in line


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("make", [lstm_np.Adam, lstm_np.RMSProp, lambda p, lr: lstm_np.SGD(p, lr, momentum=0.9)])
def test_in_what_the_optimizer_keeps(make, value):
    for slot in made(optimizer=make)[1].optimizer.slots:
        for name in made()[0].params:
            model, steps = made(optimizer=make)
            model.params.like(steps.optimizer.slots[slot])[name].reshape(-1)[-1] = value
            assert f" since the optimizer's {slot} of {name} was not finite already (" in diverges(model, steps, data())


class Spoiling(ModelSteps):
    """Gradients or a loss that are spoilt on their way, as by a fault of the machine."""

    name, value = None, np.nan

    def gradients(self, batch, number):
        made = super().gradients(batch, number)
        if self.name == "loss":
            made.loss = np.float32(self.value)
        elif self.name is not None:
            made.grads[self.name].reshape(-1)[-1] = self.value
        return made


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", list(MODELS))
def test_in_every_gradient_and_the_loss(kind, value):
    for name in [*made(kind)[0].params, "loss"]:
        model, steps = made(kind, steps_class=Spoiling)
        steps.name, steps.value = name, value
        line = diverges(model, steps, data())
        if name == "loss":
            assert f": the loss is {value:g}, though all is finite when it is computed again; " in line
        else:
            assert f"; the gradient of {name} is not finite ([" in line
            assert "though all is finite when it is computed again" in line


def test_the_gate_and_the_step_where_a_value_is_first_not_finite():
    """U doubles what a ReLU holds at every step: the step at which it leaves float32 can be counted."""
    model = lstm_np.SequenceClassifier(1, 2, 2, cell="rnn_relu", num_layers=2)
    model.params.flat[...] = 0
    model.params["layer0.W"][...] = 1
    np.fill_diagonal(model.params["layer0.U"], 1e10)
    model.params["layer1.W"][...] = 1
    x = np.zeros((5, 9, 1), np.float32)
    x[2, 1], x[4, 1] = 1e8, 1e8  # 1e8, 1e18, 1e28, 1e38, infinite at step 5
    steps = ModelSteps(model, lstm_np.SGD(model.params))
    with pytest.raises(TrainingDivergedError) as error:
        steps.step((x, np.zeros(5, int)), 1)
    assert "; the first value that is not finite is h of layer0 at time step 5, in samples 2, 4 of the batch; " in str(
        error.value
    )


def test_in_a_backward_layer_steps_are_those_of_the_sequence():
    model = lstm_np.SequenceClassifier(1, 2, 2, cell="rnn_relu", bidirectional=True)
    model.params.flat[...] = 0
    model.params["layer0_reverse.W"][...] = 1
    np.fill_diagonal(model.params["layer0_reverse.U"], 1e10)
    x = np.zeros((3, 9, 1), np.float32)
    x[1, 7] = 1e8
    with pytest.raises(
        TrainingDivergedError, match="is h of layer0_reverse at time step 3, in sample 1 of the batch; "
    ):
        ModelSteps(model, lstm_np.SGD(model.params)).step((x, np.zeros(3, int)), 1)


def test_in_the_gradient_the_last_step_comes_first():
    """The forward pass is finite; the backward pass multiplies with 1e20 from step to step."""
    model = lstm_np.SequenceClassifier(1, 1, 2, cell="rnn", dtype="float32")
    model.params.flat[...] = 0
    model.params["layer0.U"][...] = 1e20
    model.params["readout.W"][0] = 1.0
    x = np.zeros((4, 6, 1), np.float32)
    with pytest.raises(TrainingDivergedError) as error:
        ModelSteps(model, lstm_np.SGD(model.params)).step((x, np.ones(4, int)), 1)
    assert (
        "the first value that is not finite is the gradient of h of layer0 at time step 3, in samples 0, 1, 2, 3"
        in str(error.value)
    )


def test_large_but_finite_state_is_no_divergence():
    """A product of parameters and moments may overflow where both are finite: nothing is wrong with that."""
    model, steps = made(optimizer=lambda p, lr: lstm_np.SGD(p, lr, momentum=0.9))
    model.params.like(steps.optimizer.slots["velocity"])["readout.b"][...] = 3e38
    model.params["readout.b"][...] = 3e38
    steps.step(data(), 2)


def test_the_samples_are_those_of_the_data():
    x, labels = data()
    x[5, 0, 0] = np.nan
    batches = Batches(x, labels, 5, seed=3)
    model = lstm_np.SequenceClassifier(4, 6, 3)
    with pytest.raises(TrainingDivergedError, match=r"\(sample 5, first at time step 0, feature 0, where it is nan\)"):
        train(model.training_steps(lstm_np.Adam(model.params), batches), epochs=1)
    assert 5 in batches.indices(model.position.batch)


def test_many_samples_are_not_all_named():
    assert NotFinite("in {samples}", (4,)).told() == "in sample 4 of the batch"
    assert NotFinite("in {samples}", tuple(range(11))).told(range(100, 200)) == (
        "in samples 100, 101, 102, 103, 104, 105, 106, 107 and 3 more"
    )


def test_a_gate_is_named_where_a_parameter_has_a_block_for_each():
    gates = {"layer0": ("i", "f", "o", "g")}
    for name, size, row, gate in (("layer0.U", 8, 5, "o"), ("layer0.b", 8, 7, "g"), ("readout.W", 8, 5, None)):
        array = np.zeros((size, 2) if name[-1] != "b" else size)
        array[row] = np.inf
        found = in_arrays({name: array}, "{name}", gates)
        assert (f"in gate {gate}," in found.text) == (gate is not None)
    assert in_arrays({"layer0.U": np.zeros((8, 2))}, "{name}", gates) is None


# ---- what is done about it


def batches_with_bad(bad, size=4):
    """Batches of which some are spoilt: a source that gives NaN where it is told to."""

    class Source:
        indices = Batches(*data(), size).indices

        def __len__(self):
            return 12 // size

        def epoch(self, epoch, start=0, *, step=None):
            for k in range(start, len(self)):
                x, labels = data()
                part = x[k * size : (k + 1) * size] * (np.nan if (epoch, k) in bad else 1)
                yield part, labels[k * size : (k + 1) * size]

    return Source()


def test_the_loop_leaves_a_batch_out():
    results = []
    for bad, ask in (((), False), ({(0, 1), (1, 0)}, True), ({(0, 1), (1, 0)}, False)):
        model = lstm_np.SequenceClassifier(4, 6, 3, num_layers=2, dropout=0.3)
        steps, told = model.training_steps(lstm_np.Adam(model.params), batches_with_bad(bad)), []
        left_out = {Position(0, 1, 1), Position(1, 0, 2)}
        history = train(
            steps,
            epochs=2,
            leave_out=None if ask else lambda position, left_out=left_out: position in left_out,
            on_divergence=(lambda error, told=told: told.append(str(error)) is None) if ask else None,
        )
        assert [(epoch.steps, epoch.train.count) for epoch in history] == [(2, 8), (4, 8)]
        assert model.position == Position(2, 0, 4)
        assert len(told) == (2 if ask else 0)
        results.append(model.params.flat.copy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[1], results[2])


def test_an_epoch_of_which_nothing_is_left():
    model = lstm_np.SequenceClassifier(4, 6, 3)
    steps = model.training_steps(lstm_np.Adam(model.params), batches_with_bad(()))
    history = train(steps, epochs=2, leave_out=lambda position: position.epoch == 0)
    assert [(epoch.number, epoch.steps) for epoch in history] == [(2, 3)]
