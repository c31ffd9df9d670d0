"""Caches of labelled slices and volumes, their splits and datasets."""
