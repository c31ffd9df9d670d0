"""Between the outer pass and the outer optimiser: averaging, clipping, and what each is for.

A single hypergradient is a product of two noisy vectors, h = Dᵀ v, with D = (∂U/∂g) (∂g/∂θ) from the inner batch and v
from the outer batch. Its scale falls by two orders of magnitude while the inner model learns, and single draws are 10
to 1000 times the typical one (Adam's 1/sqrt(v) at a small second moment). A fixed clipping norm does not exist for it,
and dividing by its norm would keep only the sign. So the limit follows the running scale, and where the product's
noise is the noise of D times that of v, averaging v before the product is worth more than averaging h after it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Gradients = dict[str, Tensor | None]


@dataclass(frozen=True)
class OuterStep:
    """How hypergradients become outer steps.

    Parameters
    ----------
    average : int
        n >= 1 hypergradients (after clipping) are averaged into one outer step.
    clip : float or None
        Each hypergradient h is scaled to a norm of at most ``clip`` times s, the running scale of the norms:
        s <- clip_decay * s + (1 - clip_decay) * min(|h|, clip * s). A clipped norm enters s only up to its limit, so
        a spike barely moves s and typical draws pass as they are. The first norm is s itself; one of zero (or below
        the normal numbers of its type) says nothing of the scale, and leaves s as it is. None: no clipping.
    clip_decay : float
        In [0, 1); the memory of s is about 1 / (1 - clip_decay) hypergradients.
    memory : float
        In [0, 1). The pullback is applied to the running mean m of v = ∂L_outer/∂φ* (corrected by the reference batch
        where there is one) instead of to v: m <- memory * m + (1 - memory) * v, divided by 1 - memory^t at the
        t-th call. Lowers the variance by up to (1 + memory) / (1 - memory) at the price of v being about
        1 / (1 - memory) calls old. The mean still vanishes where the corrected v does. 0: exact, no memory.
    warmup : int
        No hypergradient before so many inner steps: an inner model that has learned nothing has nothing to say.
    every : int
        A hypergradient at every ``every``-th inner step from then on; the others are plain training steps.
    """

    average: int = 1
    clip: float | None = None
    clip_decay: float = 0.95
    memory: float = 0.0
    warmup: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        for name, least in (("warmup", 0), ("every", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not isinstance(self.average, int) or self.average < 1:
            raise ValueError(f"average must be an integer of at least 1, got {self.average!r}")
        if self.clip is not None and not self.clip > 1:
            raise ValueError(f"clip must be above 1 (times the running scale) or None, got {self.clip!r}")
        for name in ("clip_decay", "memory"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")

    def is_due(self, inner_steps: int) -> bool:
        """Whether the next step takes a hypergradient, after so many inner steps."""
        return inner_steps >= self.warmup and (inner_steps - self.warmup) % self.every == 0


PERSISTENT = OuterStep(clip=3.0, memory=0.9, warmup=200, every=2)
"""For an inner model that is trained on and on, with a reference batch at every step: what
docs/reference/strategies.md recommends. The studies on images have its clip, memory and warm-up by default, and a
hypergradient at every third step (`metasynth.training.settings.OuterSettings`)."""


class CotangentMean:
    """Running mean of v over calls (see ``OuterStep.memory``), with one entry per inner parameter."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._mean: list[Tensor | None] = []
        self._calls = 0

    def add(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Take in v and return the mean to pull back."""
        if self._memory == 0:
            return list(cotangents)
        if not self._mean:
            self._mean = [None] * len(cotangents)
        self._calls += 1
        unbias = 1 - self._memory**self._calls
        for index, v in enumerate(cotangents):
            old = self._mean[index]
            if v is not None:
                self._mean[index] = v * (1 - self._memory) if old is None else torch.lerp(old, v, 1 - self._memory)
            elif old is not None:
                self._mean[index] = old * self._memory
        return [None if m is None else m / unbias for m in self._mean]

    def state_dict(self) -> dict[str, Any]:
        """The mean and the number of calls."""
        return {"mean": list(self._mean), "calls": self._calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._mean = list(state["mean"])
        self._calls = int(state["calls"])


class Accumulator:
    """Clipped sum of hypergradients since the last outer step, and the running scale of their norms."""

    def __init__(self, options: OuterStep, names: Sequence[str]) -> None:
        self._options = options
        self._sums: Gradients = dict.fromkeys(names)
        self._count = 0
        self._scale: float | None = None

    def add(self, gradients: Gradients) -> Gradients | None:
        """Take in one hypergradient; return the mean when the last of ``average`` has come, else None."""
        factor = self._clip_factor(gradients)
        for name, gradient in gradients.items():
            if gradient is not None:
                held = self._sums[name]
                scaled = gradient.detach() * factor
                self._sums[name] = scaled if held is None else held + scaled
        self._count += 1
        if self._count < self._options.average:
            return None
        mean = {name: None if s is None else s / self._count for name, s in self._sums.items()}
        self._sums = dict.fromkeys(self._sums)
        self._count = 0
        return mean

    def _clip_factor(self, gradients: Gradients) -> float:
        if self._options.clip is None:
            return 1.0
        present = [g.detach() for g in gradients.values() if g is not None]
        norm = _norm(present)
        if norm < max((torch.finfo(g.dtype).tiny for g in present), default=1.0):
            return 1.0
        if self._scale is None:
            self._scale = norm
        limit = self._options.clip * self._scale
        factor = limit / norm if norm > limit else 1.0
        self._scale = self._options.clip_decay * self._scale + (1 - self._options.clip_decay) * norm * factor
        return factor

    def state_dict(self) -> dict[str, Any]:
        """Sums, count and scale."""
        return {"sums": dict(self._sums), "count": self._count, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        if state["sums"].keys() != self._sums.keys():
            raise ValueError(f"accumulated hypergradients must name {sorted(self._sums)}, got {sorted(state['sums'])}")
        self._sums = dict(state["sums"])
        self._count = int(state["count"])
        self._scale = state["scale"] or None  # 0.0 was once what a first norm of zero set


def _norm(tensors: Sequence[Tensor]) -> float:
    """Euclidean norm over all entries; in double precision where a square leaves the range of its type."""
    norm = sum(float(t.square().sum()) for t in tensors) ** 0.5
    return norm if 0 < norm < math.inf else sum(float(t.double().square().sum()) for t in tensors) ** 0.5
