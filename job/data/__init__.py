"""The training data: listing, decoding, splitting and caching. Knows nothing of models."""
