"""The training step that stays on the device, executed on the host, against the model on NumPy."""

import numpy as np
import pytest

from lstm_np.device.memory import Sizes
from lstm_np.device.step import DeviceTrainingStep, Update
from lstm_np.kernels import KernelWarning
from lstm_np.kernels.gpu.cublas import StreamProducts, library_name
from lstm_np.kernels.gpu.launch_plan import describe_device, parts_of_sum
from lstm_np.optimizers import SGD, Adam
from tests.gpu.host_cupy import HABITS, FakeCublas, FakeDevice, make_backend, make_cupy
from tests.gpu.support import needs_compiler
from tests.gpu.training_support import BATCH, SAMPLES, UNEVEN, assert_training_agrees

pytestmark = needs_compiler


@pytest.mark.parametrize(
    "make_optimizer",
    [
        lambda params: Adam(params, lr=0.01),
        lambda params: Adam(params, lr=0.01, eps=1e-2, form="hat"),
        lambda params: SGD(params, lr=0.1),
        lambda params: SGD(params, lr=0.1, momentum=0.9),
        lambda params: SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    ],
    ids=["adam-paper", "adam-hat", "sgd", "momentum", "nesterov"],
)
@pytest.mark.parametrize("max_norm", [None, 0.05])
def test_agrees_with_numpy_step_by_step(make_optimizer, max_norm):
    step, _ = assert_training_agrees(make_optimizer=make_optimizer, max_norm=max_norm)
    assert step.graph_refused is None


@pytest.mark.parametrize("seed", range(len(HABITS)))
def test_agrees_however_the_streams_get_on(seed):
    assert_training_agrees(seed=seed, max_norm=0.05, epochs=3)


@pytest.mark.parametrize("persistent", [True, False])
def test_agrees_in_float32(persistent):
    assert_training_agrees(H=33, dtype="float32", persistent=persistent)


@pytest.mark.parametrize("max_norm", [None, 10.0])
def test_agrees_where_the_weight_gradient_has_uneven_parts(max_norm):
    _, device = assert_training_agrees(max_norm=max_norm, **UNEVEN)
    parts, rows = parts_of_sum(describe_device(make_cupy(device)), 4 * 43, 20, 9)
    assert (parts, rows, 4 * 43 - (parts - 1) * rows) == (3, 58, 56)


def test_agrees_with_hidden_sizes_that_are_not_a_multiple_of_four():
    assert_training_agrees(H=6, dtype="float32")


def test_agrees_on_data_that_are_no_bytes():
    _, device = assert_training_agrees(values=True)
    assert device.launches[0] == "gather_batch_of_values"


def test_agrees_without_the_persistent_kernel_and_without_a_graph():
    assert_training_agrees(persistent=False)
    step, _ = assert_training_agrees(capture=False)
    assert step.graph_refused == "not asked for"


@pytest.mark.parametrize("capture", [True, False])
def test_agrees_with_cublas_called_directly(monkeypatch, capture):
    monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", lambda xp: FakeCublas(xp.stand_in))
    step, device = assert_training_agrees(persistent=False, direct_blas=True, capture=capture)
    assert device.launches.count("gemm") == 6 * (1 + 4 + 3 + 3)  # W x; U h; U^T da but for step 0; dW, dU, db
    assert (step.graph_refused is None) == capture


@pytest.mark.parametrize("error", [OSError, ImportError])
def test_agrees_where_the_cublas_library_is_not_found(monkeypatch, error):
    def missing(xp):
        raise error("libcublas.so.13: cannot open shared object file")

    monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", missing)
    with pytest.warns(KernelWarning, match="cuBLAS is not found .libcublas.so.13: cannot open.* kernels of our own"):
        step, _ = assert_training_agrees(persistent=False, direct_blas=True)
    assert step.own_products_because == "libcublas.so.13: cannot open shared object file"


@pytest.mark.parametrize(
    ("cuda", "platform", "name"),
    [
        (12090, "linux", "libcublas.so.12"),
        (13000, "linux", "libcublas.so.13"),
        (12090, "win32", "cublas64_12.dll"),
        (13010, "win32", "cublas64_13.dll"),
    ],
)
def test_what_cublas_is_called(cuda, platform, name):
    assert library_name(cuda, platform) == name


