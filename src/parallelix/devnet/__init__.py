"""A whole network on one machine: real processes, real keys, a real model."""
