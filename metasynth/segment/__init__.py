"""Segmenters, their losses and their scores."""
