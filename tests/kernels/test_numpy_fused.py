"""What the fused CPU kernel promises beyond agreeing with the reference: bits, buffers, threads, memory."""

import dataclasses
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

from lstm_np.backends import blas_threads, get_backend
from lstm_np.cells import get_cell
from lstm_np.cells.declaration import read_cell
from lstm_np.kernels import Cut, LayerSpec, choose_kernel
from lstm_np.kernels.cpu import cut, footprint, part, remote, stack_part
from lstm_np.kernels.cpu.buffers import Pool, aligned, block_rows, rows_of_steps
from lstm_np.kernels.cpu.columns import transposed
from lstm_np.kernels.cpu.fused import NumpyFusedKernel, NumpyLeanKernel
from lstm_np.kernels.cpu.workspace import jobs_of

lstm = get_cell("lstm")
CELLS = pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_before", "rnn", "rnn_relu"])

D, H, T, B = 5, 12, 9, 40
BOTH = pytest.mark.parametrize("kernel_type", [NumpyFusedKernel, NumpyLeanKernel])


class Case:
    """A kernel with its arguments, all drawn from one seed."""

    def __init__(
        self, kernel_type=NumpyFusedKernel, *, cell="lstm", D=D, H=H, T=T, B=B, threads=2, dtype="float32", seed=0
    ):
        rng, cell = np.random.default_rng(seed), get_cell(cell)
        rows = len(cell.gates) * H

        def draw(*shape):
            return (rng.normal(size=shape) / 2).astype(dtype)

        self.kernel = kernel_type(LayerSpec(cell, D, H, True, dtype), get_backend("numpy", threads=threads))
        self.params = {"W": draw(rows, D), "U": draw(rows, H), "b": draw(rows)}
        self.params |= {name: draw(H) for name in cell.biases}
        if rows == H:
            self.params["U"] /= H**0.5  # or what a plain cell computes grows from step to step
        self.x, self.dy = draw(D, T, B), draw(H, T, B)
        self.state, self.dstate = (tuple(draw(H, B) for _ in cell.state) for _ in range(2))

    def forward(self, **flags):
        return self.kernel.forward(self.params, self.x, self.state, **flags)

    def backward(self, saved, **flags):
        return self.kernel.backward(self.params, saved, self.dy, self.dstate, **flags)

    def everything(self):
        y, final, saved = self.forward()
        dx, dstate, grads = self.backward(saved)
        return [y, *final, dx, *dstate, *grads.values()]


