"""The story of each job, readable from top to bottom."""
