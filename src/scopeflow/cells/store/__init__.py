"""Folders and arrays of the cell workflow."""