def test_a_step_stays_on_its_device_whichever_is_the_current_one():
    """Its kernels' shared memory was allowed there, and its arrays lie there."""
    first, second = FakeDevice(multiprocessors=4), FakeDevice(multiprocessors=2)
    cupy = make_cupy(first, others=(second,))
    with cupy.cuda.Device(1):
        step, parameters, _ = make_step(cupy)
        before = cupy.asnumpy(parameters)
    step.begin_epoch(np.arange(SAMPLES))
    for _ in range(2):
        step.run(BATCH)
    step.set_learning_rate(0.05)
    look, totals = step.look().read(), step.totals()
    step.finish()
    assert (look, step.steps) == (totals, 2)
    assert totals.samples == 2 * BATCH
    assert step.last_batch()[1] <= totals.correct
    assert (first.launches, len(second.launches)) == ([], 16)
    with cupy.cuda.Device(1):
        assert (cupy.asnumpy(parameters) != before).any()


def test_cublas_is_opened_after_cupy_has_found_it(monkeypatch):
    """A wheel's library lies where the loader does not search; by its name it is found once it is loaded."""
    cupy, loaded = make_cupy(), []
    cuda, library = cupy.cuda, FakeCublas(cupy.stand_in)

    class Cuda:
        runtime, device = cuda.runtime, cuda.device

        @property
        def cublas(self):
            loaded.append("cublas")
            return cuda.cublas

    def open_by_name(name):
        assert (name, loaded) == ("libcublas.so.13", ["cublas"])
        return library

    monkeypatch.setattr("ctypes.CDLL", open_by_name)
    monkeypatch.setattr(cupy, "cuda", Cuda())
    StreamProducts(cupy, "float32", cuda.Stream(non_blocking=True))
    assert library.handles == 0  # it went with its owner


def test_the_handle_of_cublas_goes_with_its_owner(monkeypatch):
    cupy = make_cupy()
    library, stream = FakeCublas(cupy.stand_in), cupy.cuda.Stream(non_blocking=True)
    monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", lambda xp: library)
    products = StreamProducts(cupy, "float32", stream)
    assert library.handles == 1
    del products
    assert library.handles == 0


def test_an_error_of_cublas_is_not_passed_over(monkeypatch):
    monkeypatch.setattr(FakeCublas, "cublasSetWorkspace_v2", lambda *args: 7)
    monkeypatch.setattr("lstm_np.kernels.gpu.cublas.open_library", lambda xp: FakeCublas(xp.stand_in))
    with pytest.raises(RuntimeError, match="cuBLAS reports status 7"):
        assert_training_agrees(persistent=False, direct_blas=True)


def test_goes_on_without_a_graph_where_capture_is_refused(monkeypatch):
    def refuse(self):
        raise RuntimeError("cudaErrorStreamCaptureUnsupported:\noperation not permitted")

    monkeypatch.setattr("tests.gpu.host_streams.Stream.begin_capture", refuse)
    monkeypatch.setattr("tests.gpu.host_streams.Stream.end_capture", lambda self: None)
    with pytest.warns(KernelWarning, match=r"no CUDA graph \(cudaErrorStreamCaptureUnsupported: .* one by one"):
        step, _ = assert_training_agrees(epochs=3)
    assert step.graph_refused == "cudaErrorStreamCaptureUnsupported: operation not permitted"


def test_launches_of_one_step():
    _, device = assert_training_agrees(epochs=1)
    assert device.launches[:8] == [
        "gather_batch",
        "product_transposed",
        "lstm_persistent_forward",
        "read_out",
        "lstm_persistent_backward",
        "weight_gradient",
        "read_out_gradient",
        "update_parameters",
    ]


def make_step(cupy=None, **changes):
    T, D, H, K = changes.get("sizes", (2, 3, 4, 5))
    cupy = cupy or make_cupy(FakeDevice(multiprocessors=4))
    rng = np.random.default_rng(0)
    given = {
        "sizes": (T, D, H, K),
        "parameters": rng.standard_normal(4 * H * (D + H + 1) + K * (H + 1)).astype(np.float32),
        "images": rng.integers(0, 256, (SAMPLES, T * D)).astype(np.uint8),
        "labels": rng.integers(0, K, SAMPLES),
        "update": Update("sgd", 0.1),
        **changes,
    }
    parameters = cupy.asarray(given["parameters"])
    step = DeviceTrainingStep(
        make_backend(cupy), parameters, given["sizes"], given["images"], given["labels"],
        scale=1 / 255, update=given["update"], slots={},
    )  # fmt: skip
    return step, parameters, cupy


