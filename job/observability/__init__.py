"""Reports the run's events: log, bars, status.json, Kubernetes Events. Makes no decisions."""
