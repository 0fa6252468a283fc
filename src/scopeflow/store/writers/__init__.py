"""One module per export format; each streams blocks to a temporary name, then renames."""
