"""Faults planted in the kernels' sources turn the tests red: each is found, by a wrong value or by the checker."""

import re

import numpy as np
import pytest

from tests.gpu.host_cupy import FakeDevice, KernelFaultError, make_cupy
from tests.gpu.support import TOLERANCE, Case, assert_equal, draw, needs_compiler, on_host, reference
from tests.gpu.training_support import assert_training_agrees

pytestmark = needs_compiler


def planted(old, new, occurrence=1, within=""):
    """A function that puts `new` for one occurrence of `old`, after the text `within`, wherever a source holds them."""

    def mutate(code):
        start = code.find(within)
        if start < 0:
            return code
        for _ in range(occurrence):
            start = code.find(old, start + 1)
            if start < 0:
                return code
        mutate.planted = True
        return code[:start] + new + code[start + len(old) :]

    mutate.planted = False
    return mutate


FORWARD, BACKWARD = "lstm_persistent_forward(", "lstm_persistent_backward("
RACE = "race|before anything was written|wait for others"

PERSISTENT = {
    "no barrier after the prologue, forward": (planted("__syncthreads();", "", 1, FORWARD), RACE),
    "no barrier in the loop, forward": (planted("__syncthreads();", "", 2, FORWARD), RACE),
    "no barrier after the prologue, backward": (planted("__syncthreads();", "", 1, BACKWARD), RACE),
    "no barrier in the loop, backward": (planted("__syncthreads();", "", 2, BACKWARD), RACE),
    "a barrier that some skip": (planted("__syncthreads();", "if (live[0]) __syncthreads();", 2, FORWARD), RACE),
    "one buffer for two steps": (planted("((t + 1) & 1)", "(t & 1)", 1, FORWARD), RACE),
    "reads the next buffer": (planted("vectors + (t & 1)", "vectors + ((t + 1) & 1)", 1, FORWARD), RACE),
    "writes behind the vector": (planted("place.unit(m)] = h_t", "place.unit(m) + M::PADDED] = h_t", 1, FORWARD), None),
    "gates in another order": (planted("{sigmoid(a_i), sigmoid(a_f)", "{sigmoid(a_f), sigmoid(a_i)"), None),
    "wrong row of U": (planted("value * H + row_unit", "value * H + (row_unit + 1) % H"), None),
    "wrong lane's columns": (planted("c * M::LANES + place.lane) * 4)", "c * M::LANES) * 4)"), None),
    "a lane forgotten when adding up": (planted("OFFSET * 2>(sums", "OFFSET * 4>(sums"), None),
    "the wrong half given away": (planted("upper ? low : high", "upper ? high : low"), None),
    "bias left out": (planted("coming[m][gate] + offset[m][gate]", "coming[m][gate]"), None),
    "pre-activations of the same step again": (planted("gates[(t + 1) * 4", "gates[t * 4", 1, FORWARD), None),
    "gates of the wrong step": (planted("(t - 1) * 4 * state", "t * 4 * state", 1, BACKWARD), None),
    "c of the wrong step": (planted("c[(t - 1) * state", "c[t * state", 1, BACKWARD), None),
    "samples beyond the batch": (planted("unit < H && b < B;", "unit < H;", 1, BACKWARD), None),
    "dc not carried": (planted("dc *= s.f;", ""), None),
    "derivative of the wrong gate": (planted("d_f * s.f * (real(1) - s.f)", "d_f * s.f * (real(1) - s.i)"), None),
}  # fmt: skip

STEPS = {
    "c of the wrong step": (planted("c[t * state + k] + s.i", "c[(t + 1) * state + k] + s.i"), None),
    "h in the wrong slot": (planted("h[(t + 1) * state + k] =", "h[t * state + k] ="), None),
    "output gate without its bias": (planted("a[2 * H] + v[2 * H]", "a[2 * H]"), None),
    "dy of the wrong step": (planted("dy[t * state + k]", "dy[k]"), None),
    "no guard for the last block": (planted("if (k >= (long long)B * H) return;", ""), None),
}  # fmt: skip

