"""What studies share that recover a known corruption: their material, settings, tables and figures."""
