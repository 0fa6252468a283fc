"""The result of a recording: its arrays, its records, its exports."""
