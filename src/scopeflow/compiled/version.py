"""Version of the numbers that compiled kernels produce."""

KERNEL_VERSION = 4
"""Raised whenever the numbers that the kernels produce change; part of every fingerprint."""
