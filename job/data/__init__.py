"""What there is to train on: names and bytes, and no model."""
