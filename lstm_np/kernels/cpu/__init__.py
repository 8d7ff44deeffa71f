"""The fused kernels of the CPU."""
