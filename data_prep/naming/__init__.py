"""Whose file is which: subjects, names and their parts, pairs of image and labels."""
