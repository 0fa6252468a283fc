"""Motion correction and cell traces for microscopy video, on dask and zarr."""

from __future__ import annotations

__version__ = "0.1.0"
