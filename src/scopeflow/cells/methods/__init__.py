"""Numbers of the cell workflow and the methods that can be chosen. Knows no dask and no file."""
