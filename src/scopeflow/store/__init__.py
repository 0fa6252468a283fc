"""Bytes in every format: sources, the native zarr store, the ledger, exports. No dask."""

from __future__ import annotations

import os

# zarr takes more threads for its codecs than there are processors. With the threads that compute
# they fight over Python's lock: half of them halve the time of a block's write, and its memory.
# Read once, when zarr is imported; the user's own setting wins, also `zarr.config` later on.
os.environ.setdefault("ZARR_THREADING__MAX_WORKERS", str(max(1, (os.cpu_count() or 2) // 2)))