TRAINING = {
    "product: no barrier before the loop": (planted("__syncthreads();", "", 1, "store(0);"), RACE),
    "product: no barrier in the loop": (planted("__syncthreads();", "", 2, "store(0);"), RACE),
    "product: next tile over this one": (planted("store(1 - buffer)", "store(buffer)"), RACE),
    "product: last tile not cut off": (planted("m < M && k < k_end ?", "m < M ?"), None),
    "weight gradient: h one step late": (planted("k * H + n - D]", "(k + 1) * H + n - D]"), None),
    "update: a part forgotten": (planted("part < parts; ++part) g +=", "part < parts - 1; ++part) g +=", 2), None),
    "norm: a part forgotten": (planted("part < parts; ++part) g +=", "part < parts - 1; ++part) g +=", 1), None),
    "gather: position not used": (planted("order[counters[1] + b]", "order[b]"), None),
    "gather: image not turned": (planted("(long long)(k / D) * B + b) * D + k % D]", "long long)b * T * D + k]"), None),
    "read-out: no barrier before the softmax": (planted("__syncthreads();", "", 2, "read_out("), RACE),
    "read-out: no barrier before dh": (planted("__syncthreads();", "", 3, "read_out("), RACE),
    "read-out: mean over the wrong count": (planted("/ real(B);", "/ real(B + 1);"), None),
    "read-out gradient: no barrier": (planted("__syncthreads();", "", 1, "read_out_gradient("), RACE),
    "read-out gradient: bias forgotten": (planted("b * H + j] : real(1))", "b * H + j] : real(0))"), None),
    "totals: only the first lane's losses": (planted("loss = sum_over_warp(loss);", ""), None),
    "norm: no barrier": (planted("__syncthreads();", "", 1, "sum_over_block("), RACE),
    "Adam: step counted late": (planted("++counters[0]", "counters[0]++"), None),
    "Adam: epsilon of the other form": (planted("ADAM ? settings[3] * root", "ADAM_HAT ? settings[3] * root"), None),
    "update: U^T left as it was": (planted("transposed[in_U % H * 4 * H + in_U / H] = updated;", ";"), None),
}  # fmt: skip


def check_fault(mutate, message, run):
    with pytest.raises(AssertionError) as caught:  # a wrong value, or KernelFaultError
        run()
    assert mutate.planted
    if message is not None:
        assert isinstance(caught.value, KernelFaultError)
        assert re.search(message, str(caught.value))


@pytest.mark.parametrize("fault", PERSISTENT)
def test_fault_in_the_persistent_kernel(fault):
    mutate, message = PERSISTENT[fault]
    case = Case(H=5, B=3, T=3, D=2)
    drawn = draw(case)

    def run():
        found = on_host("persistent", case, drawn, FakeDevice(multiprocessors=1), mutate)
        assert_equal(found, reference(case, drawn), TOLERANCE["float32"])

    check_fault(mutate, message, run)


@pytest.mark.parametrize("fault", STEPS)
def test_fault_in_the_fused_kernel(fault):
    mutate, message = STEPS[fault]
    case = Case(H=5, B=3, T=3, D=2)
    drawn = draw(case)

    def run():
        assert_equal(on_host("cuda_fused", case, drawn, mutate=mutate), reference(case, drawn), TOLERANCE["float32"])

    check_fault(mutate, message, run)


@pytest.mark.parametrize("fault", TRAINING)
def test_fault_in_the_training_step(fault):
    mutate, message = TRAINING[fault]
    # clipped to a norm, a gradient of the wrong size would look right
    max_norm = 0.05 if fault.startswith("norm") else None
    check_fault(mutate, message, lambda: assert_training_agrees(max_norm=max_norm, epsilon=1e-2, mutate=mutate))


def test_a_read_beyond_an_array_gives_no_number():
    cupy = make_cupy()
    code = 'extern "C" __global__ void beyond(const float* a, float* b) { b[threadIdx.x] = a[threadIdx.x + 1]; }'
    kernel = cupy.RawModule(code=code, options=("-std=c++17", "-DREAL=float")).get_function("beyond")
    a, b = cupy.asarray(np.ones(32, np.float32)), cupy.empty(32, dtype="float32")
    kernel((1,), (32,), (a, b))
    assert np.isnan(cupy.asnumpy(b)[31])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pool[threadIdx.x] = 1; a[threadIdx.x] = pool[31 - threadIdx.x];", RACE),
        ("a[threadIdx.x] = pool[threadIdx.x];", "before anything was written"),
        ("pool[threadIdx.x + 1] = 1;", "shared memory written at 32, of 32"),
        ("if (threadIdx.x < 16) { __syncthreads(); } else { __syncthreads(); }", "wait for others"),
        ("if (threadIdx.x < 31) a[0] = __shfl_xor_sync(0xffffffffu, a[0], 1);", "wait for others"),
        ("if (threadIdx.x == 0) return; __syncthreads();", "wait for others"),
        ("a[blockDim.x + threadIdx.x] = 1;", "memory before or after"),
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
    with pytest.raises(KernelFaultError, match=message):
        kernel((1,), (32,), (cupy.zeros(32, dtype="float32"),), shared_mem=128)
