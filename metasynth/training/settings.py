"""Settings that studies share: the segmenter's training and the outer level.

More than 250 lines, as each of the many settings of the outer level is described where it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch

from metasynth.augment.augmenter import Grouped, Rate, check_groups
from metasynth.bilevel.hypergradient import HypergradientStrategy
from metasynth.bilevel.outer_step import PERSISTENT, OuterStep
from metasynth.bilevel.strategies.parts import InParts
from metasynth.bilevel.strategies.table import in_studies, in_studies_over
from metasynth.running.settings.bounds import require_at_least
from metasynth.running.settings.values import OneOf
from metasynth.training.reach import LARGEST_UNCONSTRAINED, require_rate
from metasynth.training.segmenter_settings import SegmenterSettings
from metasynth.training.sources import ReferenceKind


@dataclass(frozen=True)
class OuterSettings:
    """The outer problem: when a hypergradient is taken and what is made of it.

    Attributes
    ----------
    lr : float
        Learning rate of Adam on the unconstrained outer parameters.
    network_lr : float
        Learning rate of Adam on the weights of an augmenting network.
    betas : tuple of two float
        Decay of Adam's first and second moments. The second is fast, as the scale of hypergradients falls a hundredfold
        while a parameter travels: a mean over a hundred steps would hold it back for hundreds more.
    loss : {'segmenter', 'dice'}
        Of real images: the segmenter's own, or its soft Dice (of squares) alone, in which every class counts alike. A
        cross-entropy is mostly that of the large classes, and what is learned of it is at the small ones' cost.
    batch_size : int
        Real images a hypergradient (and as many in the reference batch): their number is what its noise depends on.
    warmup : int
        Inner steps before the first hypergradient.
    every : int
        A hypergradient at every ``every``-th inner step from then on; one costs about seven plain steps here, and the
        default takes fewer than `metasynth.bilevel.outer_step.PERSISTENT` does. With a ``horizon``: inner steps from
        the beginning of one window to that of the next.
    until : int
        Inner steps after which no hypergradient is taken: what was learned by then stays. 0: they are taken to the end.
    horizon : int
        Inner steps that a hypergradient is followed back through, its window: those up to the one that is due. What
        serves the next step alone may harm a training of many (Wu et al. 2018, short-horizon bias). A window of K steps
        costs about 5 K plain ones, and the memory of about √K; see `metasynth.bilevel.strategies.unrolled.Unrolled`.
    mean_of : int
        Iterates, the last ones of the window, at whose mean the outer loss is taken; at most ``horizon``.
    reference : {'random', 'matched', 'none'}
        The synthetic batch whose gradient is subtracted from the real one, which leaves of it what tells the two
        domains apart; see `metasynth.bilevel.hypergradient.hypergradient`. Its contrasts are random ones, or those of
        the real images, whose chance is then no part of the difference (`metasynth.training.sources.reference_of`). An
        augmenter that makes the contrast itself is given the real images' label maps for 'matched'.
    memory : float
        Decay, in [0, 1), of the running mean that real gradients are replaced by; see
        `metasynth.bilevel.outer_step.OuterStep`. 0: none.
    clip : float
        Limit of a hypergradient's norm, above 1, in units of its running scale; see the same. 0: none.
    average : int
        Hypergradients that are averaged into one outer step.
    strategy : str
        How the mixed second derivative is computed; see `metasynth.bilevel.strategies.table`.
    samples : int
        Images of the batch, at random, that the second-order part is computed on; 0: all. See
        `metasynth.bilevel.strategies.parts.InParts`. For segmenters whose loss is a mean over images alone (see
        `check_together`).
    chunk : int
        How many of them at a time; 0: all. Likewise.
    hold : int
        Outer steps at the full rate, in which the parameters travel to where they belong.
    settle : int
        At outer step t from then on the rate is ``settle`` / (``settle`` + t - ``hold``) of it (Robbins & Monro 1951),
        so that the last values rest on all draws and not on the latest alone. 0: the rate never falls.
    """

    ADDED: ClassVar[Mapping[str, Any]] = {"loss": "segmenter", "until": 0, "horizon": 1, "mean_of": 1}

    lr: float = 0.05
    network_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    loss: Literal["segmenter", "dice"] = "segmenter"
    batch_size: int = 16
    warmup: int = PERSISTENT.warmup
    every: int = 3
    until: int = 0
    horizon: int = 1
    mean_of: int = 1
    reference: ReferenceKind = "random"
    memory: float = PERSISTENT.memory
    clip: float = PERSISTENT.clip or 0.0
    average: int = PERSISTENT.average
    hold: int = 100
    settle: int = 20
    strategy: Annotated[str, OneOf(lambda: tuple(in_studies()))] = "mixed"
    samples: int = 0
    chunk: int = 0

    def __post_init__(self) -> None:
        require_rate(LARGEST_UNCONSTRAINED, lr=self.lr)
        require_rate(network_lr=self.network_lr)
        require_at_least(1, batch_size=self.batch_size, every=self.every, horizon=self.horizon, mean_of=self.mean_of)
        require_at_least(
            0,
            warmup=self.warmup,
            until=self.until,
            hold=self.hold,
            settle=self.settle,
            samples=self.samples,
            chunk=self.chunk,
        )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        if self.strategy not in in_studies():
            raise ValueError(f"strategy must be one of {', '.join(in_studies())}, got {self.strategy!r}")
        self.step_options()
        self._check_horizon()

    def _check_horizon(self) -> None:
        if 0 < self.until <= self.first_due:
            raise ValueError(
                f"until must be 0, or at least warmup + horizon = {self.warmup} + {self.horizon}, got {self.until}"
            )
        if self.mean_of > self.horizon:
            raise ValueError(f"mean_of must be at most horizon = {self.horizon}, got {self.mean_of}")
        if self.every < self.horizon:
            raise ValueError(f"every must be at least horizon = {self.horizon}, got {self.every}")
        if self.horizon == 1:
            return
        for name, only in (("strategy", "mixed"), ("samples", 0), ("chunk", 0)):
            value = getattr(self, name)
            if value != only:
                raise ValueError(
                    f"horizon = {self.horizon} needs {name} = {only}, as several steps are differentiated in one way "
                    f"only, got {value}"
                )

    def of_real(self, segmenter: SegmenterSettings) -> SegmenterSettings:
        """The segmenter's settings with the loss of real images."""
        return segmenter if self.loss == "segmenter" else replace(segmenter, loss="squared_dice")

    def step_options(self) -> OuterStep:
        """The options of the solver's outer step."""
        return OuterStep(
            average=self.average,
            clip=self.clip or None,
            memory=self.memory,
            warmup=self.warmup,
            every=self.every,
        )

    def hypergradient_strategy(self) -> HypergradientStrategy:
        """The strategy, in parts where that is asked for; that of a longer horizon is always `Unrolled`."""
        if self.horizon > 1:
            return in_studies_over(self.horizon, self.mean_of)
        strategy = in_studies()[self.strategy]
        if self.samples == self.chunk == 0:
            return strategy
        return InParts(strategy, self.samples or None, self.chunk or None)

    def optimizer(self, augmenter: Grouped) -> torch.optim.Adam:
        """Adam on the augmenter's parameters, values before weights, each group at its rate.

        Raises
        ------
        UsageError
            (a ValueError) when a parameter is in no group, or a group of an unknown rate.
        """
        check_groups(augmenter, type(augmenter).__name__)
        rates: dict[Rate, float] = {"values": self.lr, "weights": self.network_lr}
        found = augmenter.parameter_groups()
        groups = [{"params": found[rate], "lr": lr} for rate, lr in rates.items() if found.get(rate)]
        return torch.optim.Adam(groups, lr=self.lr, betas=self.betas)

    def is_due(self, step: int) -> bool:
        """Whether inner step ``step`` (from 0) takes a hypergradient: the last one of a window."""
        return step < self._end(step + 1) and self.step_options().is_due(step + 1 - self.horizon)

    @property
    def first_due(self) -> int:
        """The first inner step (from 0) that takes a hypergradient."""
        return self.warmup + self.horizon - 1

    def waits(self, step: int, steps: int) -> bool:
        """Whether inner step ``step`` (from 0) of ``steps`` is taken with a later one, the last of its window.

        A window that would not end is not begun: its steps are plain ones.
        """
        return step < self.window_end(step) < self._end(steps)

    def window_end(self, step: int) -> int:
        """The last of the inner steps (from 0) of the window that ``step`` is of; in none it is one of its own."""
        within = (step - self.warmup) % self.every
        return step - within + self.horizon - 1 if step >= self.warmup and within < self.horizon else step

    def outer_steps(self, steps: int) -> int:
        """Outer steps in ``steps`` inner steps."""
        return -(-max(0, self._end(steps) - self.first_due) // self.every) // self.average

    def _end(self, steps: int) -> int:
        """The inner step, of ``steps``, from which on none takes a hypergradient."""
        return min(steps, self.until or steps)

    def rate_at(self, step: int) -> float:
        """What the learning rates are multiplied by at inner step ``step`` (from 0)."""
        falling = (step - self.warmup) // (self.every * self.average) - self.hold
        return 1.0 if self.settle == 0 or falling <= 0 else self.settle / (self.settle + falling)


def require_window(outer: OuterSettings, steps: int, setting: str, name: str = "outer") -> None:
    """Refuse a horizon that is longer than what a training has after its warm-up.

    Raises
    ------
    ValueError
        Naming ``setting``, the number of ``steps`` of the training, and ``name``, the group of settings ``outer``.
    """
    if outer.horizon > 1 and outer.first_due >= steps:
        raise ValueError(
            f"{name}.warmup + {name}.horizon must be at most {setting} = {steps}, got {outer.warmup} + {outer.horizon}"
        )


def check_together(segmenter: SegmenterSettings, outer: OuterSettings, name: str = "outer") -> None:
    """Refuse settings of the two levels that the core would refuse of a bilevel training, before anything is done.

    Raises
    ------
    ValueError
        Naming the two settings; ``name`` is the group ``outer``.
    """
    if outer.hypergradient_strategy().mode == "differences" and segmenter.autocast != "none":
        raise ValueError(
            f"{name}.strategy = {outer.strategy} needs segmenter.autocast = none, as it subtracts gradients that would "
            f"be rounded too far, got {segmenter.autocast}"
        )
    parts = [part for part in ("samples", "chunk") if getattr(outer, part)]
    if not parts or segmenter.batch_size == 1:
        return
    given = f"{name}.{parts[0]} = {getattr(outer, parts[0])}"
    if segmenter.dice_over == "batch" and segmenter.loss != "logit_mse":
        raise ValueError(
            f"{given} needs segmenter.dice_over = image, as a Dice over the whole batch is no mean over images, got "
            "batch"
        )
    if segmenter.norm == "batch":
        raise ValueError(
            f"{given} needs segmenter.norm = instance or none, as batch statistics couple the images of a batch, got "
            "batch"
        )


LONG = OuterSettings(
    lr=0.15,
    betas=(0.6, 0.9),
    loss="dice",
    batch_size=24,
    warmup=300,
    every=90,
    until=840,
    horizon=60,
    mean_of=30,
    reference="none",
    memory=0.0,
    clip=0.0,
)
"""For domains that differ in what the augmenter cannot change, as synthetic and real scans do: few hypergradients, each
of which says with some certainty where a training of many steps leads (docs/measurements/horizon.md)."""
MATCHED = OuterSettings(reference="matched", lr=0.03, settle=150)
"""For domains that differ in more than noise: contrasts are the same in both, and parameters that a single draw says
little about travel slowly enough to stay together (docs/measurements/recovery.md)."""
