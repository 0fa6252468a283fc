"""The seven steps of the cell workflow."""
