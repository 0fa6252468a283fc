"""One block of frames: pure functions from arrays to arrays; no dask, no files."""
