"""Settings of the sinusoids."""

from dataclasses import dataclass
from typing import Literal

from metasynth.running.settings.bounds import require_at_least, require_distinct, require_positive
from metasynth.training.reach import require_rate

SHOWN = 3
"""How many of the new tasks are shown."""


@dataclass(frozen=True)
class SinusoidConfig:
    """Settings of the study.

    Attributes
    ----------
    variants : tuple of str
        'maml': hypergradients through all inner steps; 'first-order': the second derivatives left out.
    learn_rates : bool
        Whether α, a step size for each weight tensor, is learned too; else it is 1.
    widths : tuple of int
        Units of the hidden layers.
    shots : int
        Points that a task is adapted to.
    queries : int
        Other points of it that it is judged by.
    inner_steps : int
        Gradient steps of the adaptation.
    inner_lr : float
        Learning rate of the adaptation.
    tasks : int
        Tasks of a meta-batch.
    steps : int
        Outer steps.
    outer_lr : float
        Learning rate of Adam on θ, falling to zero along a cosine.
    clip : float
        Limit of a hypergradient's norm, in units of its running scale.
    test_tasks : int
        New tasks to test on.
    test_steps : int
        Gradient steps that are followed there.
    """

    variants: tuple[Literal["maml", "first-order"], ...] = ("maml", "first-order")
    learn_rates: bool = True
    widths: tuple[int, ...] = (40, 40)
    shots: int = 5
    queries: int = 10
    inner_steps: int = 5
    inner_lr: float = 0.01
    tasks: int = 25
    steps: int = 2500
    outer_lr: float = 0.005
    clip: float = 2.0
    test_tasks: int = 500
    test_steps: int = 10

    def __post_init__(self) -> None:
        require_positive(shots=self.shots, queries=self.queries, inner_steps=self.inner_steps, tasks=self.tasks)
        require_positive(steps=self.steps, test_tasks=self.test_tasks, inner_lr=self.inner_lr)
        require_rate(outer_lr=self.outer_lr)
        if not self.clip > 1:
            raise ValueError(f"clip must be above 1, got {self.clip}")
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths must be at least 1, got {self.widths}")
        require_distinct("at least one", variants=self.variants)
        if self.test_steps < self.inner_steps:
            raise ValueError(f"test_steps must be at least inner_steps = {self.inner_steps}, got {self.test_steps}")
        require_at_least(SHOWN, test_tasks=self.test_tasks)
