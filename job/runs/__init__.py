"""The only writer to the output: the run's identity, its checkpoints and its publication."""
