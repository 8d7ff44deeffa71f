"""python -m lstm_np.text: train and sample, resuming to the bit, and what is refused in a line."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import lstm_np
from lstm_np import get_backend
from lstm_np.checkpoints import Every
from lstm_np.text import Vocabulary, bits, example, vocabulary_of
from lstm_np.text import __main__ as command
from lstm_np.text.records import Source
from lstm_np.text.reporter import Reporter
from lstm_np.text.run import cut, run, stopped_run
from lstm_np.text.settings import FREE, defaults
from lstm_np.training import Place
from lstm_np.training.interruption import Interruption
from lstm_np.training.resuming import changed_settings
from tests.training.stopped import kept, spoilt_batches

SMALL = ("--hidden-size", 6, "--batch-size", 4, "--sequence-length", 10, "--epochs", 2, "--sample-length", 30,
         "--threads", 1)  # fmt: skip
CHANGES = {
    "text": {"sequence_length": 10, "sample_length": 20, "validation": 0.2},
    "model": {"hidden_size": 6, "dropout": 0.2, "dropout_outputs": "all"},
    "train": {"epochs": 3, "batch_size": 4, "schedule": "plateau", "plateau_patience": 0, "plateau_threshold": 0.9},
}


@pytest.fixture
def text():
    """A file with 700 characters of the example."""
    path = Path("programs.txt")
    path.write_text(example(700))
    return path


# ---- a run, and what it leaves


def test_a_run_and_its_samples(invoke, text):
    result = invoke("text", "train", text, *SMALL, "--out", "run")
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    vocabulary = len(set(text.read_text()))
    assert lines[0] == f"text    {text.absolute()}: 700 characters, {vocabulary} different"
    assert "        628 to learn from, 4 streams side by side, 69 held out for validation" in lines
    assert "train   2 epochs of 16 steps, each of 10 characters" in lines
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        assert row["train_bits_per_character"] == bits(row["train_loss"])
        assert row["validation_perplexity"] == pytest.approx(2 ** row["validation_bits_per_character"])
        assert len(row["sample"]) == 30
        assert f"      | {row['sample'].splitlines()[0]}".rstrip() in [line.rstrip() for line in lines]
    files = {path.name for path in Path("run").iterdir()}
    assert files >= {"config.json", "metrics.csv", "weights.safetensors", "best.safetensors", "initial.safetensors"}
    model = lstm_np.load("run/weights.safetensors")
    assert vocabulary_of(model).characters == tuple(sorted(set(text.read_text())))
    assert model.notes["text"] == {"source": "programs.txt", "begins": text.read_text()[0]}
    assert lines[-1] == "next    python -m lstm_np.text sample run --length 1000"


def test_sample(invoke, text):
    assert invoke("text", "train", text, *SMALL, "--out", "runs/a", "--quiet").out == ""
    newest = invoke("text", "sample", "--length", 40)
    assert (newest.status, newest.err) == (0, "")
    assert len(newest.out) == 41
    assert invoke("text", "sample", "runs/a", "--length", 40) == newest
    assert invoke("text", "sample", "runs/a", "--length", 40, "--seed", 1).out != newest.out
    prompted = invoke("text", "sample", "runs/a", "--prompt", "begin ", "--length", 10, "--temperature", 0.5)
    assert prompted.out.startswith("begin ")
    assert len(prompted.out) == 17
    found = json.loads(invoke("text", "sample", "runs/a/best.safetensors", "--length", 5, "--json").out)
    assert set(found) == {"prompt", "text", "weights"}
    assert len(found["text"]) == 5
    surest = {invoke("text", "sample", "runs/a", "--top-k", 1, "--seed", seed, "--best").out for seed in (1, 2)}
    assert len(surest) == 1


def test_the_example_json_and_no_validation(invoke):
    result = invoke("text", "train", "--example", "--max-steps", 2, "--hidden-size", 4, "--threads", 1, "--json",
                    "--validation", 0, "--sample-length", 0, "--sample-every", 1)  # fmt: skip
    assert result.status == 0
    found = json.loads(result.out)
    assert (found["steps"], found["run_dir"], found["validation_loss"]) == (2, "runs/text-001", None)
    assert found["train_bits_per_character"] == bits(found["train_loss"])
    assert "text    the example: 200,000 characters" in result.err


def test_samples_while_it_trains(invoke, text):
    result = invoke("text", "train", text, *SMALL, "--sample-every", 8, "--sample-length", 3, "--temperature", 0.1)
    shown = [line for line in result.out.splitlines() if line.startswith("      | ")]
    assert len(shown) >= 6  # after steps 8, 16, 24, 32 and two epochs


# ---- stopped, and gone on with


class Stopping(Reporter):
    """Asks the run to stop, as a signal does: after a step, or where what is held out is measured (from 1)."""

    def __init__(self, interruption, step=None, measuring=None):
        self.interruption, self.at, self.measured, self.notes = interruption, (step, measuring), 0, []

    def note(self, text):
        self.notes.append(text)

    def step(self, step):
        if step.number == self.at[0]:
            self.interruption.requested = 15

    def measuring(self):
        self.measured += 1
        if self.measured == self.at[1]:
            self.interruption.requested = 15


def begin(text, out, changes=CHANGES, on_divergence="raise", notes=None, **stop):
    interruption = Interruption()
    place, settings = Place(get_backend("numpy", threads=1), out=out), defaults().changed(changes)
    reporter = Stopping(interruption, **stop)
    outcome = run(settings, Source.read(text), place, reporter, interruption, every=Every.parse("7"), keep=3,
                  on_divergence=on_divergence)  # fmt: skip
    if notes is not None:
        notes += reporter.notes
    return outcome


def go_on(out, changes=None, **stop):
    interruption = Interruption()
    reporter = Stopping(interruption, **stop)
    with stopped_run(out, reporter.note) as stopped:
        per_epoch = stopped.config["steps_per_epoch"]
        settings = changed_settings(
            stopped.settings, stopped.checkpoint.position, per_epoch, changes or {}, lambda table, name: name, FREE
        )
        place, source = Place(get_backend("numpy", threads=1)), Source.of_a_run(stopped.source, None)
        outcome = run(settings, source, place, reporter, interruption, every=stopped.every, keep=3,
                      on_divergence=stopped.on_divergence, stopped=stopped)  # fmt: skip
    return outcome, [note for note in reporter.notes if "learning rate falls" not in note]


@pytest.fixture
def whole(text):
    assert begin(text, "whole").interrupted is None
    return kept(Path("whole"))


def test_batches_that_diverge_are_left_out(text, monkeypatch):
    """By skipping and by going back, with the same bits, also of a run that is stopped in between."""
    spoilt_batches(monkeypatch).update({(0, 3), (1, 0), (2, 5)})
    notes = []
    outcome = begin(text, "skipped", on_divergence="skip", notes=notes)
    assert [record.steps for record in outcome.epochs] == [13, 26, 39]
    assert notes[0].startswith("text train: training diverged at step 4: ")
    assert notes[0].endswith("; batch 3 of epoch 1 is left out (1 in a row)")
    notes.clear()
    begin(text, "back", on_divergence="rollback", notes=notes)
    assert [line.partition("; back at step ")[2] for line in notes if "; back at step " in line] == [
        "0, batch 3 of epoch 1 left out (1 of 3 times)",
        "7, batch 0 of epoch 2 left out (2 of 3 times)",
        "28, batch 5 of epoch 3 left out (3 of 3 times)",
    ]
    expected = kept(Path("skipped"))
    assert kept(Path("back")) == expected
    for policy in ("skip", "rollback"):
        begin(text, policy, on_divergence=policy, step=16)
        go_on(policy)
        assert kept(Path(policy)) == expected


def test_the_policy_of_divergence_is_a_flag_and_kept(invoke, text, monkeypatch):
    spoilt_batches(monkeypatch).update({(0, 3)})
    raised = invoke("text", "train", text, *SMALL, "--quiet", "--out", "raised")
    assert raised.status == 1
    assert raised.err.endswith("; the weights before it are in raised/weights.safetensors\n")
    skipped = invoke("text", "train", text, *SMALL, "--on-divergence", "skip", "--max-steps", 2, "--out", "run")
    assert (skipped.status, skipped.err) == (0, "")
    again = invoke("text", "train", "--resume", "run", "--max-steps", "none", "--quiet")
    assert again.status == 0
    assert again.err.endswith("; batch 3 of epoch 1 is left out (1 in a row)\n")


@pytest.mark.parametrize("stop", [{"step": 1}, {"step": 5}, {"step": 14}, {"step": 20}, {"measuring": 1}])
def test_a_run_that_was_stopped_ends_with_the_same_bits(text, whole, stop):
    """Within an epoch, at its last step, and where it is measured; dropout, a plateau and the carried state go on."""
    assert begin(text, "run", **stop).interrupted == 15
    assert kept(Path("run")) != whole
    outcome, notes = go_on("run")
    assert (outcome.interrupted, notes) == (None, [])
    assert kept(Path("run")) == whole


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint_and_longer(text, whole):
    begin(text, "run", step=10)
    newest = max(Path("run/checkpoints").glob("step-*"))
    newest.unlink()  # as if it had not been written
    go_on("run", step=33)
    outcome, _ = go_on("run")
    assert kept(Path("run")) == whole
    assert outcome.sample == go_on("run")[0].sample  # nothing is left to do
    longer, _ = go_on("run", {"train": {"epochs": 4}})
    assert [record.number for record in longer.epochs] == [1, 2, 3, 4]


def test_the_best_epoch_stays_the_best(text):
    """Where no epoch is better than the first, which nothing is learnt in: also of a run that goes on."""
    still = {**CHANGES, "optimizer": {"learning_rate": 1e-30}, "train": {"epochs": 3, "batch_size": 4}}
    assert begin(text, "run", still, step=20).best.epoch == 1
    best = Path("run/best.safetensors").read_bytes()
    assert go_on("run")[0].best.epoch == 1
    assert Path("run/best.safetensors").read_bytes() == best


def test_the_end_of_the_text_is_held_out(text):
    content, settings = text.read_text(), defaults().changed(CHANGES)
    vocabulary = Vocabulary.of(content)
    train, held_out = cut(Source.read(text), vocabulary, settings)
    for batches, part in ((train, content[:560]), (held_out, content[560:])):
        streams = np.concatenate([x.argmax(axis=2) for x, _ in batches.epoch(0)], axis=1)
        B, L = streams.shape
        assert [vocabulary.decode(stream) for stream in streams] == [part[k * L : (k + 1) * L] for k in range(B)]
        assert len(part) - B <= B * L < len(part)
    assert cut(Source.read(text), vocabulary, settings.changed({"text": {"validation": 0.0}}))[1] is None


def test_ctrl_c(invoke, text, monkeypatch):
    assert invoke("text", "train", text, *SMALL, "--out", "whole").status == 0
    made = command.LineReporter.step

    def step(self, one):
        made(self, one)
        if one.number == 9:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command.LineReporter, "step", step)
    result = invoke("text", "train", text, *SMALL, "--out", "run")
    assert result.status == 130
    line = "python -m lstm_np.text train --resume run"
    assert result.err == f"text: interrupted after 9 steps; to go on from there:\n{line}\n"
    monkeypatch.setattr(command.LineReporter, "step", made)
    again = invoke("text", *line.split()[3:])
    assert (again.status, again.err) == (0, "")
    assert "run     run, from step 9 on" in again.out.splitlines()
    assert kept(Path("run")) == kept(Path("whole"))


def test_what_a_run_that_goes_on_refuses(invoke, text):
    begin(text, "run", step=17)

    def refused(line, *flags):
        assert invoke("text", "train", *flags) == (2, "", f"text: {line}\n")

    refused(
        "--hidden-size 8: this run has 6, and would have learnt something else with it; leave it out, or train a new "
        "run",
        "--resume", "run", "--hidden-size", 8,
    )  # fmt: skip
    refused(
        "--sequence-length 9: this run has 10, and would have learnt something else with it; leave it out, or train a "
        "new run",
        "--resume", "run", "--sequence-length", 9,
    )  # fmt: skip
    refused("--out other: the run goes on in its own folder, run; leave it out", "--resume", "run", "--out", "other")
    text.write_text(example(701))
    refused(
        f"{text.absolute()}: not the text that this run has learnt from, which had 700 characters; name its file "
        "before --resume",
        "--resume", "run",
    )  # fmt: skip
    text.unlink()
    refused(f"{text.absolute()}: No such file or directory", "--resume", "run")
    Path("moved.txt").write_text(example(700))
    assert invoke("text", "train", "moved.txt", "--resume", "run", "--quiet").status == 0
    other = invoke("train", "--resume", "run")
    assert (other.status, other.out) == (2, "")
    assert other.err.startswith("train: run: its checkpoints are not those of a run of train (")


def test_a_text_from_standard_input(invoke, text, monkeypatch):
    content = text.read_bytes()

    def given(what):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(what)))

    assert invoke("text", "train", text, *SMALL, "--quiet", "--out", "whole").status == 0
    given(content)
    result = invoke("text", "train", "-", *SMALL, "--max-steps", 5, "--out", "run")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("text    standard input: 700 characters, ")
    result = invoke("text", "train", "--resume", "run")
    assert (result.status, result.err) == (2, "text: this run has read its text from standard input; give it the same "
                                              "again, train - --resume RUN, or name a file that holds it before "
                                              "--resume\n")  # fmt: skip
    given(content)
    assert invoke("text", "train", "-", "--resume", "run", "--max-steps", 9, "--quiet").status == 0
    assert invoke("text", "train", text, "--resume", "run", "--max-steps", "none", "--quiet").status == 0
    assert kept(Path("run"))["metrics.csv"] == kept(Path("whole"))["metrics.csv"]
    for what, line in ((b"", "is empty; give it a text to learn from"),
                       (b"caf\xe9", "not UTF-8: byte 0xE9 at offset 3 (line 1) belongs to no character; convert it, or "
                        "name another file")):  # fmt: skip
        given(what)
        assert invoke("text", "train", "-") == (2, "", f"text: standard input: {line}\n")
    monkeypatch.setattr("sys.stdin", None)
    assert invoke("text", "train", "-") == (2, "", "text: standard input: is closed; name a file\n")


# ---- what is refused


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("train",), "name the text to learn from: train FILE; --example takes a generated one"),
        (("train", "none.txt"), "none.txt: No such file or directory"),
        (("train", "."), ".: Is a directory"),
        (("train", "empty"), "empty: the file is empty; name a text to learn from"),
        (("train", "latin"), "latin: not UTF-8: byte 0xE9 at offset 3 (line 1) belongs to no character; convert it, or "
         "name another file"),
        (("train", "same"), "a vocabulary needs at least two different characters, found 'a'"),
        (("train", "short"), "{here}/short: 9 characters to learn from are too few for 32 streams of 64 characters per "
         "step, which need 2,049; lower --batch-size or --sequence-length, or take a longer text"),
        (("train", "short", "--batch-size", 1, "--sequence-length", 2, "--validation", 0.05),
         "{here}/short: --validation 0.05 of 10 characters leaves too few to measure on; raise it, or hold out nothing "
         "with --validation 0"),
        (("train", "short", "--example"),
         "--example takes the place of FILE, and of no run that goes on; leave one of them out"),
        (("train", "short", "--length", 5), "--length is a flag of sample; leave it out"),
        (("train", "short", "--best"), "--best is a flag of sample; leave it out"),
        (("train", "short", "--hidden-size", 0), "--hidden-size must be at least 1, found 0"),
        (("train", "short", "--validation", 1), "--validation must be at least 0 and below 1, found 1.0"),
        (("train", "short", "--keep-checkpoints", 0), "--keep-checkpoints must be at least 1, found 0"),
        (("train", "--resume"), "no run with checkpoints under runs/; name the folder of one: --resume RUN"),
        (("sample",), "no run with a weights.safetensors under runs/; train one, or name a run folder or weights file"),
        (("sample", "none"), "none: no such run folder or weights file"),
        (("sample", "--epochs", 3), "--epochs is a flag of train; leave it out"),
        (("sample", "--on-divergence", "skip"), "--on-divergence is a flag of train; leave it out"),
        (("sample", "--example"), "--example is a flag of train; leave it out"),
        (("sample", "--length", 0), "--length must be at least 1, found 0"),
        (("sample", "--temperature", -1), "--temperature must be at least 0, found -1.0"),
        (("sample", "digits.safetensors"), "digits.safetensors: no character model (it has no vocabulary); expected "
         "one that python -m lstm_np.text train wrote"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(invoke, arguments, line):
    Path("empty").touch()
    Path("latin").write_bytes("caf\xe9".encode("latin-1"))
    Path("same").write_text("aaaa" * 1000)
    Path("short").write_text("abcdefghij")
    lstm_np.SequenceClassifier(3, 4, 2).save("digits.safetensors")
    result = invoke("text", *arguments)
    assert result == (2, "", f"text: {line.replace('{here}', os.getcwd())}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("arguments", [(), ("write",), ("train", "--hidden", 5), ("sample", "--length", "x")])
def test_flags_that_cannot_be_parsed(invoke, arguments):
    result = invoke("text", *arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("text: ")
    assert result.err.endswith("(--help lists the flags)\n")
    assert result.err.count("\n") == 1


def test_characters_of_a_prompt_that_the_model_does_not_know(invoke, text):
    assert invoke("text", "train", text, *SMALL, "--quiet", "--out", "run").status == 0
    result = invoke("text", "sample", "run", "--prompt", "begin é")
    size = len(set(text.read_text()))
    line = f"text: the vocabulary of {size} characters lacks 'é' (U+00E9) at position 7; leave them out\n"
    assert result == (2, "", line)


def test_training_that_diverges(invoke, text):
    result = invoke("text", "train", text, *SMALL, "--learning-rate", 1e38, "--clip-norm", "none", "--optimizer", "sgd")
    assert result.status == 1
    assert "training diverged at step" in result.err
    assert result.err.rstrip().endswith("the weights before it are in runs/text-001/weights.safetensors")
    assert result.err.count("\n") == 1
