"""Zarr arrays: whole shards written and read in one step, stores here and elsewhere, NGFF."""
