"""Images and parts of them: the steps that make either from draws, where patches are, and a generator of these."""
