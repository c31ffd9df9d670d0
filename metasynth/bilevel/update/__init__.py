"""How parameters move, given their gradients: differentiable optimisers, and what is done around them."""
