"""Numbers on images: filters, warp, resize, registration, statistics. Arrays in, arrays out."""
