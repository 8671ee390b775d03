"""The report of a run: one HTML page with charts and pictures, made from the files of the run alone."""
