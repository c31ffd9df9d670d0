"""What studies share that recover a known corruption: their data, settings, tables and figures.

The studies are `metasynth.experiments.noise` and `metasynth.experiments.inu`, with their presets.
"""
