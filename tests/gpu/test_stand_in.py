"""The stand-in offers nothing that CuPy does not have."""

from types import SimpleNamespace

import pytest

from tests.gpu import host_kernels, host_memory, host_streams
from tests.gpu.host_cupy import make_cupy
from tests.gpu.support import needs_compiler

OWN = {"device", "stand_in"}  # of the stand-in alone
OF_THE_WATCH = {"runtime", "allocation", "values", "refuse_unwritten", "note_written"}


def missing(stand_in, real, where="cupy"):
    """Names that the one has and the other lacks."""
    for name, value in vars(stand_in).items():
        if name in OWN or name.startswith("__"):
            continue
        try:
            found = getattr(real, name)
        except AttributeError:
            yield f"{where}.{name}"
        except ImportError:  # a module over a library of CUDA that is not on this machine
            continue
        else:
            if isinstance(value, SimpleNamespace):
                yield from missing(value, found, f"{where}.{name}")


@needs_compiler
def test_all_its_names_are_those_of_cupy():
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed, or not for this machine", exc_type=ImportError)
    found = list(missing(make_cupy(), cupy))
    for ours, theirs in (
        (host_streams.Stream, cupy.cuda.Stream),
        (host_streams.Event, cupy.cuda.Event),
        (host_streams.Graph, cupy.cuda.Graph),
        (host_kernels.RawKernel, cupy.RawKernel),
        (host_kernels.RawModule, cupy.RawModule),
        (host_memory.DeviceArray, cupy.ndarray),
    ):
        names = {name for name in vars(ours) if not name.startswith("_")} - OF_THE_WATCH
        found += [f"{theirs.__name__}.{name}" for name in sorted(names) if not hasattr(theirs, name)]
    assert found == []
    pointer = cupy.cuda.MemoryPointer
    assert all(hasattr(pointer, name) for name in ("ptr", "copy_to_host_async"))


def test_a_name_that_cupy_lacks_is_found():
    stand_in, real = SimpleNamespace(a=1, b=SimpleNamespace(c=2)), SimpleNamespace(b=object())
    assert list(missing(stand_in, real)) == ["cupy.a", "cupy.b.c"]
