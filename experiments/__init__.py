"""The studies; one file each, found through entry points."""
