"""Synthetic images from label maps; nothing here is learned."""
