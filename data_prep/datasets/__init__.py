"""Data sets of other programs that say themselves what is in them."""
