"""The one writer to the output: which run this is, its checkpoints, and its publication."""
