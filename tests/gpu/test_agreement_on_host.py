"""The GPU kernels, executed on the CPU, compute the numbers that stand with them, and give way to an edited cell."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_np import Adam, SequenceClassifier
from lstm_np.cells import CELLS, get_cell, lstm
from lstm_np.data import Batches
from lstm_np.device.steps import DeviceSteps
from lstm_np.kernels import KernelWarning, LayerSpec, agreement, choose_kernel
from tests.faults import with_fault
from tests.gpu.host_cupy import make_backend, make_cupy
from tests.gpu.support import KERNELS, needs_compiler


@needs_compiler
@pytest.mark.parametrize("name", list(KERNELS))
def test_the_kernels_compute_the_numbers_that_stand_with_them(name):
    kernel = KERNELS[name]
    found = agreement.step_results(kernel, get_cell("lstm"), make_backend(make_cupy()))
    (computes,) = kernel.computes
    expected = np.array(computes.results)
    assert (np.abs(found - expected) <= agreement.ABSOLUTE + agreement.RELATIVE * np.abs(expected)).all()


@needs_compiler
def test_they_give_way_to_an_edited_cell(monkeypatch):
    backend = make_backend(make_cupy())

    def chosen(name="auto"):
        return choose_kernel(name, LayerSpec(get_cell("lstm"), 4, 8, True, "float32"), backend).name

    assert chosen() == "persistent"
    monkeypatch.setitem(CELLS, "lstm", with_fault(lstm, "f * c_before + i * g)", "c_before + i * g)"))
    with pytest.warns(KernelWarning, match="is not the one in kernel 'persistent'"):
        assert chosen() == "reference"
    for name in KERNELS:
        with pytest.raises(ValueError, match=f"is not the one in kernel '{name}'"):
            chosen(name)


@needs_compiler
def test_so_does_the_training_step_on_the_device(monkeypatch):
    images, labels = np.zeros((4, 3, 5), np.uint8), np.zeros(4, np.int64)

    def possible():
        model = SequenceClassifier(5, 4, 3, backend=make_backend(make_cupy()))
        steps = model.training_steps(Adam(model.params), Batches(images, labels, 2, seed=0))
        return isinstance(steps, DeviceSteps)

    assert possible()
    monkeypatch.setitem(CELLS, "lstm", with_fault(lstm, "f * c_before + i * g)", "c_before + i * g)"))
    with pytest.warns(KernelWarning):
        assert not possible()
