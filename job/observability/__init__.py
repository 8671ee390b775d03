"""Receives the run's events, and never decides."""
