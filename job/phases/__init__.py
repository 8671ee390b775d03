"""The phases of a run, one function each, in the order in which `job.pipeline` calls them."""
