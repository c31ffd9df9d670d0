"""How the inner step is taken and differentiated: one strategy a module, and what several share."""
