"""One module for each format to write."""