def same_bits(left, right) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.fixture
def shared(monkeypatch):
    """All cores that a case may use take part, also for sizes that one core does faster."""

    def share_out(gates, D, H, T, B, cores, save):
        count = max(1, min(cores, B // 8))
        return Cut(cut.pieces(B, count), 1 if count > 1 else cores)

    monkeypatch.setattr(cut, "share_out", share_out)


def fail_here(monkeypatch, error, function="tanh"):
    """The parts in this process raise; those in workers do not."""

    def failing(*arguments):
        raise error

    monkeypatch.setattr(part.np, function, failing)


# ---- bits


@BOTH
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_number_of_workers_gives_the_same_bits(kernel_type, threads, shared):
    first = Case(kernel_type, threads=threads).everything()
    case = Case(kernel_type, threads=threads)
    assert all(same_bits(first, case.everything()) for _ in range(20))


@CELLS
@BOTH
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    "sizes",
    [{}, {"H": 64, "T": 28, "B": 16}, {"H": 48, "T": 30, "B": 131}, {"H": 130, "T": 12, "B": 40}, {"H": 64, "B": 1}],
    ids=str,
)
def test_without_worker_processes_the_cut_and_the_bits_are_the_same(kernel_type, threads, sizes, cell, monkeypatch):
    case, alone = (Case(kernel_type, cell=cell, **sizes, threads=threads) for _ in range(2))
    alone.kernel = kernel_type(case.kernel.spec, dataclasses.replace(case.kernel.backend, processes=1))
    for save in (True, False):
        parts, _ = case.kernel.cut(sizes.get("T", T), sizes.get("B", B), save)
        assert alone.kernel.cut(sizes.get("T", T), sizes.get("B", B), save)[0] == parts
        if cell == "lstm" and save:
            assert (len(parts) > 1) == ("T" in sizes), "some sizes are cut, and some are not"
    y, final, _ = case.forward(save=False)
    trained, inferred = case.everything(), [y, *final]
    monkeypatch.setattr(remote.TEAM, "available", None)
    y, final, _ = alone.forward(save=False)
    assert same_bits([*alone.everything(), y, *final], [*trained, *inferred])
    assert same_bits(alone.everything(), trained)


def test_the_number_of_workers_changes_only_rounding(shared):
    one, three = Case(threads=1, dtype="float64").everything(), Case(threads=3, dtype="float64").everything()
    for a, b in zip(one, three, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@CELLS
@pytest.mark.parametrize("shape", [{"B": 200, "H": 20}, {"B": 3, "T": 1}, {"B": 1, "T": 50}, {"T": 65}])
def test_lean_and_full_give_the_same_bits(shape, cell):
    full, lean = (Case(kernel_type, cell=cell, **shape) for kernel_type in (NumpyFusedKernel, NumpyLeanKernel))
    assert same_bits(full.everything(), lean.everything())


def test_kernels_used_from_several_threads_at_once_do_not_disturb_one_another(shared):
    cases = [Case(seed=seed) for seed in range(4)]
    expected = [case.everything() for case in cases]
    failures = []

    def work(number):
        for _ in range(15):
            if not same_bits(cases[number].everything(), expected[number]):
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("columns", [16, 100])
def test_many_weights_are_shared_where_columns_are_few(columns, shared):
    case = Case(H=512, T=2, B=columns)
    first = case.everything()
    assert case.forward()[2].acquire().local.job.packed == (columns == 16)
    alone = Case(H=512, T=2, B=columns, threads=1).everything()
    for a, b in zip(first, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


# ---- buffers


@BOTH
def test_what_is_returned_belongs_to_the_caller(kernel_type):
    case = Case(kernel_type)
    y, final, saved = case.forward()
    dx, dstate, grads = case.backward(saved)
    alone, final_alone, _ = case.forward(save=False)
    returned = [y, *final, dx, *dstate, *grads.values(), alone, *final_alone]
    copies = [array.copy() for array in returned]
    case.x = case.x[:, :, ::-1] + 1
    case.everything()
    case.forward(save=False)
    assert same_bits(returned, copies)
    for array in returned:
        array[...] = np.nan  # nor does the caller change what the kernel computes next
    assert all(np.isfinite(array).all() for array in case.everything())


@BOTH
def test_two_forwards_before_their_backwards(kernel_type):
    first, second = Case(kernel_type, seed=1), Case(kernel_type, seed=2)
    expected = [case.backward(case.forward()[2])[2] for case in (first, second)]
    second.kernel = first.kernel
    saved = [case.forward()[2] for case in (first, second)]
    found = [case.backward(one)[2] for case, one in zip((first, second), saved, strict=True)]
    for a, b in zip(expected, found, strict=True):
        assert same_bits(a.values(), b.values())


@BOTH
def test_backward_twice_is_the_same_until_a_forward_needs_the_memory(kernel_type):
    case = Case(kernel_type)
    saved = case.forward()[2]
    first, second = case.backward(saved), case.backward(saved)
    assert same_bits(first[2].values(), second[2].values())
    case.forward(save=False)
    assert same_bits(first[2].values(), case.backward(saved)[2].values())
    later = case.forward()[2]
    with pytest.raises(RuntimeError, match="call forward again"):
        case.backward(saved)
    assert same_bits(first[2].values(), case.backward(later)[2].values())


def test_workspaces_are_reused_and_freed_with_the_kernel():
    case = Case()
    saved = case.forward()[2]
    workspace = weakref.ref(saved.acquire())
    case.backward(saved)
    again = case.forward()[2]
    assert again.acquire() is workspace()
    del saved, again  # dropped without a backward pass: free as well
    assert case.forward()[2].acquire() is workspace()
    del case
    gc.collect()
    assert workspace() is None


def test_a_workspace_in_use_is_not_given_out():
    case = Case()
    one, two = case.forward()[2], case.forward()[2]
    assert one.acquire() is not two.acquire()


def test_batch_and_sequence_may_change_from_call_to_call():
    case = Case()
    for columns, steps in [(40, 9), (7, 9), (40, 3), (1, 1), (40, 9), (33, 8)]:
        part = Case(T=steps, B=columns, seed=columns)
        part.params = case.params
        expected = part.everything()
        part.kernel = case.kernel
        assert same_bits(part.everything(), expected)


MB = 1 << 20


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ([1000] * 50, 4),  # four times the largest
        ([MB] * 50, 4),
        ([10 * MB] * 50, 3),  # 32 MiB
        ([64 * MB] * 50, 1),  # the largest
        ([64 * MB, 30 * MB, 20 * MB], 2),
        ([20 * MB, 64 * MB], 1),
        ([MB, 64 * MB, MB], 1),
        ([1] * 7 + [MB] + [1] * 7, 8),  # and never more than eight
    ],
)
def test_what_is_free_is_bounded_in_bytes(sizes, kept):
    pool = Pool(lambda item: item[1])
    for item in enumerate(sizes):
        pool.give(item[0], item)
    pool.take("another", object)
    assert [item for _, item in pool._free] == list(enumerate(sizes))[-kept:]
    assert sum(item[1] for _, item in pool._free) <= max(max(sizes), 32 * MB)


@BOTH
def test_sequences_of_many_lengths_do_not_hoard_memory(kernel_type):
    """What is kept between batches is about what one batch takes."""
    case, free = Case(kernel_type, H=128, B=64, T=3, threads=1), []
    for number, steps in enumerate([150 + n for n in range(12)] * 2):
        other = Case(kernel_type, H=128, B=64, T=steps, threads=1)
        other.kernel, other.params = case.kernel, case.params
        other.everything()
        if number >= 12:
            free.append(sum(part.values * 4 for _, part in case.kernel._workspaces._free))
    needed = case.kernel.host_values(161, 64)[0] * 4
    assert max(free) <= max(1.05 * needed, 32 * MB)


PART_CASES = [
    {"H": 64, "B": 300}, {"H": 64, "B": 40}, {"H": 64, "B": 300, "dtype": "float64"}, {"H": 128, "B": 16},
    {"H": 128, "B": 40}, {"H": 64, "B": 1, "T": 90}, {"D": 200, "H": 32, "B": 50},
]  # fmt: skip


@CELLS
@pytest.mark.parametrize(
    ("sizes", "keep", "unequal"),
    [
        (sizes, keep, unequal)
        for sizes in PART_CASES
        for keep in ("all", "lean", "nothing")
        for unequal in (False, True)
        if (sizes["B"] > 1 or keep != "nothing") and not (unequal and keep == "lean")
    ],
)
def test_the_count_of_a_parts_values_is_what_it_allocates(sizes, keep, unequal, cell):
    sizes = {"D": 28, "T": 60, "dtype": "float32", **sizes}
    spec = LayerSpec(get_cell(cell), sizes["D"], sizes["H"], True, sizes["dtype"])
    (job,) = jobs_of(spec, sizes["T"], Cut(((0, sizes["B"]),), 1), keep, unequal)
    tracemalloc.start()
    try:
        made = stack_part.part_of(job)
        if job.layout == "columns" and keep != "nothing":
            made.weights.pack_backward({"U": np.zeros((job.of.gates * job.H, job.H), job.dtype)})
        of_numpy = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        traces = tracemalloc.take_snapshot().filter_traces([of_numpy]).traces
    finally:
        tracemalloc.stop()
    allocated = sum(trace.size for trace in traces)
    assert footprint.values_of_part(job) * np.dtype(job.dtype).itemsize == pytest.approx(allocated, rel=0.12)


@BOTH
def test_gradients_that_nobody_asked_for_do_not_come(kernel_type):
    case = Case(kernel_type)
    y, _, saved = case.forward(sequence=False)
    dx, dstate, grads = case.backward(saved, input_gradient=False, state_gradient=False)
    assert y is None
    assert dx is None
    assert dstate is None
    assert same_bits(grads.values(), case.backward(case.forward()[2])[2].values())


# ---- memory


def kept_values_per_step_and_sample(kernel_type, cell, hidden=64, columns=32) -> float:
    """Of the part that grows with T, without the copy of the input and its padding to whole tiles."""
    sizes = {"D": 3, "H": hidden, "B": columns, "cell": cell}
    short, long = (Case(kernel_type, **sizes, T=steps).forward()[2].nbytes for steps in (64, 192))
    rows = -(-(3 + 1 + hidden) // 16) * 16
    return (long - short) / (128 * columns * 4) - (rows - hidden)


@pytest.mark.parametrize(("cell", "values"), [("lstm", 7), ("gru", 6), ("gru_reset_before", 6), ("rnn", 1)])
def test_at_most_so_many_values_per_unit_step_and_sample(cell, values):
    assert kept_values_per_step_and_sample(NumpyFusedKernel, cell) == pytest.approx(values * 64)


@CELLS
def test_lean_keeps_little_more_than_h(cell):
    assert kept_values_per_step_and_sample(NumpyLeanKernel, cell) < 1.1 * 64


def test_long_sequences_train_lean_in_little_memory():
    script = """if True:
        import resource
        from tests.kernels.test_numpy_fused import Case, NumpyLeanKernel
        case = Case(NumpyLeanKernel, D=1, H=128, T=784, B=128)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(2):
            saved = case.kernel.forward(case.params, case.x, case.state, sequence=False)[2]
            case.kernel.backward(case.params, saved, None, case.dstate, input_gradient=False)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 200  # MiB; the full kernel takes 700


# ---- threads


def blas_numbers() -> list[int]:
    return [library.get_num_threads() for library in blas_threads.libraries()]


@pytest.mark.skipif(not blas_threads.libraries(), reason="threadpoolctl does not know this BLAS")
class TestBlasThreads:
    def test_limits_nest_and_are_restored(self):
        before = blas_numbers()
        with blas_threads.blas_threads(1):
            with blas_threads.blas_threads(2):
                assert set(blas_numbers()) == {2}
            assert set(blas_numbers()) == {1}
        assert blas_numbers() == before

    def test_limits_are_restored_after_an_exception(self):
        before = blas_numbers()
        with pytest.raises(KeyError), blas_threads.blas_threads(before[0] + 1):
            raise KeyError
        assert blas_numbers() == before

    def test_limits_left_in_the_order_they_were_entered(self):
        before = blas_numbers()
        first, second = blas_threads.blas_threads(1), blas_threads.blas_threads(2)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert set(blas_numbers()) == {2}
        second.__exit__(None, None, None)
        assert blas_numbers() == before

    def test_limits_hold_in_every_thread(self):
        def limited():
            with blas_threads.blas_threads(1):
                found.append(set(blas_numbers()))

        found, before = [], blas_numbers()
        limited()
        thread = threading.Thread(target=limited)
        thread.start()
        thread.join()
        assert found == [{1}, {1}]
        assert blas_numbers() == before

    def test_a_kernel_restores_them_even_when_it_fails(self, shared, monkeypatch):
        before = blas_numbers()
        fail_here(monkeypatch, FloatingPointError)
        with pytest.raises(FloatingPointError):
            Case().forward()
        assert blas_numbers() == before


# ---- workers; what becomes of a pass when they are late or dead: test_recovery.py


@BOTH
@pytest.mark.parametrize("error", [FloatingPointError, KeyboardInterrupt])
def test_an_exception_in_this_process_leaves_no_answer_behind(kernel_type, error, shared, monkeypatch):
    case = Case(kernel_type, threads=3)
    expected = case.everything()
    saved = case.forward()[2]
    with monkeypatch.context() as context:
        fail_here(context, error, "multiply")
        with pytest.raises(error):
            case.backward(saved)
    assert same_bits(case.backward(saved)[2].values(), expected[-3:])
    with monkeypatch.context() as context:
        fail_here(context, error, "tanh")
        with pytest.raises(error):
            case.forward()
    assert same_bits(case.everything(), expected)


def test_workers_that_were_closed_start_again(shared):
    case = Case()
    expected = case.everything()
    processes = [worker.process for worker in remote.TEAM._workers]
    remote.TEAM.close()
    assert all(process.returncode == 0 for process in processes)
    assert same_bits(case.everything(), expected)


def _in_child(case, connection):
    connection.send(case.everything())
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_its_own_workers(shared):
    case = Case()
    expected = case.everything()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(case, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork with threads
        child.start()
    assert receiver.poll(60)
    assert same_bits(receiver.recv(), expected)
    child.join(60)
    assert child.exitcode == 0
    assert same_bits(case.everything(), expected)


BIG_CASE = "from tests.kernels.test_numpy_fused import Case, remote; Case(H=128, B=128, T=28).everything(); "


def test_a_process_with_workers_ends_at_once_and_quietly():
    script = BIG_CASE + "print(len(remote.TEAM._workers))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_end_with_a_parent_that_was_killed():
    script = BIG_CASE + "import os; print(remote.TEAM._workers[0].process.pid, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    stat = Path(f"/proc/{int(done.stdout)}/stat")
    end = time.monotonic() + 20
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < end:
        time.sleep(0.05)
    assert time.monotonic() < end


def test_what_a_worker_holds_is_freed_with_the_kernel(shared):
    case = Case(H=64, T=200, B=64)
    case.everything()
    memory = Path(f"/proc/{remote.TEAM._workers[0].process.pid}/statm")

    def pages():
        return int(memory.read_text().split()[1])

    with_parts = pages()
    del case
    gc.collect()
    other = Case()
    other.everything()
    end = time.monotonic() + 10
    while pages() > with_parts - 1000 and time.monotonic() < end:
        time.sleep(0.05)
    assert pages() <= with_parts - 1000  # 4 MB of 12


# ---- the cut and helpers


@pytest.mark.parametrize("cores", [1, 2, 5, 64])
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 100, 128, 1000])
@pytest.mark.parametrize("hidden", [1, 32, 128, 1024])
def test_a_cut_covers_every_column_once_and_uses_no_more_cores_than_it_may(cores, columns, hidden):
    for save in (True, False):
        parts, blas_threads = cut.share_out(4, 28, hidden, 28, columns, cores, save)
        assert [column for part in parts for column in range(*part)] == list(range(columns))
        assert len(parts) == 1 or blas_threads == 1
        assert max(len(parts), blas_threads) <= cores


@pytest.mark.parametrize(("threads", "parts"), [(1, 1), (2, 2)])
def test_threads_limit_the_workers(threads, parts):
    saved = Case(H=128, B=128, T=28, threads=threads).forward()[2]
    assert len(saved.acquire().cut.parts) == parts


def test_small_work_is_not_shared_out():
    assert len(cut.share_out(4, 28, 32, 28, 16, 8, False).parts) == 1


def test_small_products_have_one_thread():
    """Those of a few samples of a small layer; of a large layer BLAS may use all cores."""
    assert cut.share_out(4, 1, 32, 30, 15, 2, True) == cut.Cut(((0, 15),), 1)
    assert cut.share_out(4, 1, 32, 30, 1, 2, True).blas_threads == 1
    assert cut.share_out(4, 28, 512, 28, 1, 2, True).blas_threads == 2
    assert cut.share_out(4, 28, 512, 28, 8, 2, True).blas_threads == 2


@pytest.mark.parametrize(("rows", "inner", "columns"), [(512, 157, 64), (7, 3, 2), (388, 541, 300), (64, 10**6, 64)])
def test_blocks_divide_the_rows(rows, inner, columns):
    assert rows % block_rows(rows, inner, columns) == 0


@pytest.mark.parametrize(("columns", "rows", "copied"), [(8, 48, False), (100, 48, True), (8, 200_000, True)])
def test_transposed(columns, rows, copied):
    U, room = np.arange(12.0 * rows).reshape(rows, 12), np.empty((12, rows))
    found = transposed(U, columns, room)
    np.testing.assert_array_equal(found, U.T)
    assert np.shares_memory(found, room) == copied


def test_buffers_start_at_a_cache_line_and_rows_differ_by_an_odd_number_of_them():
    assert aligned((3, 5), "float64").ctypes.data % 64 == 0
    rows = rows_of_steps(4, 8, 64, "float32")
    assert rows.ctypes.data % 64 == 0
    assert rows.strides[0] // 64 % 2 == 1


class Leaky:
    """A cell of one's own."""

    GATES, STATE, VALUES = ("n",), ("h",), ("n", "h")

    @staticmethod
    def forward(xp, a, state):
        n = xp.tanh(a)
        h = (state[0] + n) / 2
        return (h,), {"n": n, "h": h}

    @staticmethod
    def backward(xp, dstate, state, values):
        dh = dstate[0]
        dn = dh / 2
        return dn * (1 - values["n"] ** 2), (dh / 2,), {"n": dn, "h": dh}


@pytest.mark.parametrize(
    ("cell", "dtype"), [(read_cell("leaky", Leaky), "float32"), (lstm, "float16"), (lstm, "complex128")]
)
def test_other_cells_and_dtypes_are_left_to_other_kernels(cell, dtype):
    spec, backend = LayerSpec(cell, D, H, True, dtype), get_backend("numpy")
    assert not NumpyFusedKernel.supports(spec, backend)
    assert choose_kernel("auto", spec, backend).name == "reference"


@CELLS
def test_auto_takes_the_fused_kernel(cell):
    spec = LayerSpec(get_cell(cell), D, H, True, "float32")
    assert choose_kernel("auto", spec, get_backend("numpy")).name == "fused"
