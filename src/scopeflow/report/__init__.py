"""Quality metrics, tables and pictures."""
