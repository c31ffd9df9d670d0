"""A generator's priors: how bright structures are in some scans, how much people differ in it, how rough they are."""
