"""Displacement methods besides the built-in solver; each needs a package and is imported late."""
