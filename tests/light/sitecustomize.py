"""Imported by every Python process that has this folder on ``PYTHONPATH``: its runs are light."""

import light_runs

light_runs.everywhere()
