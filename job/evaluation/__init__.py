"""Evaluation of the trained model: scores, metrics and the quality gate."""
