"""Export of the model, and the verification that it reproduces the run's predictions."""
