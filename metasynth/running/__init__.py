"""A run as such, of any experiment: settings, records, checkpoints, the lock, grids of runs."""
