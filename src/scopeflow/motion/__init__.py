"""Motion correction of one recording."""
