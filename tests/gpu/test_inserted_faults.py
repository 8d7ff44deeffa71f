"""Faults inserted into the kernels' sources and into the host's code turn the tests red.

Each is found by a wrong value, by the watch over memory, or by the order in which streams get on; docs/gpu.md lists
them.  Those that only the machine code shows are in test_machine_code.py.
"""

import re
from unittest import mock

import numpy as np
import pytest

from lstm_np import SGD, SequenceClassifier
from lstm_np.device import inference, memory, step
from lstm_np.device.memory import Update
from tests.faults import with_fault
from tests.gpu.host_cupy import HABITS, FakeDevice, KernelFaultError, make_backend, make_cupy
from tests.gpu.support import TOLERANCE, Case, assert_equal, draw, needs_compiler, on_host, reference
from tests.gpu.training_support import UNEVEN, assert_training_agrees

pytestmark = needs_compiler


def changed(old, new, occurrence=1, within=""):
    """A function that puts `new` for one occurrence of `old`, after the text `within`, wherever a source holds them."""

    def mutate(code):
        start = code.find(within)
        if start < 0:
            return code
        for _ in range(occurrence):
            start = code.find(old, start + 1)
            if start < 0:
                return code
        mutate.done = True
        return code[:start] + new + code[start + len(old) :]

    mutate.done = False
    return mutate


FORWARD, BACKWARD = "lstm_persistent_forward(", "lstm_persistent_backward("
RACE = "race|before anything was written|wait for others"

PERSISTENT = {
    "no barrier after the prologue, forward": (changed("__syncthreads();", "", 1, FORWARD), RACE),
    "no barrier in the loop, forward": (changed("__syncthreads();", "", 2, FORWARD), RACE),
    "no barrier after the prologue, backward": (changed("__syncthreads();", "", 1, BACKWARD), RACE),
    "no barrier in the loop, backward": (changed("__syncthreads();", "", 2, BACKWARD), RACE),
    "a barrier that some skip": (changed("__syncthreads();", "if (live[0]) __syncthreads();", 2, FORWARD), RACE),
    "one buffer for two steps": (changed("((t + 1) & 1)", "(t & 1)", 1, FORWARD), RACE),
    "reads the next buffer": (changed("vectors + (t & 1)", "vectors + ((t + 1) & 1)", 1, FORWARD), RACE),
    "writes behind the vector": (changed("place.unit(m)] = h_t", "place.unit(m) + M::PADDED] = h_t", 1, FORWARD), None),
    "gates in another order": (changed("{sigmoid(a_i), sigmoid(a_f)", "{sigmoid(a_f), sigmoid(a_i)"), None),
    "wrong row of U": (changed("value * H + row_unit", "value * H + (row_unit + 1) % H"), None),
    "wrong lane's columns": (changed("c * M::LANES + place.lane) * 4)", "c * M::LANES) * 4)"), None),
    "a lane forgotten when adding up": (changed("OFFSET * 2>(sums", "OFFSET * 4>(sums"), None),
    "the wrong half given away": (changed("upper ? low : high", "upper ? high : low"), None),
    "bias left out": (changed("coming[m][gate] + offset[m][gate]", "coming[m][gate]"), None),
    "pre-activations of the same step again": (changed("gates[(t + 1) * 4", "gates[t * 4", 1, FORWARD), None),
    "gates of the wrong step": (changed("(t - 1) * 4 * state", "t * 4 * state", 1, BACKWARD), None),
    "c of the wrong step": (changed("c[(t - 1) * state", "c[t * state", 1, BACKWARD), None),
    "samples beyond the batch": (changed("unit < H && b < B;", "unit < H;", 1, BACKWARD), None),
    "dc not carried": (changed("dc *= s.f;", ""), None),
    "derivative of the wrong gate": (changed("d_f * s.f * (real(1) - s.f)", "d_f * s.f * (real(1) - s.i)"), None),
}  # fmt: skip

