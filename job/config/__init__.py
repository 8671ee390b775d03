"""Settings: their definition, their sources, and the reference generated from them."""
