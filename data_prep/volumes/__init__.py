"""Volume files and what is done to a volume: read, oriented, resampled, aligned."""
