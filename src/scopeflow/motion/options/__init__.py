"""What a user asks for, and the frozen parameters made from it."""
