"""Many recordings of one field of view: corrected, matched, aligned, with one valid mask."""
