"""The studies; one file or folder each, found through entry points."""
