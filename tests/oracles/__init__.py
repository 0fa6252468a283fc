"""Slow, independent twins of the kernels: plain numpy and Python loops in float64."""