STEPS = {
    "c of the wrong step": (changed("c[t * state + k] + s.i", "c[(t + 1) * state + k] + s.i"), None),
    "h in the wrong slot": (changed("h[(t + 1) * state + k] =", "h[t * state + k] ="), None),
    "output gate without its bias": (changed("a[2 * H] + v[2 * H]", "a[2 * H]"), None),
    "dy of the wrong step": (changed("dy[t * state + k]", "dy[k]"), None),
    "no guard for the last block": (changed("if (k >= (long long)B * H) return;", ""), None),
}  # fmt: skip

TRAINING = {
    "product: no barrier before the loop": (changed("__syncthreads();", "", 1, "store(0);"), RACE),
    "product: no barrier in the loop": (changed("__syncthreads();", "", 2, "store(0);"), RACE),
    "product: next tile over this one": (changed("store(1 - buffer)", "store(buffer)"), RACE),
    "product: last tile not cut off": (changed("m < M && k < k_end ?", "m < M ?"), None),
    "weight gradient: h one step late": (changed("k * H + n - D]", "(k + 1) * H + n - D]"), None),
    "update: a part forgotten": (changed("part < parts; ++part) g +=", "part < parts - 1; ++part) g +=", 2), None),
    "norm: a part forgotten": (changed("part < parts; ++part) g +=", "part < parts - 1; ++part) g +=", 1), None),
    "gather: position not used": (changed("order[counters[1] + blockIdx.x]", "order[blockIdx.x]"), None),
    "gather: image not turned": (changed("(long long)(k / D) * B + b) * D + k % D]", "long long)b * T * D + k]"), None),
    "read-out: no barrier before the softmax": (changed("__syncthreads();", "", 2, "Scores score("), RACE),
    "read-out: no barrier before dh": (changed("__syncthreads();", "", 1, "read_out("), RACE),
    "read-out: mean over the wrong count": (changed("/ real(B);", "/ real(B + 1);"), None),
    "read-out gradient: no barrier": (changed("__syncthreads();", "", 1, "read_out_gradient("), RACE),
    "read-out gradient: bias forgotten": (changed("b * H + j] : real(1))", "b * H + j] : real(0))"), None),
    "totals: only the first lane's losses": (changed("loss = sum_over_warp(loss);", ""), None),
    "norm: no barrier": (changed("__syncthreads();", "", 1, "sum_over_block("), RACE),
    "Adam: step counted late": (changed("++counters[0]", "counters[0]++"), None),
    "Adam: epsilon of the other form": (changed("ADAM ? settings[3] * root", "ADAM_HAT ? settings[3] * root"), None),
    "update: U^T left as it was": (changed("transposed[in_U % H * 4 * H + in_U / H] = updated;", ";"), None),
}  # fmt: skip


SMALL = Case(H=5, B=3, T=3, D=2)
NOT_BY_FOUR = Case(H=6, B=2, T=2, D=3)  # rows of U that no access of 16 bytes can read

# what the review found unseen, and what only the watch over global memory sees
WATCHED = {
    "U read four by four where rows are not aligned": (
        "persistent", NOT_BY_FOUR, changed("M::K % 4 == 0", "M::K % 2 == 0"), "misaligned",
    ),
    "all lanes of a group write": (
        "persistent", SMALL, changed("live[m] && place.owner", "live[m]", 1, FORWARD), "race",
    ),
    "h beyond its last slot": (
        "persistent", SMALL, changed("h[(t + 1) * state", "h[(t + 2) * state"), "of 60 elements",
    ),
    "c of a step that has not been made": (
        "cuda_fused", SMALL, changed("c[t * state + k]", "c[(t + 2) * state + k]", 1, "lstm_step_forward("),
        "memory read",
    ),
    "several threads write the same row": (
        "cuda_fused", SMALL, changed("b = k / H, unit = k % H", "b = 0, unit = k % H"), "race",
    ),
}  # fmt: skip
PARTS = {
    "a part of the weight gradient one row too long": (
        changed("begin + rows_per_part < rows ? begin + rows_per_part : rows",
                "begin + rows_per_part + 1 < rows ? begin + rows_per_part + 1 : rows"), None,
    ),
    "all parts in the memory of the first": (changed("partial + (long long)blockIdx.z * M * N", "partial"), "race"),
    "every block writes the first one's norm": (changed("norms[blockIdx.x] = whole", "norms[0] = whole"), "race"),
    "all warps write the read-out's gradient": (changed("if (warp == 0 && j <= H)", "if (j <= H)"), "race"),
    "a sample beyond the data set": (changed("order[counters[1] + blockIdx.x]", "order[counters[1] + blockIdx.x + 1]"),
                                     "global memory read"),
}  # fmt: skip


