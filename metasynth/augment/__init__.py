"""Learned, differentiable augmenters of synthetic images."""
