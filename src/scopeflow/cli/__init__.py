"""The ``scopeflow`` command."""
