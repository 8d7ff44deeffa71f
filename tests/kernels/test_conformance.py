"""Every kernel of every backend agrees with the reference kernel, computed in float64, whatever it is asked for.

A kernel enters this table by being in `KERNELS` and in its backend's `kernels`.
"""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_np.backends import BACKENDS, Backend, BackendError, get_backend
from lstm_np.cells import CELLS, Cell, get_cell
from lstm_np.kernels import KERNELS, LayerSpec, kernel_class
from lstm_np.kernels.reference import ReferenceKernel

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # relative to the norm
CANCELS = 0.01  # of the sum of sizes: a sum over samples that leaves less is hardly known; most draws leave 0.02 to 0.1
# at its kink the derivative jumps, so that rounding an activation decides about a gradient: checked in float64 alone
KINKED = "rnn_relu"
HOST = get_backend("numpy", threads=1)  # small products lose much to a second thread on a busy machine
BIG = 70  # sizes that cross the borders between strips, blocks and chunks


def table() -> list:
    """(kernel, backend, cell, dtype) for all that can run here; a backend that cannot is one skipped entry."""
    entries = []
    for backend_name in BACKENDS:
        try:
            backend = get_backend(backend_name)
        except BackendError as error:
            entries.append(pytest.param("any", None, "any", "any", marks=pytest.mark.skip(reason=str(error))))
            continue
        for name in KERNELS:
            for cell in CELLS:
                for dtype in TOLERANCE:
                    spec = LayerSpec(get_cell(cell), 3, 4, True, dtype)
                    if (cell, dtype) == (KINKED, "float32"):
                        continue
                    if name in backend.kernels and kernel_class(name).supports(spec, backend):
                        label = f"{name}-{backend_name}-{cell}-{dtype}"
                        entries.append(pytest.param(name, backend, cell, dtype, id=label))
    return entries


def make_params(rng: np.random.Generator, cell: Cell, D: int, H: int, bias: bool) -> dict[str, np.ndarray]:
    """Small enough that float32 keeps its digits: no saturated gates, nothing that grows from step to step."""
    rows = len(cell.gates) * H
    params = {"W": rng.normal(size=(rows, D)) / (2 * D**0.5), "U": rng.normal(size=(rows, H)) / (2 * H**0.5)}
    if bias:
        params["b"] = rng.normal(size=rows) / 2
        params |= {name: rng.normal(size=H) for name in cell.biases}
    return params


def sizes_of_terms(expected: dict, params: dict, alone: Callable[[int], dict], B: int) -> Callable[[str], np.ndarray]:
    """What gives, by name, the sum of the sizes of what each sample adds to a result that is a parameter's gradient.

    alone  the results for one sample, by its number
    """

    def sizes(what: str) -> np.ndarray:
        if what[1:] not in params:  # no sum over samples: nothing that cancels
            return expected[what]
        return sum(abs(alone(n)[what]) for n in range(B))

    return sizes


def check_agreement(
    what: str, found: np.ndarray, expected: np.ndarray, dtype: str, sizes: Callable[[str], np.ndarray]
) -> None:
    """Compare relative to the norm; `sizes`: as `sizes_of_terms` gives it.

    Where the sum over samples that is a parameter's gradient cancels, as that of a single unit may, what is left holds
    little but the rounding of its terms: it is then compared relative to a hundredth of the sum of their sizes.
    """
    error, norm = np.linalg.norm(found - expected), np.linalg.norm(expected)
    if error > TOLERANCE[dtype] * norm:
        norm = max(norm, CANCELS * np.linalg.norm(sizes(what)))
    assert error <= TOLERANCE[dtype] * norm, f"{what}: off by {error} of {norm}"


def lay_out(array: np.ndarray, layout: str) -> np.ndarray:
    """The same values as a contiguous (D, T, B), a view of (B, T, D), or every second column of a wider array."""
    if layout == "contiguous":
        return array
    if layout == "batch first":
        return np.ascontiguousarray(array.transpose(2, 1, 0)).transpose(2, 1, 0)
    wide = np.full((*array.shape[:2], 2 * array.shape[2]), np.nan, array.dtype)
    wide[:, :, ::2] = array
    return wide[:, :, ::2]


