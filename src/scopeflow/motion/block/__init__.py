"""One block of frames: arrays in, arrays out. Knows no dask and no file."""
