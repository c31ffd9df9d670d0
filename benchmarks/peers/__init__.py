"""Bilevel problems that this core and other packages solve side by side; see `benchmarks.peers.__main__`."""