def check_fault(mutate, message, run):
    with pytest.raises(AssertionError) as caught:  # a wrong value, or KernelFaultError
        run()
    assert mutate.done
    if message is not None:
        assert isinstance(caught.value, KernelFaultError)
        assert re.search(message, str(caught.value))


def layer(name, case, mutate, device=None):
    drawn = draw(case)
    assert_equal(on_host(name, case, drawn, device, mutate), reference(case, drawn), TOLERANCE["float32"])


@pytest.mark.parametrize("fault", PERSISTENT)
def test_fault_in_the_persistent_kernel(fault):
    mutate, message = PERSISTENT[fault]
    check_fault(mutate, message, lambda: layer("persistent", SMALL, mutate, FakeDevice(multiprocessors=1)))


@pytest.mark.parametrize("fault", STEPS)
def test_fault_in_the_fused_kernel(fault):
    mutate, message = STEPS[fault]
    check_fault(mutate, message, lambda: layer("cuda_fused", SMALL, mutate))


@pytest.mark.parametrize("fault", WATCHED)
def test_fault_in_global_memory(fault):
    name, case, mutate, message = WATCHED[fault]
    check_fault(mutate, message, lambda: layer(name, case, mutate))


@pytest.mark.parametrize("fault", TRAINING)
def test_fault_in_the_training_step(fault):
    mutate, message = TRAINING[fault]
    # clipped to a norm, a gradient of the wrong size would look right
    max_norm = 0.05 if fault.startswith("norm") else None
    check_fault(mutate, message, lambda: assert_training_agrees(max_norm=max_norm, epsilon=1e-2, mutate=mutate))


@pytest.mark.parametrize("fault", PARTS)
def test_fault_in_a_step_whose_parts_are_uneven(fault):
    mutate, message = PARTS[fault]
    check_fault(
        mutate, message, lambda: assert_training_agrees(9, max_norm=10.0, epsilon=1e-2, mutate=mutate, **UNEVEN)
    )


# ---- the host's code: (module, line, what it is changed to, what is said of it)

READ_EARLY = "before (all of it|anything) was written"
HOST = {
    "order, position and U^T written on another stream": (
        step, "        with self.launches.active():\n            self._order[:",
        "        with self.launches.place:\n            self._order[:", None,
    ),
    "buffers made on another stream": (
        step, "            with self.launches.active():\n                self._buffers[B]",
        "            with self.xp.cuda.Stream(non_blocking=True):\n                self._buffers[B]", READ_EARLY,
    ),
    "parameters and moments not waited for": (
        step, "            self.launches.blas()  # so that a fallback is known, and said, before training begins\n"
        "        self.launches.after_current_stream()",
        "            self.launches.blas()\n        self.launches.after_current_stream = lambda: None", READ_EARLY,
    ),
    "the learning rate changed on another stream": (
        step, "        with self.launches.active():\n            self._settings",
        "        if True:\n            self._settings", None,
    ),
    "sums read without waiting for the steps": (
        step, "        with self.launches.active():\n            found:",
        "        with self.launches.place:\n            found:", None,
    ),
    "sums set on another stream": (
        step, "        with self.launches.active():\n            self._totals[...]",
        "        if True:\n            self._totals[...]", None,
    ),
    "a look copied on another stream": (
        memory, "array.nbytes, launches.stream)\n            self._event.record(launches.stream)",
        "array.nbytes, xp.cuda.Stream(non_blocking=True))\n            self._event.record(launches.stream)", None,
    ),
    "a look read before it is there": (memory, "        self._event.synchronize()\n", "", None),
    "a measurement read before it is there": (
        inference, "        self._event.synchronize()\n", "", READ_EARLY,
    ),
    "inference does not wait for the parameters": (
        inference, "        self.launches.after_current_stream()\n", "", READ_EARLY,
    ),
    "a step is dropped before it is done": (
        step, "        weakref.finalize(self, wait_for, self.stream).atexit = False\n", "",
        "after its array was dropped",
    ),
    "a look is dropped before its copy is done": (
        memory, "        weakref.finalize(self, wait_for, self._event).atexit = False\n", "", "page-locked",
    ),
    "a data set is dropped before it is measured": (
        inference, "        with self.launches.active():\n            return DeviceData",
        "        if True:\n            return DeviceData", "after its array was dropped",
    ),
}  # fmt: skip


