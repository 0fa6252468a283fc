"""Bytes in every format: recordings that are read, results that are written, where they stand."""
