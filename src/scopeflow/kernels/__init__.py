"""How, on one frame: numpy, scipy and numba only. Arrays in, arrays out."""
