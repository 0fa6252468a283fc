"""Public helpers for tests and demonstrations: synthetic recordings with known motion."""
