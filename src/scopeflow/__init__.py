"""Motion correction of microscopy video on dask and zarr: the public names, imported on first use.

The names stand in ``__init__.pyi``. Importing this module costs nothing; numba, dask and xarray
come with the first name that needs them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
