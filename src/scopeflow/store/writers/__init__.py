"""One module per export format; blocks go to a temporary name, which is renamed at the end."""