def follow_a_run(seed, step_module=step, memory_module=memory, inference_module=inference):
    """Train, look, change the rate and measure, all without waiting; everything is what NumPy makes of it."""
    with mock.patch.object(step_module, "Snapshot", memory_module.Snapshot):
        _follow_a_run(seed, step_module, inference_module)


def _follow_a_run(seed, step_module, inference_module):
    T, D, H, K, N, B = 3, 2, 4, 3, 12, 4
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (N, T * D)).astype(np.uint8), rng.integers(0, K, N)
    model = SequenceClassifier(D, H, K, dtype="float64", kernel="reference", seed=3)
    x = (images / 255).reshape(N, T, D)
    device = FakeDevice(multiprocessors=4, seed=seed)
    cupy = make_cupy(device)
    backend = make_backend(cupy)
    parameters = cupy.asarray(model.params.flat)
    on_device = step_module.DeviceTrainingStep(
        backend, parameters, (T, D, H, K), images, labels, scale=1 / 255, update=Update("sgd", 0.5), slots={}
    )
    measuring = inference_module.DeviceInference(backend, parameters, (T, D, H, K), stream=on_device.stream)
    data, looks, measured, expected = None, [], [], []
    optimizer = SGD(model.params, lr=0.5)
    on_numpy = model.training_steps(optimizer).step
    loss_sum, right, count, number = 100.0, 7, 20, 0
    for epoch in range(3):
        order = rng.permutation(N)
        on_device.begin_epoch(order)
        if data is None:
            on_device.set_totals(loss_sum, right, count)
            data = measuring.data(images, labels, 1 / 255)
        for first in range(0, N, B):
            chosen, number = order[first : first + B], number + 1
            optimizer.lr = 0.5 / number
            on_device.set_learning_rate(0.5 / number)
            on_device.run(B)
            loss, correct, _ = on_numpy((x[chosen], labels[chosen]), number)
            loss_sum, right, count = loss_sum + float(loss) * B, right + int(correct), count + B
            looks.append((on_device.look(), (loss_sum, right, count)))
        measured.append(measuring.measure(data))
        metrics = model.evaluate(x, labels)
        expected.append((metrics.loss * N, metrics.correct, N, model.predict_proba(x)))
        if epoch == 0:
            assert looks[-1][0].read() == pytest.approx(looks[-1][1], rel=1e-9)
        elif epoch == 1:
            assert measured[-1].sums() == pytest.approx(expected[-1][:3], rel=1e-9)
    assert on_device.totals() == pytest.approx((loss_sum, right, count), rel=1e-9)
    for look, sums in looks:
        assert look.read() == pytest.approx(sums, rel=1e-9)
    for found, (loss_sum, right, count, probabilities) in zip(measured, expected, strict=True):
        assert found.sums() == pytest.approx((loss_sum, right, count), rel=1e-9)
        np.testing.assert_allclose(found.predict_proba(), probabilities, rtol=1e-7)
        np.testing.assert_array_equal(found.predict(), probabilities.argmax(axis=1))
    on_device.finish()
    np.testing.assert_allclose(cupy.asnumpy(parameters), model.params.flat, rtol=1e-9, atol=1e-12)
    on_device.begin_epoch(order)
    on_device.run(B)
    on_device.look()  # which nobody keeps
    on_device.finish()
    on_device.run(B)
    stream = on_device.stream
    del on_device, measuring, measured, found, looks, look  # the step is still under way
    stream.synchronize()
    _measure_what_nobody_keeps(seed, inference_module)


