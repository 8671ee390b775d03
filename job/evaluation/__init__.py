"""What the model is worth."""
