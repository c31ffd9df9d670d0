"""What studies share that recover a known corruption: their data, settings, tables and figures."""
