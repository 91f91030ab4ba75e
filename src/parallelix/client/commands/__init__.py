"""What the commands do: ask, then print for a person or for a program."""
