"""The one reusable patch of `higher`: a model as a function of its parameters, evaluated again exactly as it was."""
