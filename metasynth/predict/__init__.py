"""Segmenting scans with a trained model, in their own geometry, and scoring label maps against references."""
