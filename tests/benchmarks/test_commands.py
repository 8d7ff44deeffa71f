"""The commands: bad input, no GPU, and a GPU part that fails."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import ceilings, costs, cpu, results
from benchmarks.gpu import checks, parts
from benchmarks.gpu.sizes import FULL, SMALL
from benchmarks.processes import ROOT, environment
from benchmarks.race import TOLERANCE, curve_gap
from benchmarks.workloads import Case, as_images, batches_of_images, make_batches
from tests.benchmarks.test_race import document
from tests.gpu.host_cupy import COMPILER, make_backend, make_cupy

SCRIPT = """
import json, sys, time
print(json.dumps({"ok": True}), flush=True)
print("noise")
exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["cpu", "--peers", "tensorrt"],
        ["cpu", "--rounds", "0"],
        ["cpu", "--cases", "B=1"],
        ["cpu", "--python-of", "jax"],
        ["cpu", "--threads", "4096"],
        ["nothing"],
        ["mnist", "--data-dir", "/nowhere/at/all"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(argv, capsys):
    try:
        status = command.main(argv)
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("benchmarks: ")
    assert captured.err.count("\n") == 1


def test_without_a_gpu_one_line_and_exit_2():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT, env=environment(1), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("benchmarks.gpu: ")
    assert done.stdout == ""


def test_processes_find_the_packages_that_this_one_finds(monkeypatch, tmp_path):
    (tmp_path / "only_here.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert environment(1)["PYTHONPATH"].split(os.pathsep) == [str(ROOT), str(tmp_path)]
    assert parts.watch_part([sys.executable, "-c", "import only_here, benchmarks"], 30)["status"] == "done"
    monkeypatch.delenv("PYTHONPATH")
    assert environment(1)["PYTHONPATH"] == str(ROOT)


@pytest.mark.parametrize(
    ("ending", "limit", "status"),
    [
        ("", 30, "done"),
        ("raise RuntimeError('illegal address')", 30, "failed"),
        ("sys.exit(1)", 30, "failed"),
        ("time.sleep(60)", 1, "out of time"),
    ],
)
def test_a_part_keeps_what_it_found_however_it_ends(ending, limit, status):
    heard = []
    part = parts.watch_part([sys.executable, "-c", SCRIPT, ending], limit, heard.append)
    assert part["status"] == status
    assert part["records"] == heard == [{"ok": True}]
    if "illegal" in ending:
        assert "illegal address" in part["error"]


def test_the_short_table_of_a_run_with_failures():
    times = {"settings": {"default": {"median": 1e-4, "best": 1e-4}}}
    theirs = {**times, "ratio": {"median": 3.0, "best": 3.0}, "better": {"median": "default", "best": "default"}}
    case = {**Case("train", 128, 128).as_dict(), "results": {"gpu-ours": times, "gpu-torch": theirs}}
    part = {"status": "done", "seconds": 1.0, "error": None}
    size = {"B": 128, "H": 128, "T": 28}
    kept = {**size, "variant": "forward", "ok": True, "lanes": 4, "kept": 6}
    document = {
        "gpu": {"name": "a GPU", "driver": "1", "cupy": "14"},
        "parts": {
            "conformance": {**part, "records": [{"ok": True}, {"ok": False}]},
            "gradients": {**part, "status": "failed", "error": "line\nillegal address", "records": []},
            "sanitizer": {**part, "records": [{"skipped": "not installed"}]},
            "launches": {
                **part,
                "sm_clock_mhz": {"median": 1980, "least": 1800, "most": 1980},
                "records": [
                    {**size, "stage": "gather", "us": 1.94, "own_products_because": "no library"},
                    {**size, "stage": "update", "us": 3.5, "no_graph_because": "refused"},
                ],
            },
            "variants": {**part, "records": [{**kept, "us": 9.0}, {**kept, "us": 7.0, "lanes": 8}]},
            "mnist": {
                **part,
                "records": [
                    {"epoch": 1, "seconds": 0.05, "test_seconds": 0.002, "data": "MNIST"},
                    {"test_accuracy": 0.98},
                ],
            },
            "race": {**part, "records": [{"case": case}, {"left_out": "x", "reason": "no time left"}]},
        },
    }
    text = "\n".join(parts.short_table(document))
    for words in (
        "1 of 2 right", "illegal address", "50.0 ms, measured in 2.00 ms, test accuracy 0.9800", "3.00 over 1 cases",
        "not installed", "gather 1.9, update 3.5", "1980 MHz", "our own kernels: no library", "no graph: refused",
        "forward H=128: planned 9.0 us, best 7.0 us (lanes 8, kept 6)",
    ):  # fmt: skip
        assert words in text


def test_the_gpu_race_covers_its_grid_and_begins_with_what_matters_most():
    cases = FULL.race + FULL.rest
    assert len(set(cases)) == len(cases)
    assert len(FULL.race) == 8
    assert {(c.B, c.H, c.T) for c in cases if c.mode == "train"} == {
        (B, H, T) for B in (1, 32, 128, 512) for H in (64, 128, 256, 512, 1024) for T in (28, 784)
    }
    assert cases[0] == Case("train", 128, 128)


@pytest.mark.skipif(COMPILER is None, reason="the kernels run on the host through a C++ compiler")
class TestOnTheHost:
    """The GPU script's own code, with the kernels executed by the CPU."""

    def backend(self, mutate=None):
        return replace(make_backend(make_cupy(mutate=mutate)), kernels=("persistent", "cuda_fused"))

    def test_conformance_and_the_device_step(self):
        backend = self.backend()
        records = list(checks.conformance(backend, SMALL))
        assert len(records) == 4
        assert all(record["ok"] for record in records), records
        (record,) = checks.device_step(backend, replace(SMALL, curves=((6, 20, 5),)))
        assert record["ok"], record
        assert record["first"] != record["last"]

    def test_a_wrong_kernel_is_reported_and_the_others_go_on(self):
        def wrong(code):
            return code.replace("= s.o * tanh_of(c_t);", "= s.o * c_t;")

        records = list(checks.conformance(self.backend(wrong), SMALL))
        assert len(records) == 4
        assert [record["ok"] for record in records] == [record["kernel"] == "persistent" for record in records]

    def test_a_shape_that_raises_does_not_hide_the_others(self):
        backend = replace(self.backend(), kernels=("unknown", "cuda_fused"))
        records = list(checks.gradients(backend, SMALL))
        assert [record["ok"] for record in records] == [False, False, True, True], records
        assert "ValueError" in records[0]["error"]

    def test_the_contestant_times_by_events(self):
        contestant = checks.DeviceStep(1, self.backend())
        contestant.do_prepare(Case("train", 2, 8, 2).as_dict())
        seconds = contestant.do_time(40)["seconds"]
        assert len(seconds) == 2  # of a pass over the device's batches, and of what is left
        assert min(seconds) > 0

    def test_mnist_on_random_images_says_so(self):
        epoch, tested = checks.mnist(self.backend(), SMALL, None)
        assert (epoch["data"], epoch["images"], epoch["test_images"]) == ("random images", 50, 8)
        assert epoch["looks"][-1] == pytest.approx(50 * epoch["loss"])
        assert tested["ok"], tested


def test_the_gpu_contestants_without_bytes_see_the_same_images():
    case = Case("train", 3, 8, 2)
    batches = make_batches(case)
    images, labels = as_images(batches)
    again = batches_of_images(case, batches)
    assert [x.shape for x, _ in again] == [(3, 2, 28)] * len(batches)
    np.testing.assert_array_equal(np.concatenate([y for _, y in again]), labels)
    np.testing.assert_array_equal(np.concatenate([np.rint(x * 255).reshape(3, -1) for x, _ in again]), images)


def test_the_gpu_peer_computes_the_same_and_is_at_its_best():
    """PyTorch's GPU contestant, run on the CPU."""
    gpu_torch = pytest.importorskip("benchmarks.gpu.torch", exc_type=ImportError)

    class OnTheCpu(gpu_torch.Eager):
        device = "cpu"

    peer, case = OnTheCpu(1), Case("train", 4, 8, 3)
    assert curve_gap(checks._curve(checks.OnImages(1), case), checks._curve(peer, case)) < TOLERANCE
    assert peer._batch()[0].is_contiguous()
    peer.do_prepare(replace(case, mode="infer").as_dict())
    assert not peer.model.training
    assert np.isfinite(peer.loss(1))


QUICK = ceilings.Effort(2, 0.0005)


def test_ceilings_and_the_lower_bound():
    bound = ceilings.measure(Case("train", 4, 8, 3), 1, QUICK)["lower_bound_seconds"]
    assert bound["total"] == bound["products"] + bound["tanh"] > 0


def test_a_lower_bound_counts_all_products_and_tanhs(monkeypatch):
    """By their multiply-adds, at a speed that is the same for all."""
    made = []

    def product(m, k, n, threads, **_):
        made.append((m, k, n))
        return {"seconds": m * k * n * 1e-12}

    monkeypatch.setattr(ceilings, "product", product)
    monkeypatch.setattr(ceilings, "tanh_seconds", lambda count, threads, effort, **_: 1e-9)
    for case in (
        Case("train", 4, 8, 3), Case("infer", 4, 8, 3), Case("train", 3, 5, 4, 2, directions=2),
        Case("infer", 3, 5, 4, 3, cell="gru"), Case("train", 2, 6, 5, cell="rnn"), Case("stream", 1, 7),
    ):  # fmt: skip
        found = ceilings.lower_bound(case, 2)
        steps = 1 if case.mode == "stream" else case.T
        gates, tanhs = {"lstm": (4, 5), "gru": (3, 3), "rnn": (1, 1)}[case.cell]
        layers, expected = case.L * case.directions, case.flops / 2
        for _ in range(layers):
            biases = 2 if case.mode == "train" else 1  # a column of the product, and of its gradient
            expected += gates * case.H * case.B * steps * biases
            if case.mode == "train":
                expected -= gates * case.H * case.B * case.H  # dh before the first step
        assert found["products"] == pytest.approx(expected * 1e-12), case
        assert found["tanh"] == pytest.approx(layers * tanhs * case.H * case.B * steps * 1e-9)
        assert found["total"] == found["products"] + found["tanh"]
    whole, some = (ceilings.lower_bound(Case("train", 4, 8, 3, lengths=lengths), 2) for lengths in (False, True))
    assert some == pytest.approx({name: seconds * 2 / 3 for name, seconds in whole.items()})  # 1, 2 or 3 of 3 steps


def test_more_samples_than_are_measured_take_proportionally_longer(monkeypatch):
    def product(m, k, n, threads, **_):
        assert max(k, n) <= ceilings.MOST
        return {"seconds": m * k * n * 1e-12}

    monkeypatch.setattr(ceilings, "product", product)
    case = Case("train", 512, 8, 16)
    per_step = 4 * 8 * (28 + 1 + 8) * 512
    expected = 16 * per_step + 15 * 8 * 32 * 512 + 16 * per_step
    assert ceilings.lower_bound(case, 2, QUICK)["products"] == pytest.approx(expected * 1e-12)


def test_every_way_of_a_product_makes_the_whole_of_it(monkeypatch):
    def seconds(call, effort):
        call()
        return 1.0

    monkeypatch.setattr(ceilings, "seconds_per_call", seconds)
    monkeypatch.setattr(
        ceilings, "on_every_core", lambda threads, make, effort: [make()() for _ in range(threads)] and 1.0
    )
    ways = ceilings.product(32, 10, 6, 2)["ways"]
    assert set(ways) == {"whole", "columns", "columns in blocks", "inner", "inner in blocks", "rows"}
    assert set(ceilings.product(32, 10, 1, 2, by_inner=False)["ways"]) == {"whole", "rows"}
    assert ceilings.product(32, 10, 7, 2)["ways"]["columns"] == pytest.approx(7 / 6)


def test_bounds_are_written_beside_the_times(tmp_path, monkeypatch, capsys):
    made = document()
    made["cases"][1]["lower_bound"] = {"total": 2e-4}
    results.write(made, tmp_path)
    bounds = {"products": 3e-4, "tanh": 1e-4, "total": 4e-4}
    monkeypatch.setattr(cpu, "bound_of", lambda case, threads, python: bounds)
    assert costs.bounds(SimpleNamespace(out=tmp_path, again=False, threads=2)) == 0
    found = [results.bound_of(record) for record in results.read("cpu", tmp_path)["cases"]]
    assert found == [4e-4, 2e-4]
    assert "400 µs of    1.00 ms: 40%" in capsys.readouterr().out
    assert costs.bounds(SimpleNamespace(out=tmp_path, again=True, threads=2)) == 0
    assert results.bound_of(results.read("cpu", tmp_path)["cases"][1]) == 4e-4
    made["machine"]["cpu"] = "another"
    results.write(made, tmp_path)
    with pytest.raises(ValueError, match="from another processor, another"):
        costs.bounds(SimpleNamespace(out=tmp_path, again=False, threads=2))


def test_the_profile_adds_up(tmp_path, capsys):
    arguments = SimpleNamespace(steps=3, threads=1, out=tmp_path)
    assert costs.profile(arguments) == 0
    epoch = results.read("profile", tmp_path)["epoch"]
    assert abs(sum(epoch["parts"].values()) - epoch["seconds"]) < 1e-9
    assert set(epoch["parts"]) == {"forward", "backward", "update", "batches", "read-out, loss, loop"}
    assert "outside forward, backward and update" in capsys.readouterr().out


def test_a_picture_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    path = costs.draw("T", {"sizes": [28, 56], "seconds": [0.01, 0.02], "exponent": 1.0}, tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_the_gpu_checks_need_is_numpy_beside_the_repository():
    """On a GPU's machine with NumPy, CuPy, PyTorch and pytest, the CPU's side of the comparisons must run too."""
    absent = ["threadpoolctl", "safetensors", "rich", "matplotlib", "sklearn", "hypothesis"]
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "from benchmarks.gpu import checks, parts\nimport lstm_np, numpy\n"
        "print(checks._curve(checks.OnImages(1), checks.Case('train', 4, 5, 3))[-1])\n"
        "print(lstm_np.SequenceClassifier(3, 5, 4).predict(numpy.zeros((2, 7, 3), 'float32')).shape)\n"
        "print(lstm_np.gradcheck(lstm_np.LSTM(2, 3), entries=2).ok)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment(1), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["(2,)", "True"]


def test_steps_beside_a_busy_program(tmp_path, monkeypatch, capsys):
    from benchmarks import busy

    monkeypatch.setattr(busy, "SLOT", 0.05)
    command_line = ["busy", "--threads", "1", "--rounds", "1", "--cases", "train,B=2,H=4,T=3", "--out", str(tmp_path)]
    assert command.main(command_line) == 0
    (record,) = results.read("busy", str(tmp_path))["cases"]
    assert record["ratio"] == record["all"]["median"] / min(record["one"]["median"], record["all"]["median"])
    assert "to the faster" in capsys.readouterr().out
