"""Import paths of other programs, so that their scripts run here; names and adapters, no logic."""
