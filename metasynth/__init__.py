"""metasynth: learn how to make training data by differentiating through training."""

__version__ = "0.2.0"
