"""The gateway to numba: compiled kernels, explicit vectors, recorded sequences. Knows no image."""
