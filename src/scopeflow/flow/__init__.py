"""The displacement between two images: the variational solver and what can replace it."""
