"""Following a Job or a run from elsewhere."""
