"""The two stages: training knows the data and the model, and no store."""
