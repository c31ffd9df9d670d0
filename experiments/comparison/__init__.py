"""The comparison of methods on real images: its settings, the methods, and how each is fitted."""
