"""How work runs: pieces that are found, done and recorded; where tasks run; progress."""
