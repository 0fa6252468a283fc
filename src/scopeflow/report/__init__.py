"""Metrics, pictures and films of results; knows no product."""
