"""The two training stages. Depends on data and model, not on storage."""
