"""The kernels of the GPU."""
