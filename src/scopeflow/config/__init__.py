"""What to do: option models users write, and the frozen specs made from them. No behaviour."""
