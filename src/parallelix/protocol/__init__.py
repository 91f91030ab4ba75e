"""What goes over the wire and what it proves. Pure: no clock, no randomness, no socket, nothing of ours imported."""
