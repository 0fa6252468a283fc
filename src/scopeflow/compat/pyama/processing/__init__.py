"""The package ``pyama.processing``; names only, no logic."""
