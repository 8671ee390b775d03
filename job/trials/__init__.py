"""What is tried out without a run: the time and memory that it would take, and learning rates."""