def test_the_learning_rate_may_change_between_replays():
    step, parameters, cupy = make_step()
    step.begin_epoch(np.arange(SAMPLES))
    step.run(BATCH)
    step.run(BATCH)
    step.finish()
    before = cupy.asnumpy(parameters)
    step.set_learning_rate(0.0)
    step.begin_epoch(np.arange(SAMPLES))
    step.run(BATCH)
    step.finish()
    np.testing.assert_array_equal(cupy.asnumpy(parameters), before)


def test_an_epoch_can_be_entered_in_its_middle():
    order = np.random.default_rng(1).permutation(SAMPLES)
    whole, expected, cupy = make_step()
    whole.begin_epoch(order)
    for _ in range(2):
        whole.run(BATCH)
    whole.finish()
    first, parameters, _ = make_step()
    first.begin_epoch(order)
    first.run(BATCH)
    first.finish()
    second, _, other = make_step(parameters=cupy.asnumpy(parameters))
    second.begin_epoch(order, BATCH)
    second.run(BATCH)
    second.finish()
    np.testing.assert_array_equal(other.asnumpy(second.parameters), cupy.asnumpy(expected))


def test_a_read_out_of_many_classes_asks_for_its_shared_memory():
    T, D, H, K = 2, 3, 4, 6200  # two numbers per class: more than the 48 KiB that need no asking
    step, _, _ = make_step(sizes=(T, D, H, K), parameters=np.zeros(Sizes(T, D, H, K).parameters, np.float32))
    step.begin_epoch(np.arange(SAMPLES))
    step.run(1)
    assert step.last_batch()[0] == pytest.approx(np.log(K))


def test_an_epoch_begins_without_waiting_and_reads_what_was_written_before():
    """Parameters written by others between two epochs count, U^T among them."""
    order = np.arange(SAMPLES)
    step, parameters, cupy = make_step()
    step.begin_epoch(order)
    step.run(BATCH)
    step.finish()
    changed = cupy.asnumpy(parameters)[::-1].copy()
    fresh, expected, _ = make_step(parameters=changed)
    parameters[...] = cupy.asarray(changed)
    for each in (step, fresh):
        each.begin_epoch(order, BATCH, steps=7)
        each.run(BATCH)
        each.finish()
        assert each.steps == 8
    np.testing.assert_array_equal(cupy.asnumpy(parameters), fresh.xp.asnumpy(expected))


def test_looks_are_the_sums_of_their_moment():
    step, _, _ = make_step()
    step.begin_epoch(np.arange(SAMPLES))
    looks = []
    for _ in range(2):
        step.run(BATCH)
        looks.append(step.look())
    later = step.totals()
    assert [look.read().samples for look in looks] == [BATCH, 2 * BATCH]
    assert all(look.ready for look in looks)
    assert looks[1].read() == later
    assert 0 < looks[0].read().loss < later.loss


def test_totals_begin_anew():
    step, _, _ = make_step()
    step.begin_epoch(np.arange(SAMPLES))
    step.run(BATCH)
    assert step.totals()[2] == BATCH
    step.reset_totals()
    assert step.totals() == (0.0, 0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((SAMPLES, 5), np.uint8)},
            r"uint8 or float32 \(N, 6\), found uint8 \(13, 5\)",
        ),
        ({"images": np.zeros((SAMPLES, 6), np.float64)}, "found float64"),
        ({"labels": np.full(SAMPLES, 5)}, "labels from 0 to 4"),
        ({"labels": np.zeros(3, int)}, "expected 13 labels"),
        ({"parameters": np.zeros(7, np.float32)}, "expected 153 float32 or float64 parameters"),
    ],
)
def test_refuses_what_does_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make_step(**changes)


def test_refuses_bad_orders_batches_and_rules():
    step, _, _ = make_step()
    with pytest.raises(ValueError, match="an order of at most 13 samples below 13"):
        step.begin_epoch(np.array([0, SAMPLES]))
    step.begin_epoch(np.arange(4))
    with pytest.raises(ValueError, match="a batch of 5 is asked for, 4 samples of the epoch are left"):
        step.run(5)
    with pytest.raises(ValueError, match="unknown update rule 'adagrad'"):
        Update("adagrad", 0.1)
