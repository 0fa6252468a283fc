"""Displacement methods by name, and those that come with scopeflow."""
