"""Settings of the ridge regressions."""

from dataclasses import dataclass
from typing import Literal

from metasynth.running.settings.bounds import require_at_least, require_distinct, require_positive
from metasynth.training.reach import LARGEST_UNCONSTRAINED, require_rate


@dataclass(frozen=True)
class RidgeConfig:
    """Settings of the study.

    Attributes
    ----------
    features : int
        Inputs of the regression.
    train : int
        Rows of the inner loss.
    validation : int
        Rows of the outer loss.
    noise : float
        Standard deviation of the targets about the true regression, whose own is 1.
    strategies : tuple of str
        How hypergradients are computed.
    start : tuple of float
        Where λ starts.
    steps : int
        Outer steps.
    inner_steps : int
        Inner steps before each outer step.
    lr : float
        Learning rate of the inner SGD.
    momentum : float
        Momentum of the inner SGD.
    outer_lr : float
        Learning rate of Adam on θ, falling to zero along a cosine.
    problems : int
        Regressions drawn.
    """

    features: int = 20
    train: int = 40
    validation: int = 100
    noise: float = 1.0
    strategies: tuple[Literal["unrolled", "implicit"], ...] = ("unrolled", "implicit")
    start: tuple[float, ...] = (0.01, 1.0)
    steps: int = 80
    inner_steps: int = 40
    lr: float = 0.1
    momentum: float = 0.7
    outer_lr: float = 0.3
    problems: int = 2

    def __post_init__(self) -> None:
        require_at_least(1, features=self.features, train=self.train, validation=self.validation)
        require_at_least(1, steps=self.steps, inner_steps=self.inner_steps, problems=self.problems)
        require_positive(noise=self.noise, lr=self.lr)
        require_rate(LARGEST_UNCONSTRAINED, outer_lr=self.outer_lr)
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {self.momentum}")
        require_distinct("at least one", strategies=self.strategies)
        require_distinct("positive numbers", start=self.start)
        if min(self.start) <= 0:
            raise ValueError(f"start must list positive numbers, each once, got {self.start}")
