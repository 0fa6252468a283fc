"""Bytes in every format: sources, the native zarr store, the ledger, exports. No dask."""
