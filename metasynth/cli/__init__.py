"""The command line; commands import what they need when they run, so that --help answers at once."""
