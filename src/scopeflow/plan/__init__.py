"""Integers only: blocks, batches, spine, memory. No data, no dask, no files."""