def _measure_what_nobody_keeps(seed, inference_module):
    """Parameters that have just been written, and a data set that is dropped as soon as it is measured."""
    T, D, H, K, N = 3, 2, 4, 3, 5
    model = SequenceClassifier(D, H, K, dtype="float64", kernel="reference", seed=3)
    cupy, images = make_cupy(FakeDevice(seed=seed)), np.random.default_rng(seed).integers(0, 256, (N, T * D))
    parameters = cupy.empty(model.params.flat.size, "float64")
    on_device = inference_module.DeviceInference(make_backend(cupy), parameters, (T, D, H, K))
    parameters[...] = cupy.asarray(model.params.flat)
    measured = on_device.measure(on_device.data(images.astype(np.uint8), scale=1 / 255))
    expected = model.predict_proba((images / 255).reshape(N, T, D))
    measured._data = None
    np.testing.assert_allclose(measured.predict_proba(), expected, rtol=1e-7)


@pytest.mark.parametrize("seed", range(len(HABITS)))
def test_a_run_that_never_waits_is_the_run_on_numpy(seed):
    follow_a_run(seed)


@pytest.mark.parametrize("fault", HOST)
def test_a_missing_wait_is_found(fault):
    module, line, wrong, message = HOST[fault]
    name = {step: "step_module", memory: "memory_module", inference: "inference_module"}[module]
    found = []
    for seed in range(len(HABITS)):
        try:
            follow_a_run(seed, **{name: with_fault(module, line, wrong)})
        except AssertionError as error:  # a wrong value, or KernelFaultError
            found.append(str(error))
    assert found, "no order of the streams shows it"
    assert message is None or any(re.search(message, text) for text in found), found


def test_a_read_beyond_an_array_is_found():
    cupy = make_cupy()
    code = 'extern "C" __global__ void beyond(const float* a, float* b) { b[threadIdx.x] = a[threadIdx.x + 1]; }'
    kernel = cupy.RawModule(code=code, options=("-std=c++17", "-DREAL=float")).get_function("beyond")
    a, b = cupy.asarray(np.ones(32, np.float32)), cupy.empty(32, dtype="float32")
    kernel((1,), (32,), (a, b))
    with pytest.raises(KernelFaultError, match="global memory read at 32, of 32 elements"):
        cupy.asnumpy(b)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pool[threadIdx.x] = 1; a[threadIdx.x] = pool[31 - threadIdx.x];", RACE),
        ("a[threadIdx.x] = pool[threadIdx.x];", "before anything was written"),
        ("pool[threadIdx.x + 1] = 1;", "shared memory written at 32, of 32"),
        ("if (threadIdx.x < 16) { __syncthreads(); } else { __syncthreads(); }", "wait for others"),
        ("if (threadIdx.x < 31) a[0] = __shfl_xor_sync(0xffffffffu, a[0], 1);", "wait for others"),
        ("if (threadIdx.x == 0) return; __syncthreads();", "wait for others"),
        ("a[blockDim.x + threadIdx.x] = 1;", "global memory written at (3[2-9]|[45][0-9]|6[0-3]), of 32"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_checker_itself(body, message, seed):
    device = FakeDevice()
    device.seed = seed
    cupy = make_cupy(device)
    # one statement per line, so that two barriers are two barriers
    code = f'typedef REAL real;\nextern "C" __global__ void check(real* a) {{ DYNAMIC_SHARED(real, pool);\n{body}\n}}'
    code = code.replace("{ __syncthreads(); }", "{\n__syncthreads();\n}")
    kernel = cupy.RawModule(code=code, options=("-std=c++17", "-DREAL=float")).get_function("check")
    kernel((1,), (32,), (cupy.zeros(32, dtype="float32"),), shared_mem=128)
    with pytest.raises(KernelFaultError, match=message):
        cupy.cuda.get_current_stream().synchronize()
