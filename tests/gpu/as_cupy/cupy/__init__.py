"""The stand-in under CuPy's name: a process with this folder on its path finds it where it asks for `cupy`."""

from tests.gpu.host_cupy import make_cupy

globals().update(vars(make_cupy()))
