"""The published model, and the check that it answers as the run did."""
