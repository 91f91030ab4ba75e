"""ParalleliX: many people's GPUs and CPUs as one inference service that nobody has to take on trust."""
