"""One module per export format; each writes a stream of blocks to a temporary name, then renames."""
