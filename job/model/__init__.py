"""Layers and weights, and no data on disk."""
