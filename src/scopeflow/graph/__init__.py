"""Dask graphs: lazy videos and the tasks of each job. Never computes, knows no file format."""
