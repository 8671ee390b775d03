"""Following a Job or a run from a remote machine."""
