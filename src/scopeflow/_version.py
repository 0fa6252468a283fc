"""The version of scopeflow; part of every result."""

__version__ = "0.1.0"
