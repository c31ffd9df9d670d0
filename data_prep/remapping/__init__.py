"""Caches of the same people whose images have another contrast: real anatomy under intensities nobody has seen."""
