"""The modules that a MONAI bundle carries in its folder `scripts`; they need MONAI, and nothing of metasynth."""
