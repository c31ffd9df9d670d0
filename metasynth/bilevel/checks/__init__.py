"""Checks made once on real batches, that a bilevel problem can be differentiated as it is stated."""
