"""Draws that a loss makes from distributions which outer parameters set, so that these can be learned.

No derivative passes through what is drawn: a generator that is chosen, a resolution, a number of nodes. For z ~ p(z; θ)
the score function gives one all the same (`metasynth.bilevel.strategies.score_function`); it needs log p(z; θ) of every
draw, and further draws. Both come from the one function that a loss draws by.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from metasynth.bilevel.problem import Loss

# Of the whole process, as torch's random states are: a part that a backward pass computes again may run in a thread of
# torch's own, and has to draw there what it drew the first time.
_under_way: "list[Draws]" = []


def draw(distribution: Distribution) -> Tensor:
    """A sample of a distribution that outer parameters set, for a loss to use.

    To be called within a loss, with a distribution that is made there from the outer parameters::

        def inner_loss(model, outer, batch):
            nodes = 2 + draw(Categorical(logits=outer["nodes"]))

    A strategy that takes scores (`ScoreFunction`) then finds the derivative in them; no other can, and `preflight` says
    so. Draws come from torch's global random stream.

    Parameters
    ----------
    distribution : torch.distributions.Distribution
        Any; its `log_prob` is what is differentiated.

    Returns
    -------
    tensor
        As its `sample` gives it, without a graph.

    Raises
    ------
    ValueError
        If ``distribution`` is none.
    """
    if not isinstance(distribution, Distribution):
        raise ValueError(f"distribution must be a torch.distributions.Distribution, got {type(distribution).__name__}")
    # The global stream moves the same way in every pass, so that whatever else is drawn stays as it is.
    seed = int(torch.randint(2**31, ()))
    value = distribution.sample()
    return _under_way[-1].of(distribution, value, seed) if _under_way else value


class Draws:
    """What is drawn in the passes of one trial.

    Parameters
    ----------
    key : int or None
        Draws are made anew, and differently for each key; None: they are those of any other pass from the same state.

    Attributes
    ----------
    log_probability : tensor () or None
        Σ log p(z; θ) over the draws that were noted, with its graph; None: there was none.
    """

    def __init__(self, key: int | None = None) -> None:
        self._key = key
        self._notes = False
        self.log_probability: Tensor | None = None

    @contextmanager
    def made(self) -> Iterator[None]:
        """A context in which `draw` draws for this trial; nothing is noted."""
        _under_way.append(self)
        try:
            yield
        finally:
            _under_way.pop()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """The same, with the log-probability of each draw added up."""
        with self.made():
            before, self._notes = self._notes, True
            try:
                yield
            finally:
                self._notes = before

    def noting(self, loss: Loss) -> Loss:
        """The loss, with its draws noted; those of a backward pass, which computes parts again, are not."""

        def noted(model: Any, outer: Any, batch: Any) -> Tensor:
            with self.noted():
                return loss(model, outer, batch)

        return noted

    def of(self, distribution: Distribution, value: Tensor, seed: int) -> Tensor:
        """What is drawn in this trial, where ``value`` is what is drawn otherwise."""
        if self._key is not None:
            with torch.random.fork_rng(devices=[value.get_device()] if value.is_cuda else []):
                torch.default_generator.manual_seed(seed ^ self._key)
                if value.is_cuda:
                    torch.cuda.default_generators[value.get_device()].manual_seed(seed ^ self._key)
                value = distribution.sample()
        # Whether noted or not: a part that is computed again has to be computed as the first time.
        probability = distribution.log_prob(value).sum()
        if self._notes:
            self.log_probability = probability if self.log_probability is None else self.log_probability + probability
        return value
