"""A kernel that takes sequences of unequal length agrees with the reference kernel, and reads nothing behind an end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.backends import get_backend
from lstm_np.cells import BUILT_IN, get_cell
from lstm_np.kernels import LayerSpec, kernel_class
from lstm_np.kernels.cpu import workspace
from lstm_np.kernels.cpu.part import Inputs, Outputs
from lstm_np.kernels.cpu.ragged import RaggedPart
from lstm_np.kernels.protocol import Cut
from lstm_np.kernels.reference import ReferenceKernel
from lstm_np.packing import Packing
from tests.kernels.test_conformance import TOLERANCE, check_agreement, make_params, sizes_of_terms

HOST = get_backend("numpy", threads=1)
SPECS = {cell: LayerSpec(get_cell(cell), 3, 4, True, "float64") for cell in BUILT_IN}
CELLS = [cell for cell, spec in SPECS.items() if kernel_class("fused").supports(spec, HOST)]


def drawn(cell, dtype, ask, behind=0.0):
    """(params, x, state, dy, dstate, packing), all packed already; `behind`: what x and dy have behind the ends."""
    rng = np.random.default_rng(ask["seed"])
    D, H, T, B = (ask[letter] for letter in "DHTB")
    lengths = rng.integers(0, T + 1, B) if ask["zeros"] else rng.integers(1, T + 1, B)
    lengths[rng.integers(B)] = rng.integers(0, T)  # not all are T
    packing = Packing.of(np.sort(lengths)[::-1].copy(), B, T, HOST)
    params = make_params(rng, cell, D, H, ask["bias"])
    draw = lambda *shape: rng.normal(size=shape)  # noqa: E731
    x, dy = draw(D, T, B), draw(H, T, B) if ask["dy"] else None
    state = tuple(draw(H, B) for _ in cell.state)
    dstate = tuple(draw(H, B) if wanted else None for wanted, _ in zip(ask["dstate"], cell.state, strict=False))
    real = packing.real[None]
    x, dy = np.where(real, x, behind), None if dy is None else np.where(real, dy, behind)
    cast = lambda value: None if value is None else np.asarray(value, dtype)  # noqa: E731
    params = {name: cast(value) for name, value in params.items()}
    return params, cast(x), tuple(map(cast, state)), cast(dy), tuple(map(cast, dstate)), packing


def alone(given, n):
    """One of the samples that `drawn` gave."""
    params, x, state, dy, dstate, packing = given
    only = lambda array: None if array is None else array[..., n : n + 1]  # noqa: E731
    own = Packing.of(packing.lengths[n : n + 1], 1, packing.T, HOST)
    return params, only(x), tuple(map(only, state)), only(dy), tuple(map(only, dstate)), own


def results(kernel, given, ask):
    params, x, state, dy, dstate, packing = given
    y, final, saved = kernel.forward(params, x, state, sequence=ask["sequence"], packing=packing)
    flags = {"input_gradient": ask["input_gradient"], "state_gradient": ask["state_gradient"]}
    dx, dstate_0, grads = kernel.backward(params, saved, dy, dstate, **flags)
    y_alone, final_alone, nothing = kernel.forward(
        params, x, state, sequence=ask["sequence"], save=False, packing=packing
    )
    assert nothing is None
    found = {"y": y, "y without saving": y_alone, "dx": dx, **{f"d{name}": grads[name] for name in params}}
    for k in range(len(state)):
        found |= {f"final {k}": final[k], f"final {k} without saving": final_alone[k]}
        found[f"dstate_0 {k}"] = None if dstate_0 is None else dstate_0[k]
    return found


requests = st.fixed_dictionaries(
    {
        "D": st.integers(1, 9),
        "H": st.one_of(st.integers(1, 9), st.sampled_from([16, 33, 70])),
        "T": st.one_of(st.integers(1, 9), st.sampled_from([20, 41])),
        "B": st.one_of(st.integers(1, 9), st.sampled_from([16, 50, 131, 300])),
        "bias": st.booleans(),
        "zeros": st.booleans(),
        "dy": st.booleans(),
        "dstate": st.lists(st.booleans(), min_size=2, max_size=2),
        "sequence": st.booleans(),
        "input_gradient": st.booleans(),
        "state_gradient": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)
WHOLE = {"D": 5, "bias": True, "zeros": True, "dy": True, "dstate": [True, True], "sequence": True,
         "input_gradient": True, "state_gradient": True, "seed": 1}  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cell", CELLS)
class TestAgreesWithTheReference:
    def check(self, cell, dtype, ask, backend=HOST):
        cell = get_cell(cell)
        spec = LayerSpec(cell, ask["D"], ask["H"], ask["bias"], "float64")
        reference, given = ReferenceKernel(spec, HOST), drawn(cell, "float64", ask)
        expected = results(reference, given, ask)
        sizes = sizes_of_terms(expected, given[0], lambda n: results(reference, alone(given, n), ask), ask["B"])
        spec = LayerSpec(cell, ask["D"], ask["H"], ask["bias"], dtype)
        kernel = kernel_class("fused")(spec, backend)
        for _ in range(2):  # in buffers that were used before
            found = results(kernel, drawn(cell, dtype, ask), ask)
            for name, array in expected.items():
                if array is None:
                    assert found[name] is None
                    continue
                assert found[name].dtype == dtype
                check_agreement(name, found[name], array, dtype, sizes)

    @settings(deadline=None, max_examples=25)
    @given(ask=requests)
    def test_on_drawn_requests(self, cell, dtype, ask):
        if (cell, dtype) != ("rnn_relu", "float32"):  # at its kink rounding decides about a gradient
            self.check(cell, dtype, ask)

    @pytest.mark.parametrize(("H", "T", "B"), [(64, 50, 128), (64, 20, 150), (24, 33, 12), (20, 30, 1), (40, 12, 513)])
    def test_on_sizes_of_real_use(self, cell, dtype, H, T, B):
        if (cell, dtype) != ("rnn_relu", "float32"):
            self.check(cell, dtype, {**WHOLE, "H": H, "T": T, "B": B})

    @pytest.mark.parametrize("behind", [np.nan, 1e30])
    def test_what_lies_behind_the_ends_changes_no_bit(self, cell, dtype, behind):
        for H, T, B in ((64, 50, 128), (24, 33, 12), (20, 30, 1)):
            ask = {**WHOLE, "H": H, "T": T, "B": B}
            kernel = kernel_class("fused")(LayerSpec(get_cell(cell), 5, H, True, dtype), HOST)
            expected = results(kernel, drawn(get_cell(cell), dtype, ask), ask)
            found = results(kernel, drawn(get_cell(cell), dtype, ask, behind), ask)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("H", "B"), [(128, 64), (128, 20)])
def test_parts_in_other_processes_have_the_same_bits(cell, H, B):
    ask = {**WHOLE, "H": H, "T": 60, "B": B}
    spec = LayerSpec(get_cell(cell), 5, H, True, "float32")
    given = drawn(get_cell(cell), "float32", ask)
    two = get_backend("numpy", threads=2)
    assert len(kernel_class("fused")(spec, two).cut(60, B).parts) == 2
    alone = results(kernel_class("fused")(spec, two.__class__(**{**vars(two), "processes": 1})), given, ask)
    kernel = kernel_class("fused")(spec, two)
    for _ in range(3):
        for name, array in results(kernel, given, ask).items():
            np.testing.assert_array_equal(array, alone[name], err_msg=name)


def test_after_a_pass_that_was_not_finite_buffers_are_as_good_as_new():
    ask = {**WHOLE, "H": 16, "T": 30, "B": 40}
    cell = get_cell("lstm")
    kernel, fresh = (kernel_class("fused")(LayerSpec(cell, 5, 16, True, "float64"), HOST) for _ in range(2))
    given = drawn(cell, "float64", ask)
    with np.errstate(all="ignore"):
        results(kernel, (given[0], np.full_like(given[1], np.nan), *given[2:]), ask)
    for name, array in results(fresh, given, ask).items():
        np.testing.assert_array_equal(results(kernel, given, ask)[name], array)


def test_the_work_and_the_memory_follow_the_lengths():
    """Of lengths drawn uniformly about half of the columns are computed, whatever was computed before."""
    spec = LayerSpec(get_cell("lstm"), 8, 16, True, "float32")
    (job,) = workspace.jobs_of(spec, 128, Cut(((0, 64),), 1), "all", ragged=True)
    part = RaggedPart(job)
    rng = np.random.default_rng(0)
    for seed in range(8):
        lengths = np.sort(rng.integers(1, 129, 64))[::-1]
        x, state = rng.random((8, 128, 64)), (np.zeros((16, 64)), np.zeros((16, 64)))
        params = {"W": rng.random((64, 8)), "U": rng.random((64, 16)), "b": rng.random(64)}
        params = {name: value.astype("float32") for name, value in params.items()}
        part.forward(params, Inputs(x, state, lengths.astype("float32")), Outputs(None, state))
        (chain,) = part._chains
        computed = sum((segment.stop - segment.start) * segment.room.strip.b for segment in chain)
        assert computed < 1.2 * lengths.sum(), seed
        assert part.nbytes < 1.4 * lengths.sum() * (7 * 16 + 32) * 4
        for segment in chain:
            assert np.shares_memory(segment.room.kept.array, part._kept)
            assert np.shares_memory(part._by_width[segment.room.strip.b].scratch.das, part._scratch)
    assert part._kept.nbytes < 1.4 * 128 * 64 * (7 * 16 + 32) * 4


def test_rows_in_strips_of_many_samples():
    """Whose widths share memory: a state that is carried from one to the next must not be overwritten."""
    for cell in CELLS:
        for H, sizes in ((128, [43, 44, 44]), (64, [65, 66])):
            spec = LayerSpec(get_cell(cell), 5, H, True, "float64")
            (job,) = workspace.jobs_of(spec, 30, Cut(((0, 131),), 1), "all", ragged=True)
            assert job.layout == "rows"
            assert [span.stop - span.start for span in RaggedPart(job).spans] == sizes


@pytest.mark.parametrize("cut", [Cut(((0, 3), (3, 7)), 1), Cut(((0, 1), (1, 3), (3, 4), (4, 6)), 1), Cut(((0, 5),), 2)])
def test_columns_are_dealt_out_in_turn(cut):
    found, B = workspace.dealt(cut), cut.parts[-1][1]
    columns = workspace.columns_of(found, True)
    assert sorted(k for own in columns for k in range(B)[own]) == list(range(B))
    assert [len(range(B)[own]) for own in columns] == [stop - start for start, stop in found.parts]
    assert found.blas_threads == cut.blas_threads
