"""A run that several processes carry out."""
