"""Names of other programs on top of scopeflow; names only, no logic."""