sizes = st.one_of(st.integers(1, 9), st.sampled_from([16, 33, BIG]))
requests = st.fixed_dictionaries(
    {
        "D": st.one_of(st.integers(1, 9), st.just(28)),
        "H": sizes,
        "T": st.one_of(st.integers(1, 6), st.sampled_from([11, 29])),
        "B": st.one_of(st.integers(1, 9), st.sampled_from([16, 50, 131, 300])),
        "bias": st.booleans(),
        "layout": st.sampled_from(["contiguous", "batch first", "strided"]),
        "zero_state": st.booleans(),
        "dy": st.sampled_from([None, "contiguous", "batch first", "strided"]),
        "dstate": st.lists(st.booleans(), min_size=2, max_size=2),
        "sequence": st.booleans(),
        "input_gradient": st.booleans(),
        "state_gradient": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


def both(
    name: str, backend: Backend, cell: Cell, dtype: str, ask: dict
) -> tuple[list[tuple[str, object, object]], Callable[[str], np.ndarray]]:
    """(what, found, expected) for everything that the kernel and the reference return for one request.

    And a function that gives the sum of the sizes of what each sample adds to one of them, a parameter's gradient.
    """
    rng = np.random.default_rng(ask["seed"])
    D, H, T, B = (ask[letter] for letter in "DHTB")

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    params = {key: value.astype(dtype) for key, value in make_params(rng, cell, D, H, ask["bias"]).items()}
    x, dy = draw(D, T, B), None if ask["dy"] is None else draw(H, T, B)
    state = tuple(np.zeros((H, B), dtype) if ask["zero_state"] else draw(H, B) for _ in cell.state)
    dstate = tuple(draw(H, B) if given else None for given, _ in zip(ask["dstate"], cell.state, strict=False))
    flags = {"input_gradient": ask["input_gradient"], "state_gradient": ask["state_gradient"]}

    def run(kernel, place, x, dy, samples=slice(None)):  # place: what makes an array of a kernel
        own = {key: place(value) for key, value in params.items()}
        states = tuple(place(part[:, samples]) for part in state)
        y, final, saved = kernel.forward(own, x, states, sequence=ask["sequence"])
        dstates = tuple(part if part is None else place(part[:, samples]) for part in dstate)
        dx, dstate_0, grads = kernel.backward(own, saved, dy, dstates, **flags)
        y_alone, final_alone, nothing = kernel.forward(
            own, x, tuple(place(part[:, samples]) for part in state), sequence=ask["sequence"], save=False
        )
        assert nothing is None
        assert set(grads) == set(params)
        results = {"y": y, "y without saving": y_alone, "dx": dx, **{f"d{key}": grads[key] for key in sorted(grads)}}
        for letter, *parts in zip(cell.state, final, final_alone, dstate_0 or [None] * len(final), strict=True):
            results |= dict(zip((f"{letter}_T", f"{letter}_T without saving", f"d{letter}_0"), parts, strict=True))
        return results

    def exact(array: np.ndarray) -> np.ndarray:
        return array.astype("float64")

    reference = ReferenceKernel(LayerSpec(cell, D, H, ask["bias"], "float64"), HOST)
    expected = run(reference, exact, exact(x), None if dy is None else exact(dy))

    def alone(n: int) -> dict:
        own = slice(n, n + 1)
        return run(reference, exact, exact(x[:, :, own]), None if dy is None else exact(dy[:, :, own]), own)

    found = run(
        kernel_class(name)(LayerSpec(cell, D, H, ask["bias"], dtype), backend),
        backend.from_host,
        backend.from_host(lay_out(x, ask["layout"])),
        None if dy is None else backend.from_host(lay_out(dy, ask["dy"])),
    )
    pairs = [(what, None if found[what] is None else backend.to_host(found[what]), expected[what]) for what in expected]
    return pairs, sizes_of_terms(expected, params, alone, B)


def check(name: str, backend: Backend, cell: str, dtype: str, ask: dict) -> None:
    """Compare all of it."""
    pairs, sizes = both(name, backend, get_cell(cell), dtype, ask)
    for what, found, expected in pairs:
        if expected is None:
            assert found is None, f"{what} was not asked for"
            continue
        assert found.shape == expected.shape, what
        assert found.dtype == dtype, what
        check_agreement(what, found, expected, dtype, sizes)


@pytest.mark.parametrize(("name", "backend", "cell", "dtype"), table())
class TestAgreesWithTheReference:
    @settings(deadline=None, max_examples=25)
    @given(ask=requests)
    def test_on_drawn_requests(self, name, backend, cell, dtype, ask):
        check(name, backend, cell, dtype, ask)

    @pytest.mark.parametrize(
        ("D", "H", "T", "B"), [(28, 128, 28, 128), (7, BIG, 65, 3), (5, 48, 3, 513), (6, 512, 3, 17), (3, 20, 70, 1)]
    )
    def test_on_sizes_of_real_use(self, name, backend, cell, dtype, D, H, T, B):
        shape = {"D": D, "H": H, "T": T, "B": B, "bias": True, "zero_state": False, "seed": 1}
        layouts = {"layout": "batch first", "dy": "batch first", "dstate": [True, True]}
        flags = {"sequence": True, "input_gradient": True, "state_gradient": True}
        check(name, backend, cell, dtype, {**shape, **layouts, **flags})
