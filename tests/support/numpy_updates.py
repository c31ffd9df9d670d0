"""Optimisers with, for every quantity, its sensitivity to the outer parameters θ (5), by hand in numpy.

One step is a function of φ (5), its sensitivity J = ∂φ/∂θ (5, 5), the gradient g and dg/dθ, and the rates.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Learning rate and weight decay, with their derivatives in θ (5,)."""

    lr: float
    decay: float
    dlr: Array
    ddecay: Array


def clip(g: Array, dg: Array, limit: float) -> tuple[Array, Array]:
    """g min(1, limit / (|g| + 1e-6)), with its sensitivity."""
    size = np.linalg.norm(g)
    factor = limit / (size + 1e-6)
    if factor >= 1:
        return g, dg
    dfactor = -limit / (size + 1e-6) ** 2 * (g @ dg) / size
    return factor * g, factor * dg + np.outer(g, dfactor)


class NumpyUpdate(ABC):
    """Starts from the optimiser's present moments, taken for constants."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        self.options: dict[str, Any] = optimiser.param_groups[0]
        self._states = [optimiser.state[p] for p in self.options["params"]]

    def moment(self, name: str) -> tuple[Array, Array] | None:
        """A moment over both parameters (5,) with a sensitivity of zero, or None before the first step."""
        if name not in self._states[0] or self._states[0][name] is None:
            return None
        return torch.cat([state[name] for state in self._states]).numpy().copy(), np.zeros((5, 5))

    def moment_or_zero(self, name: str) -> tuple[Array, Array]:
        return self.moment(name) or (np.zeros(5), np.zeros((5, 5)))

    def steps_taken(self) -> int:
        return int(self._states[0]["step"]) if self._states[0] else 0

    @abstractmethod
    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array, rates: Rates) -> tuple[Array, Array]:
        """The next φ and J."""


def numpy_update(optimiser: torch.optim.Optimizer) -> NumpyUpdate:
    kinds: dict[type, type[NumpyUpdate]] = {torch.optim.SGD: _Sgd, torch.optim.RMSprop: _RMSprop}
    return kinds.get(type(optimiser), _Adam)(optimiser)


def _decayed(phi: Array, jacobian: Array, g: Array, dg: Array, rates: Rates) -> tuple[Array, Array]:
    return g + rates.decay * phi, dg + rates.decay * jacobian + np.outer(phi, rates.ddecay)


def _moved(phi: Array, jacobian: Array, d: Array, dd: Array, rates: Rates) -> tuple[Array, Array]:
    """φ - lr d."""
    return phi - rates.lr * d, jacobian - rates.lr * dd - np.outer(d, rates.dlr)


def _ratio(a: Array, da: Array, square: Array, dsquare: Array, eps: float) -> tuple[Array, Array]:
    """a / (√square + eps)."""
    root = np.sqrt(square)
    below = (root + eps)[:, None]
    return a / (root + eps), da / below - a[:, None] * dsquare / (2 * root[:, None]) / below**2


class _Sgd(NumpyUpdate):
    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        super().__init__(optimiser)
        self.m = self.moment("momentum_buffer")

    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array, rates: Rates) -> tuple[Array, Array]:
        mu, damped = self.options["momentum"], 1 - self.options["dampening"]
        g, dg = _decayed(phi, jacobian, g, dg, rates)
        if mu:
            self.m = (g, dg) if self.m is None else (mu * self.m[0] + damped * g, mu * self.m[1] + damped * dg)
            m, dm = self.m
            g, dg = (g + mu * m, dg + mu * dm) if self.options["nesterov"] else (m, dm)
        return _moved(phi, jacobian, g, dg, rates)


class _Adam(NumpyUpdate):
    """Adam (L2 in the gradient) or AdamW (decoupled)."""

    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        super().__init__(optimiser)
        self.decoupled = isinstance(optimiser, torch.optim.AdamW)
        self.m, self.dm = self.moment_or_zero("exp_avg")
        self.v, self.dv = self.moment_or_zero("exp_avg_sq")
        self.steps = self.steps_taken()

    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array, rates: Rates) -> tuple[Array, Array]:
        beta1, beta2 = self.options["betas"]
        if self.decoupled:
            kept = 1 - rates.lr * rates.decay
            dkept = -(rates.lr * rates.ddecay + rates.decay * rates.dlr)
            phi, jacobian = kept * phi, kept * jacobian + np.outer(phi, dkept)
        else:
            g, dg = _decayed(phi, jacobian, g, dg, rates)
        self.steps += 1
        self.m = beta1 * self.m + (1 - beta1) * g
        self.dm = beta1 * self.dm + (1 - beta1) * dg
        self.v = beta2 * self.v + (1 - beta2) * g**2
        self.dv = beta2 * self.dv + (1 - beta2) * 2 * g[:, None] * dg
        unbias1, unbias2 = 1 - beta1**self.steps, 1 - beta2**self.steps
        d, dd = _ratio(self.m / unbias1, self.dm / unbias1, self.v / unbias2, self.dv / unbias2, self.options["eps"])
        return _moved(phi, jacobian, d, dd, rates)


class _RMSprop(NumpyUpdate):
    def __init__(self, optimiser: torch.optim.Optimizer) -> None:
        super().__init__(optimiser)
        self.v, self.dv = self.moment_or_zero("square_avg")
        self.m, self.dm = self.moment_or_zero("grad_avg")
        self.b, self.db = self.moment_or_zero("momentum_buffer")

    def __call__(self, phi: Array, jacobian: Array, g: Array, dg: Array, rates: Rates) -> tuple[Array, Array]:
        alpha, mu = self.options["alpha"], self.options["momentum"]
        g, dg = _decayed(phi, jacobian, g, dg, rates)
        self.v = alpha * self.v + (1 - alpha) * g**2
        self.dv = alpha * self.dv + (1 - alpha) * 2 * g[:, None] * dg
        variance, dvariance = self.v, self.dv
        if self.options["centered"]:
            self.m, self.dm = alpha * self.m + (1 - alpha) * g, alpha * self.dm + (1 - alpha) * dg
            variance, dvariance = variance - self.m**2, dvariance - 2 * self.m[:, None] * self.dm
        d, dd = _ratio(g, dg, variance, dvariance, self.options["eps"])
        self.b, self.db = mu * self.b + d, mu * self.db + dd
        return _moved(phi, jacobian, self.b, self.db, rates)
