"""Update rules of `torch.optim` as functions of (parameter, gradient, state, options), one for each optimiser."""
