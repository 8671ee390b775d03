"""Settings: their definition, where they are read from, and what is generated from them."""
