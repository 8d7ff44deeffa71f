"""The assembly of a run and its folder, below the commands."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import sys
import threading
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from lstm_np import Adam, SequenceClassifier, TrainingDivergedError, get_backend
from lstm_np.checkpoints import fingerprint
from lstm_np.extras import MissingPackageError
from lstm_np.training import Place, curves, environment, load_recipe, run, run_folder
from lstm_np.training.environment import describe_machine
from lstm_np.training.interruption import Interrupted, Interruption
from lstm_np.training.reporters import Reporter


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(curves, "draw_curves", lambda *_: b"")


@pytest.fixture
def recipe():
    return load_recipe().changed(
        {"data": {"dataset": "digits"}, "model": {"hidden_size": 8}, "train": {"epochs": 2, "batch_size": 100}}
    )


class Recorder(Reporter):
    """Remembers what it was told, and calls `on_step` at each step."""

    def __init__(self, on_step=lambda step: None):
        self.told, self.on_step = [], on_step

    def start(self, plan):
        self.told.append("start")

    def step(self, step):
        self.on_step(step)

    def measuring(self):
        self.told.append("measuring")

    def epoch(self, record):
        self.told.append(f"epoch {record.number}")

    def close(self):
        self.told.append("close")

    def result(self, outcome):
        self.told.append("result")

    def finish(self, outcome):
        self.told.append("finish")


def test_what_a_reporter_is_told(recipe):
    recorder = Recorder()
    outcome = run(recipe, Place(get_backend("numpy"), out="run"), recorder)
    assert recorder.told == ["start", "measuring", "epoch 1", "measuring", "epoch 2", "close", "result", "finish"]
    assert outcome.steps == outcome.plan.steps == 26
    assert outcome.test == outcome.epochs[-1].validation
    assert outcome.test.count == 500


def test_with_validation_the_test_images_are_looked_at_once_at_the_end(recipe, monkeypatch):
    from lstm_np.model import SequenceClassifier

    counts = []
    evaluate = SequenceClassifier.evaluate_batches

    def counting(self, batches):
        metrics = evaluate(self, batches)
        counts.append(metrics.count)
        return metrics

    monkeypatch.setattr(SequenceClassifier, "evaluate_batches", counting)
    outcome = run(recipe.changed({"data": {"validation": 150}}), Place(get_backend("numpy"), out="run"))
    assert counts == [150, 150, 500]
    assert outcome.plan.train_images == 1147
    assert outcome.best.by == "validation accuracy"


def test_a_held_signal_ends_the_run_after_its_step(recipe):
    interruption = Interruption()

    def on_step(step):
        if step.number == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with interruption:
        outcome = run(recipe, Place(get_backend("numpy"), out="run"), Recorder(on_step), interruption)
    assert outcome.interrupted == signal.SIGTERM
    assert outcome.steps == 5
    assert outcome.test is None
    assert not outcome.epochs[0].complete
    with open("run/metrics.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["steps"], row["complete"], row["test_loss"]) == ("5", "False", "")


def test_a_signal_while_the_test_images_are_looked_at(recipe):
    class Impatient(Recorder):
        def measuring(self):
            os.kill(os.getpid(), signal.SIGINT)

    with Interruption() as interruption:
        outcome = run(recipe, Place(get_backend("numpy"), out="run"), Impatient(), interruption)
    assert outcome.interrupted == signal.SIGINT
    assert outcome.steps == 13
    assert outcome.test is None
    assert (run_folder.Path("run") / "weights.safetensors").exists()


def test_the_second_signal_is_not_held():
    with Interruption() as interruption:
        with interruption.held():
            os.kill(os.getpid(), signal.SIGINT)
            assert interruption.asked()
            with pytest.raises(Interrupted) as caught:
                os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM


def test_a_signal_outside_held_is_an_interrupt_and_the_old_handlers_come_back():
    before = [signal.getsignal(number) for number in Interruption.SIGNALS]
    with pytest.raises(Interrupted) as caught, Interruption():
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.number == signal.SIGTERM
    assert [signal.getsignal(number) for number in Interruption.SIGNALS] == before


def test_a_signal_whose_exception_is_lost_is_not_lost():
    with Interruption() as interruption:
        with contextlib.suppress(BaseException):  # as some libraries do
            os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as caught, interruption.held():
            pytest.fail("entered")
        assert caught.value.number == signal.SIGTERM


def test_a_signal_in_a_callback_is_no_traceback(capsys):
    """Python ignores the exceptions of callbacks of weak references, and says so."""

    class Thing:
        pass

    before = sys.unraisablehook
    with Interruption() as interruption:
        thing = Thing()
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        del thing
        assert reference() is None
        assert interruption.requested == signal.SIGTERM
    assert sys.unraisablehook is before
    assert capsys.readouterr().err == ""


def test_interruption_does_nothing_in_another_thread():
    found = []

    def inside():
        with Interruption() as interruption:
            found.append(interruption.asked())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [False]


def test_weights_that_are_no_numbers_are_not_saved(recipe):
    """On a device the loss is seen only after the update: then the weights are gone too, and it says so."""
    pretended = replace(get_backend("numpy"), reads_are_free=False)
    model = []

    class Spoiler(Recorder):
        def model(self, made, *_):
            model.append(made)

    def on_step(step):
        if step.epoch == 1:
            model[0].params.flat[:] = np.nan

    with pytest.raises(TrainingDivergedError) as caught:
        run(recipe, Place(pretended, out="run"), Spoiler(on_step))
    assert str(caught.value) == (
        "training diverged by step 15: the mean loss of the epoch is nan, the parameters are not finite; lower the "
        "learning rate or clip gradients (clip_norm); the best weights before it are in run/best.safetensors"
    )
    assert not (run_folder.Path("run") / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(28, "No space left on device"), "run/curves.png: cannot be written (No space left on device); "),
        (MissingPackageError("curves need matplotlib, which is not installed: pip"), "curves need matplotlib, which"),
        (RuntimeError("no\nfont"), "they could not be drawn (RuntimeError: no font)"),
        (MemoryError(), "they could not be drawn (MemoryError: )"),
    ],
)
def test_a_picture_that_fails_loses_nothing(recipe, monkeypatch, fault, reason):
    """The result is told before anything is drawn, and whatever fails then is a reason and no error."""
    recorder = Recorder()

    def fail(*_):
        recorder.told.append("drawing")
        raise fault

    if isinstance(fault, OSError) and not isinstance(fault, MissingPackageError):
        write = run_folder.write_atomically
        monkeypatch.setattr(
            run_folder, "write_atomically", lambda p, content: fail() if p.suffix == ".png" else write(p, content)
        )
    else:
        monkeypatch.setattr(curves, "draw_curves", fail)
    outcome = run(recipe, Place(get_backend("numpy"), out="run"), recorder)
    assert recorder.told[-3:] == ["result", "drawing", "finish"]
    assert outcome.no_curves.startswith(reason)
    assert outcome.test.count == 500
    assert SequenceClassifier.load("run/weights.safetensors").notes["epoch"] == 2


def test_the_cut_of_batches_is_in_the_configuration_and_needs_no_worker_processes(recipe):
    recipe = recipe.changed({"model": {"hidden_size": 64, "bidirectional": True}, "train": {"max_steps": 3}})
    backend = get_backend("numpy", threads=2)
    models = []

    class Keeping(Recorder):
        def model(self, made, *_):
            models.append(made)

    for name, each in (("several", backend), ("one", replace(backend, processes=1))):
        run(recipe, Place(each, out=name), Keeping())
    several, one = (json.loads((run_folder.Path(name) / "config.json").read_text()) for name in ("several", "one"))
    assert several["cut"] == one["cut"]
    assert [entry["batch"] for entry in one["cut"]["training"]] == [100, 97]
    assert [entry["batch"] for entry in one["cut"]["measuring"]] == [500]
    whole, last = (entry["layers"] for entry in one["cut"]["training"])
    assert list(whole) == ["layer0", "layer0_reverse"]
    assert whole["layer0"] == {"samples": [50, 50], "blas_threads": 1}
    assert last["layer0"] == {"samples": [48, 49], "blas_threads": 1}
    assert np.array_equal(models[0].params.flat, models[1].params.flat)


def test_numbered_folders(recipe):
    made = [run_folder.create(None, "name") for _ in range(3)]
    assert [str(folder) for folder in made] == ["runs/name-001", "runs/name-002", "runs/name-003"]


def test_metrics_lines_are_on_disk_when_they_are_written():
    folder = run_folder.create("run", "name")
    for epoch in (1, 2):
        folder.append_metrics({"epoch": epoch, "loss": None}, {"more": [epoch]})
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1]) == {"epoch": epoch, "loss": None, "more": [epoch]}
    assert (folder / "metrics.csv").read_text() == "epoch,loss\n1,\n2,\n"


def test_a_fingerprint_is_of_the_content():
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert fingerprint([array]) == fingerprint([np.asfortranarray(array)])
    others = [array.T, array.reshape(4, 3), array + 1, array.astype(np.int64)]
    assert len({fingerprint([other]) for other in [array, *others]}) == 5


def test_the_machine_is_described_in_plain_values():
    described = describe_machine()
    assert json.loads(json.dumps(described)) == described
    assert described["packages"]["numpy"] == np.__version__


def test_what_does_not_fit_is_refused(recipe, monkeypatch):
    monkeypatch.setattr(environment, "available_memory", lambda: 2**30)
    environment.refuse_oversize_model(recipe.changed({"model": {"hidden_size": 512, "num_layers": 3}}).model, 1, 10)
    with pytest.raises(
        ValueError, match=r"^4,[\d,]+ parameters need about [\d,.]+ GiB, what is free here is 1.0 GiB; low"
    ):
        environment.refuse_oversize_model(recipe.changed({"model": {"hidden_size": 10**6}}).model, 28, 10)
    model = SequenceClassifier(1, 512, 10, num_layers=3, initializer="torch")  # which is drawn fast
    environment.refuse_oversize_training(model, 28, 128)
    words = (
        r"^5,\d+,\d+ parameters and batches of 128 sequences need about \d\.\d GiB, what is free here is 1.0 GiB; lower"
    )
    with pytest.raises(ValueError, match=words):
        environment.refuse_oversize_training(model, 784, 128)


MEMORY_CASES = {
    "columns": {"hidden_size": 128, "batch_size": 96},
    "float64": {"hidden_size": 64, "batch_size": 96, "dtype": "float64"},
    "lean": {"hidden_size": 128, "batch_size": 96, "kernel": "lean"},
    "rows": {"hidden_size": 128, "batch_size": 16},
    "one sample": {"hidden_size": 256, "batch_size": 1},
    "three layers, both directions, dropout": {
        "hidden_size": 64, "batch_size": 64, "num_layers": 3, "bidirectional": True, "dropout": 0.3,
    },
    "reference": {"hidden_size": 64, "batch_size": 64, "kernel": "reference"},
    "reference, two layers": {"hidden_size": 64, "batch_size": 64, "kernel": "reference", "num_layers": 2},
    "gru": {"hidden_size": 64, "batch_size": 64, "cell": "gru"},
    "wide": {"hidden_size": 512, "batch_size": 8},
}  # fmt: skip


@pytest.mark.parametrize("case", MEMORY_CASES)
def test_the_estimate_is_what_a_training_step_takes(case):
    """In one process, where all that is allocated can be seen."""
    settings, T, D = dict(MEMORY_CASES[case]), 40, 28
    B = settings.pop("batch_size")
    model = SequenceClassifier(D, num_classes=10, backend=get_backend("numpy", threads=1), **settings)
    rng = np.random.default_rng(0)
    batch = rng.random((B, T, D), np.float32), rng.integers(0, 10, B)
    tracemalloc.start()
    try:
        step = model.training_steps(Adam(model.params)).step
        for number in (1, 2):
            step(batch, number)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.85 * peak < environment.memory_of_training(model, T, B) < 1.5 * peak


def test_the_parts_of_workers_count_as_well():
    sizes = {"num_classes": 10, "hidden_size": 128}
    alone, shared = (
        SequenceClassifier(28, backend=get_backend("numpy", threads=threads), **sizes) for threads in (1, 4)
    )
    more = environment.memory_of_training(shared, 28, 256) - environment.memory_of_training(alone, 28, 256)
    assert more > 3 * environment.PROCESS + 3 * 4 * 4 * 128 * (28 + 128)  # a process and its copy of the weights each
    many = SequenceClassifier(28, backend=get_backend("numpy", threads=1000), **sizes)
    more = environment.memory_of_training(many, 28, 32) - environment.memory_of_training(alone, 28, 32)
    assert 3 * environment.PROCESS < more < 4 * environment.PROCESS  # no more than there can be parts


def test_many_layers_are_refused_before_the_machine_has_no_memory_left(recipe, monkeypatch):
    """Buffers of every layer count, not the activations alone."""
    model = {"hidden_size": 128, "num_layers": 60, "initializer": "torch"}  # which is drawn fast
    recipe = recipe.changed({"model": model, "train": {"batch_size": 128}})
    activations = 4 * 60 * 128 * 8 * 128 * 6  # bytes: the four gates and both states of 8 steps
    monkeypatch.setattr(environment, "available_memory", lambda: 3 * activations)
    with pytest.raises(ValueError, match="parameters and batches of 128 sequences need about"):
        run(recipe, Place(get_backend("numpy", threads=1), out="run"))
    assert not run_folder.Path("run").exists()


@pytest.mark.parametrize(("batch_size", "stretches"), [(128, 10), (100, 12), (32, 13), (1300, 1)])
def test_a_short_last_batch_is_no_stretch_of_the_curve_by_itself(recipe, batch_size, stretches):
    steps = []
    recorder = Recorder(lambda step: steps.append((float(step.loss), step.samples)))
    recipe = recipe.changed({"train": {"epochs": 1, "batch_size": batch_size}})
    run(recipe, Place(get_backend("numpy"), out="r"), recorder)
    with open("r/metrics.jsonl") as file:
        losses = json.loads(file.read())["train_losses"]
    each = -(-len(steps) // 20)
    assert len(losses) == stretches
    starts = [each * k for k in range(stretches)] + [len(steps)]
    for k, loss in enumerate(losses):
        values, samples = np.transpose(steps[starts[k] : starts[k + 1]])
        assert loss == pytest.approx(values @ samples / samples.sum(), rel=1e-5)
        assert samples.sum() >= min(each * batch_size, 1297)
